// Running the panel product on each of the instruction sets that it was compiled for; for tests.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_INSTRUCTION_SETS_H_
#define QUICKSAVE_COMPRESSOR_LATENT_INSTRUCTION_SETS_H_

#include <cstdint>
#include <vector>

#include "hwy/targets.h"

namespace quicksave::compressor {

// Highway's targets that this CPU has, the best first; none below AVX2 on x86, for which panel_product.cc is compiled.
inline std::vector<int64_t> ProductTargets() {
  std::vector<int64_t> targets;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
#if HWY_ARCH_X86
    // Better targets have lower bits.
    if (target > HWY_AVX2) continue;
#endif
    targets.push_back(target);
  }
  return targets;
}

// Products run on this target while it lives. None may run in another thread when it comes or goes.
class ScopedProductTarget {
 public:
  explicit ScopedProductTarget(int64_t target) {
    // And the worse ones, of which the best that there is code for is taken.
    hwy::SetSupportedTargetsForTest(hwy::SupportedTargets() & -target);
    hwy::GetChosenTarget().DeInit();
  }
  ~ScopedProductTarget() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().DeInit();
  }
  ScopedProductTarget(const ScopedProductTarget&) = delete;
  ScopedProductTarget& operator=(const ScopedProductTarget&) = delete;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_INSTRUCTION_SETS_H_
