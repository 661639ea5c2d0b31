#include "compressor/rans_groups.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <bit>

#include "compressor/cpu_features.h"

namespace quicksave::compressor {
namespace {

// The streams' states: lane i holds stream 2i or stream 2i + 1. Seen as 16-bit words, a vector has then room for one
// word of every stream in the streams' order, which is the order of the words that they share.
struct Lanes {
  __m512i even;
  __m512i odd;
};

QUICKSAVE_AVX512_INLINE Lanes LoadStates(const uint32_t* states) {
  const __m512i front = _mm512_load_si512(states);
  const __m512i back = _mm512_load_si512(states + kStreams / 2);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
  return {_mm512_permutex2var_epi32(front, even, back), _mm512_permutex2var_epi32(front, odd, back)};
}

QUICKSAVE_AVX512_INLINE void StoreStates(const Lanes& lanes, uint32_t* states) {
  const __m512i front = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i back = _mm512_add_epi32(front, _mm512_set1_epi32(8));
  _mm512_store_si512(states, _mm512_permutex2var_epi32(lanes.even, front, lanes.odd));
  _mm512_store_si512(states + kStreams / 2, _mm512_permutex2var_epi32(lanes.even, back, lanes.odd));
}

QUICKSAVE_AVX512_INLINE __m512i LoadBytes(const uint8_t* bytes) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
}

// The slots of the tables that the states lead to. `tables` are multiples of kFrequencyTotal.
QUICKSAVE_AVX512_INLINE __m512i GatherSlots(__m512i states, __m512i tables, const DecodeTable* slots) {
  // Bit by bit: where the constant has ones the state, elsewhere the table.
  const __m512i places = _mm512_ternarylogic_epi32(_mm512_set1_epi32(kFrequencyTotal - 1), states, tables, 0xca);
  return _mm512_i32gather_epi32(places, slots, sizeof(uint32_t));
}

// The states without the symbols.
QUICKSAVE_AVX512_INLINE __m512i Pop(__m512i states, __m512i slots) {
  const __m512i low_bits = _mm512_set1_epi32(kFrequencyTotal - 1);
  const __m512i frequency = _mm512_and_si512(_mm512_srli_epi32(slots, 8), low_bits);
  const __m512i quotient = _mm512_srli_epi32(states, kFrequencyBits);
  return _mm512_add_epi32(_mm512_mullo_epi32(frequency, quotient), _mm512_srli_epi32(slots, 20));
}

// One symbol from every stream.
QUICKSAVE_AVX512_INLINE void DecodeGroup(Lanes& lanes, RansPosition& at, const DecodeTable* tables) {
  const __m512i table_pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at.table_of)));
  const __m512i table_bits = _mm512_set1_epi32(0xff * kFrequencyTotal);
  const __m512i even_tables = _mm512_and_si512(_mm512_slli_epi32(table_pairs, kFrequencyBits), table_bits);
  const __m512i odd_tables = _mm512_and_si512(_mm512_slli_epi32(table_pairs, kFrequencyBits - 8), table_bits);
  const __m512i even_slots = GatherSlots(lanes.even, even_tables, tables);
  const __m512i odd_slots = GatherSlots(lanes.odd, odd_tables, tables);
  const __m512i even = Pop(lanes.even, even_slots);
  const __m512i odd = Pop(lanes.odd, odd_slots);
  const __m512i upper_halves = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd);
  const __mmask32 low = _mm512_testn_epi16_mask(upper_halves, upper_halves);
  const __m512i words = _mm512_maskz_expand_epi16(low, _mm512_loadu_si512(at.next));
  const __m512i even_refilled = _mm512_mask_blend_epi16(0x55555555, _mm512_slli_epi32(even, 16), words);
  const __m512i odd_refilled = _mm512_shldi_epi32(odd, words, 16);
  const __m512i limit = _mm512_set1_epi32(kStateLow);
  lanes.even = _mm512_mask_mov_epi32(even, _mm512_cmplt_epu32_mask(even, limit), even_refilled);
  lanes.odd = _mm512_mask_mov_epi32(odd, _mm512_cmplt_epu32_mask(odd, limit), odd_refilled);
  at.PassWords(static_cast<size_t>(std::popcount(static_cast<uint32_t>(low))));
  const __m512i symbols = _mm512_mask_blend_epi8(0x2222222222222222, even_slots, _mm512_slli_epi32(odd_slots, 8));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(at.symbols.data()), _mm512_cvtepi32_epi16(symbols));
  at.PassSymbols(kStreams);
}

// For each qword its word number kWord, the rest zero.
template <int kWord>
QUICKSAVE_AVX512_INLINE __m512i TakeWords(__m512i words) {
  constexpr int64_t kZeros = static_cast<int64_t>(0x8080808080800000 | (2 * kWord + 1) << 8 | 2 * kWord);
  constexpr int64_t kSecond = static_cast<int64_t>(0x8080808080800000 | (2 * kWord + 9) << 8 | (2 * kWord + 8));
  const __m512i order = _mm512_set_epi64(kSecond, kZeros, kSecond, kZeros, kSecond, kZeros, kSecond, kZeros);
  return _mm512_shuffle_epi8(words, order);
}

// What the encoder needs of a symbol, from sixteen streams: reciprocals in the lower halves of 64 bits, ranges above.
struct Entries {
  __m512i even;
  __m512i odd;
};

QUICKSAVE_AVX512_INLINE __m512i GatherEntries(__m512i places, const EncodeTable* tables) {
  return _mm512_i64gather_epi64(places, tables, sizeof(EncodeSymbol));
}

// The upper halves of 64 bits: those of `even` in the even lanes, those of `odd` where they are.
QUICKSAVE_AVX512_INLINE __m512i JoinUpper(__m512i even, __m512i odd) {
  return _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
}

// start << 16 | frequency of all sixteen.
QUICKSAVE_AVX512_INLINE __m512i Ranges(const Entries& entries) { return JoinUpper(entries.even, entries.odd); }

// The states, each with a symbol more; those that are full were halved before.
QUICKSAVE_AVX512_INLINE __m512i Push(__m512i states, const Entries& entries, __m512i ranges, __m512i frequencies) {
  const __m512i even = _mm512_mul_epu32(states, entries.even);
  const __m512i odd = _mm512_mul_epu32(_mm512_shuffle_epi32(states, _MM_PERM_DDBB), entries.odd);
  const __m512i quotient = JoinUpper(even, odd);
  const __m512i remainder = _mm512_sub_epi32(states, _mm512_mullo_epi32(quotient, frequencies));
  // state = quotient * total + remainder + start; the quotient may be one too small.
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(quotient, kFrequencyBits), remainder),
                                       _mm512_srli_epi32(ranges, 16));
  const __mmask16 more = _mm512_cmpge_epu32_mask(remainder, frequencies);
  const __m512i correction = _mm512_sub_epi32(_mm512_set1_epi32(kFrequencyTotal), frequencies);
  return _mm512_mask_add_epi32(sum, more, sum, correction);
}

// Moves the lower halves of full states to `words`, in the streams' order.
QUICKSAVE_AVX512_INLINE void GiveWords(const Lanes& lanes, uint32_t full, uint16_t*& words) {
  const auto count = static_cast<uint32_t>(std::popcount(full));
  words -= count;
  const __m512i pairs = _mm512_mask_blend_epi16(0xaaaaaaaa, lanes.even, _mm512_slli_epi32(lanes.odd, 16));
  _mm512_mask_storeu_epi16(words, static_cast<__mmask32>(_bzhi_u64(~uint64_t{0}, count)),
                           _mm512_maskz_compress_epi16(full, pairs));
}

// What the encoder needs of a group's symbols.
struct GroupEntries {
  Entries even;
  Entries odd;
};

QUICKSAVE_AVX512_INLINE GroupEntries GatherGroup(const EncodeTable* tables, const uint8_t* table_of,
                                                 const uint8_t* symbols) {
  const __m512i places = _mm512_or_si512(_mm512_slli_epi16(LoadBytes(table_of), 8), LoadBytes(symbols));
  return {.even = {GatherEntries(TakeWords<0>(places), tables), GatherEntries(TakeWords<2>(places), tables)},
          .odd = {GatherEntries(TakeWords<1>(places), tables), GatherEntries(TakeWords<3>(places), tables)}};
}

// One symbol to every stream.
QUICKSAVE_AVX512_INLINE void EncodeGroup(Lanes& lanes, uint16_t*& words, const GroupEntries& entries) {
  const __m512i even_ranges = Ranges(entries.even);
  const __m512i odd_ranges = Ranges(entries.odd);
  const __m512i even_frequencies = _mm512_and_si512(even_ranges, _mm512_set1_epi32(0xffff));
  const __m512i odd_frequencies = _mm512_and_si512(odd_ranges, _mm512_set1_epi32(0xffff));
  constexpr int kLimitShift = 32 - kFrequencyBits;
  const __mmask16 even_full = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(lanes.even, kLimitShift), even_frequencies);
  const __mmask16 odd_full = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(lanes.odd, kLimitShift), odd_frequencies);
  GiveWords(lanes, _pdep_u32(even_full, 0x55555555) | _pdep_u32(odd_full, 0xaaaaaaaa), words);
  lanes.even =
      Push(_mm512_mask_srli_epi32(lanes.even, even_full, lanes.even, 16), entries.even, even_ranges, even_frequencies);
  lanes.odd =
      Push(_mm512_mask_srli_epi32(lanes.odd, odd_full, lanes.odd, 16), entries.odd, odd_ranges, odd_frequencies);
}

}  // namespace

QUICKSAVE_AVX512 void DecodeGroupsAvx512(RansCursor& cursor, const DecodeTable* tables) {
  RansPosition at = cursor.at;
  Lanes lanes = LoadStates(cursor.states);
  while (at.HasSafeGroup()) DecodeGroup(lanes, at, tables);
  StoreStates(lanes, cursor.states);
  cursor.at = at;
}

QUICKSAVE_AVX512 void DecodePairAvx512(RansCursor& a, RansCursor& b, const DecodeTable* tables) {
  RansPosition at_a = a.at;
  RansPosition at_b = b.at;
  Lanes lanes_a = LoadStates(a.states);
  Lanes lanes_b = LoadStates(b.states);
  while (at_a.HasSafeGroup() && at_b.HasSafeGroup()) {
    DecodeGroup(lanes_a, at_a, tables);
    DecodeGroup(lanes_b, at_b, tables);
  }
  StoreStates(lanes_a, a.states);
  StoreStates(lanes_b, b.states);
  a.at = at_a;
  b.at = at_b;
}

QUICKSAVE_AVX512 void EncodeGroupsAvx512(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of,
                                         const uint8_t* symbols, size_t groups) {
  Lanes lanes = LoadStates(sink.states);
  uint16_t* words = sink.words;
  // Each group's entries are gathered while the group after it is encoded.
  size_t i = groups * kStreams;
  GroupEntries entries = {};
  if (i > 0) entries = GatherGroup(tables, table_of + i - kStreams, symbols + i - kStreams);
  for (; i > kStreams; i -= kStreams) {
    const GroupEntries before = GatherGroup(tables, table_of + i - 2 * kStreams, symbols + i - 2 * kStreams);
    EncodeGroup(lanes, words, entries);
    entries = before;
  }
  if (i > 0) EncodeGroup(lanes, words, entries);
  StoreStates(lanes, sink.states);
  sink.words = words;
}

}  // namespace quicksave::compressor

#else

namespace quicksave::compressor {

void DecodeGroupsAvx512(RansCursor& cursor, const DecodeTable* tables) { DecodeGroupsPortable(cursor, tables); }
void DecodePairAvx512(RansCursor& /*a*/, RansCursor& /*b*/, const DecodeTable* /*tables*/) {}
void EncodeGroupsAvx512(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                        size_t groups) {
  EncodeGroupsPortable(sink, tables, table_of, symbols, groups);
}

}  // namespace quicksave::compressor

#endif
