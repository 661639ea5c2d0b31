#include "server/engine/testing/instruction_sets.h"

// The kernel of int8 weights is compiled for this target, too.
#define HWY_WANT_AVX3_DL
#include "hwy/targets.h"

namespace quicksave::engine {

std::vector<int64_t> KernelTargets() {
  std::vector<int64_t> targets;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
#if HWY_ARCH_X86
    // This file is compiled for older CPUs, too; the kernels are not. Better targets have lower bits.
    if (target > HWY_AVX2) continue;
#endif
    targets.push_back(target);
  }
  return targets;
}

std::string TargetName(int64_t target) { return hwy::TargetName(target); }

ScopedTarget::ScopedTarget(int64_t target) {
  // And the worse ones: not every kernel is compiled for every target.
  hwy::SetSupportedTargetsForTest(hwy::SupportedTargets() & -target);
  hwy::GetChosenTarget().DeInit();
}

ScopedTarget::~ScopedTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

}  // namespace quicksave::engine
