#include <algorithm>

#include "compressor/exact_values.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <bit>

#include "compressor/cpu_features.h"

namespace quicksave::compressor {
namespace {

constexpr size_t kLanes = 32;

// The first `count` lanes.
QUICKSAVE_AVX512_INLINE __mmask32 First(size_t count) {
  return static_cast<__mmask32>(_bzhi_u64(0xffffffff, static_cast<uint32_t>(std::min(count, kLanes))));
}

// A channel's model in all lanes.
struct ModelLanes {
  __m512i start;
  __m512i flip;
};

QUICKSAVE_AVX512_INLINE ModelLanes Spread(const ChannelModel& model) {
  return {_mm512_set1_epi16(static_cast<int16_t>(model.window_start)), _mm512_set1_epi16(model.flip_sign ? 0x80 : 0)};
}

// The symbols of 32 values, kEscapeSymbol for those that have none.
QUICKSAVE_AVX512_INLINE __m512i Symbols(__m512i values, const ModelLanes& model, __m512i available) {
  const __m512i magnitudes = _mm512_and_si512(_mm512_srli_epi16(values, kRawBits), _mm512_set1_epi16(0x7ff));
  const __m512i places = _mm512_sub_epi16(magnitudes, model.start);
  const __m512i signs = _mm512_and_si512(_mm512_srli_epi16(values, 8), _mm512_set1_epi16(0x80));
  const __m512i symbols = _mm512_or_si512(_mm512_xor_si512(signs, model.flip), places);
  const __mmask32 inside = _mm512_cmplt_epu16_mask(places, _mm512_set1_epi16(kWindowClasses));
  // Places and shift counts are taken modulo 32 and 16: a symbol's upper and lower half.
  const __m512i words = _mm512_permutexvar_epi16(_mm512_srli_epi16(symbols, 4), available);
  const __m512i bits = _mm512_sllv_epi16(_mm512_set1_epi16(1), _mm512_and_si512(symbols, _mm512_set1_epi16(15)));
  const __mmask32 has = _mm512_mask_test_epi16_mask(inside, words, bits);
  return _mm512_mask_mov_epi16(_mm512_set1_epi16(kEscapeSymbol), has, symbols);
}

// The raw bits of 32 values.
QUICKSAVE_AVX512_INLINE __m128i PackRawBits(__m512i values) {
  const __m512i raw = _mm512_and_si512(values, _mm512_set1_epi16(15));
  return _mm512_cvtepi32_epi8(_mm512_or_si512(raw, _mm512_srli_epi32(raw, 16 - kRawBits)));
}

QUICKSAVE_AVX512_INLINE __m512i UnpackRawBits(__m128i packed) {
  const __m512i bytes = _mm512_cvtepu8_epi32(packed);
  return _mm512_and_si512(_mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 16 - kRawBits)), _mm512_set1_epi16(15));
}

// Adds sign and magnitude class to the raw bits.
QUICKSAVE_AVX512_INLINE __m512i ApplySymbols(__m512i raw, __m512i symbols, const ModelLanes& model) {
  const __m512i turned = _mm512_xor_si512(symbols, model.flip);
  const __m512i magnitudes =
      _mm512_add_epi16(_mm512_and_si512(turned, _mm512_set1_epi16(kWindowClasses - 1)), model.start);
  const __m512i signs = _mm512_slli_epi16(_mm512_and_si512(turned, _mm512_set1_epi16(0x80)), 8);
  return _mm512_or_si512(_mm512_or_si512(raw, signs), _mm512_slli_epi16(magnitudes, kRawBits));
}

}  // namespace

QUICKSAVE_AVX512 size_t SeparateValuesAvx512(const ChannelModel& model, const AvailableSymbols& available,
                                             absl::Span<const uint16_t> values, const SeparatedValues& to,
                                             uint16_t* escapes) {
  const ModelLanes lanes = Spread(model);
  const __m512i available_lanes =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(available.words.data())));
  uint8_t* const raw_bits = to.raw_bits + to.first_raw / 2;
  uint8_t* const to_symbols = to.symbols;
  const uint16_t* const from = values.data();
  const size_t count = values.size();
  const uint16_t* const first_escape = escapes;
  for (size_t i = 0; i < count; i += kLanes) {
    const size_t left = count - i;
    const __m512i some = _mm512_maskz_loadu_epi16(First(left), from + i);
    const __m512i symbols = Symbols(some, lanes, available_lanes);
    _mm256_mask_storeu_epi8(to_symbols + i, First(left), _mm512_cvtepi16_epi8(symbols));
    _mm_mask_storeu_epi8(raw_bits + i / 2, static_cast<__mmask16>(First((left + 1) / 2)), PackRawBits(some));
    const __mmask32 escaped = _mm512_mask_cmpeq_epi16_mask(First(left), symbols, _mm512_set1_epi16(kEscapeSymbol));
    _mm512_storeu_si512(escapes, _mm512_maskz_compress_epi16(escaped, some));
    escapes += std::popcount(static_cast<uint32_t>(escaped));
  }
  return static_cast<size_t>(escapes - first_escape);
}

QUICKSAVE_AVX512 bool RestoreValuesAvx512(const ChannelModel& model, const CodedValues& coded,
                                          std::string_view& escapes, uint16_t* values) {
  const ModelLanes lanes = Spread(model);
  const char* const raw_bits = coded.raw_bits.data() + coded.first_raw / 2;
  for (size_t i = 0; i < coded.symbols.size(); i += kLanes) {
    const size_t left = coded.symbols.size() - i;
    const __m512i symbols = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(First(left), coded.symbols.data() + i));
    const __m128i packed = _mm_maskz_loadu_epi8(static_cast<__mmask16>(First((left + 1) / 2)), raw_bits + i / 2);
    __m512i restored = ApplySymbols(UnpackRawBits(packed), symbols, lanes);
    const __mmask32 escaped = _mm512_cmpeq_epi16_mask(symbols, _mm512_set1_epi16(kEscapeSymbol));
    if (escaped != 0) {
      const auto count = static_cast<size_t>(std::popcount(static_cast<uint32_t>(escaped)));
      if (escapes.size() < count * sizeof(uint16_t)) return false;
      const __m512i words = _mm512_maskz_loadu_epi16(First(count), escapes.data());
      restored = _mm512_mask_expand_epi16(restored, escaped, words);
      escapes.remove_prefix(count * sizeof(uint16_t));
    }
    _mm512_mask_storeu_epi16(values + i, First(left), restored);
  }
  return true;
}

}  // namespace quicksave::compressor

#else

namespace quicksave::compressor {

size_t SeparateValuesAvx512(const ChannelModel& model, const AvailableSymbols& available,
                            absl::Span<const uint16_t> values, const SeparatedValues& to, uint16_t* escapes) {
  return SeparateValuesPortable(model, available, values, to, escapes);
}

bool RestoreValuesAvx512(const ChannelModel& model, const CodedValues& coded, std::string_view& escapes,
                         uint16_t* values) {
  return RestoreValuesPortable(model, coded, escapes, values);
}

}  // namespace quicksave::compressor

#endif
