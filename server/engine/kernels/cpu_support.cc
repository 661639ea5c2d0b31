#include "server/engine/kernels/cpu_kernels.h"

// Apart from the kernels, because this file must run on a CPU that cannot run them.

namespace quicksave::engine::cpu {

bool IsSupported() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("pclmul");
#else
  return true;
#endif
}

}  // namespace quicksave::engine::cpu
