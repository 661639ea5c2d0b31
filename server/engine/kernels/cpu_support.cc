#include "hwy/targets.h"
#include "server/engine/kernels/cpu_kernels.h"

// Apart from the kernels, because this file must run on a CPU that cannot run them.

namespace quicksave::engine::cpu {

bool IsSupported() {
#if HWY_ARCH_X86
  // By which Highway means BMI, FMA, F16C, AES and CLMUL too.
  constexpr int64_t kEnough = HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL;
  return (hwy::SupportedTargets() & kEnough) != 0;
#else
  return true;
#endif
}

}  // namespace quicksave::engine::cpu
