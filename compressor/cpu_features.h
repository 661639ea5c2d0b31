// Functions that are compiled for more instructions than the build is for, and what this processor has of them.

#ifndef QUICKSAVE_COMPRESSOR_CPU_FEATURES_H_
#define QUICKSAVE_COMPRESSOR_CPU_FEATURES_H_

#if defined(__x86_64__)
// For AVX2, only to be called where HaveAvx2().
#define QUICKSAVE_AVX2 __attribute__((target("avx2")))
// For AVX-512 F, BW, VL, VBMI and VBMI2 (Ice Lake, Zen 4 and later), only to be called where HaveAvx512().
#define QUICKSAVE_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi2,popcnt")))
#else
#define QUICKSAVE_AVX2
#define QUICKSAVE_AVX512
#endif
#define QUICKSAVE_INLINE __attribute__((always_inline)) inline
#define QUICKSAVE_AVX512_INLINE QUICKSAVE_AVX512 QUICKSAVE_INLINE

namespace quicksave::compressor {

// Whether this processor and this build have them.
inline bool HaveAvx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") != 0;
#else
  return false;
#endif
}

inline bool HaveAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512vbmi") != 0 &&
         __builtin_cpu_supports("avx512vbmi2") != 0 && __builtin_cpu_supports("bmi2") != 0 &&
         __builtin_cpu_supports("popcnt") != 0;
#else
  return false;
#endif
}

// Which instructions a loop uses; whichever they are, its result has the same bits. Only a path that HavePath() says is
// there may be asked for.
enum class CpuPath { kFastest, kPortable, kAvx2, kAvx512 };

inline bool HavePath(CpuPath path) {
  if (path == CpuPath::kAvx512) return HaveAvx512();
  return path != CpuPath::kAvx2 || HaveAvx2();
}

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_CPU_FEATURES_H_
