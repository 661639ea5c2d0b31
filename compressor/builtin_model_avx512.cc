#include "compressor/builtin_model.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "compressor/cpu_features.h"

namespace quicksave::compressor {
namespace {

// Four lanes belong to each model.
constexpr size_t kStep = 8;

QUICKSAVE_AVX512_INLINE __m512i Join(__m128i a, __m128i b, __m128i c, __m128i d) {
  const __m256i front = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
  const __m256i back = _mm256_inserti128_si256(_mm256_castsi128_si256(c), d, 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(front), back, 1);
}

QUICKSAVE_AVX512_INLINE __m128i LoadEight(const uint16_t* values) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
}

// Eight values of each model in a quarter of the vector, outliers set to zero.
QUICKSAVE_AVX512_INLINE __m512i LoadUsual(const uint16_t* values, size_t count, __m512i limits) {
  const __m512i all =
      Join(LoadEight(values), LoadEight(values + count), LoadEight(values + 2 * count), LoadEight(values + 3 * count));
  const __mmask32 usual = _mm512_cmple_epu16_mask(_mm512_and_si512(all, _mm512_set1_epi16(0x7fff)), limits);
  return _mm512_maskz_mov_epi16(usual, all);
}

// Of each quarter's eight values four as floats: the first or the last ones.
QUICKSAVE_AVX512_INLINE __m512 Widen(__m512i values, bool last) {
  const __m128i first_order = _mm_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7);
  const __m128i last_order = _mm_setr_epi8(-1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
  return _mm512_castsi512_ps(_mm512_shuffle_epi8(values, _mm512_broadcast_i32x4(last ? last_order : first_order)));
}

// Of each model's limit eight.
QUICKSAVE_AVX512_INLINE __m512i SpreadLimits(const ModelLimits& limits) {
  return Join(_mm_set1_epi16(static_cast<int16_t>(limits[0])), _mm_set1_epi16(static_cast<int16_t>(limits[1])),
              _mm_set1_epi16(static_cast<int16_t>(limits[2])), _mm_set1_epi16(static_cast<int16_t>(limits[3])));
}

QUICKSAVE_AVX512_INLINE FourPerModel Store(__m512 sums) {
  FourPerModel stored;
  _mm512_storeu_ps(stored.data(), sums);
  return stored;
}

}  // namespace

QUICKSAVE_AVX512 uint16_t FourthLargestAvx512(const Sample& sample) {
  // There is an instruction that finds the least of eight.
  const __m128i front = _mm_xor_si128(LoadEight(sample.data()), _mm_set1_epi16(-1));
  const __m128i back = _mm_xor_si128(LoadEight(sample.data() + 8), _mm_set1_epi16(-1));
  __m128i least = _mm_min_epu16(front, back);
  __m128i next = _mm_max_epu16(front, back);
  const __m128i places = _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7);
  for (int i = 0; i < 3; ++i) {
    const __m128i place = _mm_broadcastw_epi16(_mm_srli_epi32(_mm_minpos_epu16(least), 16));
    const __m128i found = _mm_cmpeq_epi16(place, places);
    least = _mm_blendv_epi8(least, next, found);
    next = _mm_or_si128(next, found);
  }
  return static_cast<uint16_t>(~_mm_extract_epi16(_mm_minpos_epu16(least), 0));
}

QUICKSAVE_AVX512 FourPerModel SumValuesAvx512(const ModelValues& values, const ModelLimits& limits) {
  const __m512i limit = SpreadLimits(limits);
  __m512 sums = _mm512_setzero_ps();
  for (size_t i = 0; i < values.count; i += kStep) {
    const __m512i usual = LoadUsual(values.values + i, values.count, limit);
    sums = _mm512_add_ps(_mm512_add_ps(sums, Widen(usual, false)), Widen(usual, true));
  }
  return Store(sums);
}

QUICKSAVE_AVX512 FourPerModel SumDistancesAvx512(const ModelValues& values, const ModelLimits& limits,
                                                 const PerModel& means) {
  const __m512i limit = SpreadLimits(limits);
  const __m512i model_of = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const __m512 mean = _mm512_permutexvar_ps(model_of, _mm512_castps128_ps512(_mm_loadu_ps(means.data())));
  __m512 sums = _mm512_setzero_ps();
  for (size_t i = 0; i < values.count; i += kStep) {
    const __m512i usual = LoadUsual(values.values + i, values.count, limit);
    sums = _mm512_add_ps(sums, _mm512_abs_ps(_mm512_sub_ps(Widen(usual, false), mean)));
    sums = _mm512_add_ps(sums, _mm512_abs_ps(_mm512_sub_ps(Widen(usual, true), mean)));
  }
  return Store(sums);
}

}  // namespace quicksave::compressor

#else

#include <cstdlib>

namespace quicksave::compressor {

uint16_t FourthLargestAvx512(const Sample& /*sample*/) { std::abort(); }
FourPerModel SumValuesAvx512(const ModelValues& /*values*/, const ModelLimits& /*limits*/) { std::abort(); }
FourPerModel SumDistancesAvx512(const ModelValues& /*values*/, const ModelLimits& /*limits*/,
                                const PerModel& /*means*/) {
  std::abort();
}

}  // namespace quicksave::compressor

#endif
