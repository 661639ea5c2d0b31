#include "compressor/rans_groups.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <array>
#include <bit>

#include "compressor/cpu_features.h"

namespace quicksave::compressor {
namespace {

// For each set of lanes that take a word: byte j tells which of the next words lane j takes.
constexpr std::array<uint64_t, 256> MakeWordOrder() {
  std::array<uint64_t, 256> order = {};
  for (uint32_t mask = 0; mask < 256; ++mask) {
    uint64_t word = 0;
    for (int lane = 0; lane < 8; ++lane) {
      if ((mask >> lane & 1) != 0) order[mask] |= word++ << (8 * lane);
    }
  }
  return order;
}

constexpr std::array<uint64_t, 256> kWordOrder = MakeWordOrder();

// For each set of lanes that give a word: their numbers in ascending order, at the end of the eight bytes.
constexpr std::array<uint64_t, 256> MakeGivingLanes() {
  std::array<uint64_t, 256> lanes = {};
  for (uint32_t mask = 0; mask < 256; ++mask) {
    int place = 8;
    for (int lane = 7; lane >= 0; --lane) {
      if ((mask >> lane & 1) != 0) lanes[mask] |= static_cast<uint64_t>(lane) << (8 * --place);
    }
  }
  return lanes;
}

constexpr std::array<uint64_t, 256> kGivingLanes = MakeGivingLanes();

// One symbol from each of eight streams; returns the tables' slots, whose low byte is the symbol.
QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i DecodeEight(__m256i& states, const int* slots, __m256i tables,
                                                    const char*& next) {
  const __m256i low_bits = _mm256_set1_epi32(kFrequencyTotal - 1);
  const __m256i place = _mm256_add_epi32(_mm256_slli_epi32(tables, kFrequencyBits), _mm256_and_si256(states, low_bits));
  const __m256i slot = _mm256_i32gather_epi32(slots, place, 4);
  const __m256i frequency = _mm256_and_si256(_mm256_srli_epi32(slot, 8), low_bits);
  const __m256i quotient = _mm256_srli_epi32(states, kFrequencyBits);
  const __m256i popped = _mm256_add_epi32(_mm256_mullo_epi32(frequency, quotient), _mm256_srli_epi32(slot, 20));
  const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(popped, 16), _mm256_setzero_si256());
  const auto mask = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(low)));
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(next)));
  const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kWordOrder[mask])));
  const __m256i refilled = _mm256_or_si256(_mm256_slli_epi32(popped, 16), _mm256_permutevar8x32_epi32(words, order));
  states = _mm256_blendv_epi8(popped, refilled, low);
  next += sizeof(uint16_t) * static_cast<size_t>(std::popcount(mask));
  return slot;
}

QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i LoadBytes(const uint8_t* bytes) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
}

// The low bytes of four times eight slots, in order.
QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i PackSymbols(const __m256i (&slots)[4]) {
  const __m256i byte = _mm256_set1_epi32(0xff);
  const __m256i front = _mm256_packus_epi32(_mm256_and_si256(slots[0], byte), _mm256_and_si256(slots[1], byte));
  const __m256i back = _mm256_packus_epi32(_mm256_and_si256(slots[2], byte), _mm256_and_si256(slots[3], byte));
  // Packing works within halves, which leaves groups of four in the order 0 2 4 6 1 3 5 7.
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(front, back), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// The upper halves of the products of eight 32-bit lanes.
QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i MultiplyHigh(__m256i a, __m256i b) {
  const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
  return _mm256_blend_epi32(even, odd, 0xaa);
}

// Writes the low halves of the lanes in `full` below `words`, and other bytes below those.
QUICKSAVE_AVX2 QUICKSAVE_INLINE void GiveWords(__m256i states, __m256i full, uint16_t*& words) {
  const auto mask = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(full)));
  const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kGivingLanes[mask])));
  const __m256i given = _mm256_and_si256(_mm256_permutevar8x32_epi32(states, lanes), _mm256_set1_epi32(0xffff));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(given, given), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(words - kWordsAhead), _mm256_castsi256_si128(packed));
  words -= std::popcount(mask);
}

// PushSymbol for eight streams; `places` are the symbols' places in the tables, counted in EncodeSymbols.
QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i EncodeEight(__m256i states, const EncodeTable* tables, __m256i places,
                                                    uint16_t*& words) {
  const auto* const entries = reinterpret_cast<const int*>(tables);
  const __m256i reciprocal = _mm256_i32gather_epi32(entries, places, sizeof(EncodeSymbol));
  const __m256i range = _mm256_i32gather_epi32(entries + 1, places, sizeof(EncodeSymbol));
  const __m256i frequency = _mm256_and_si256(range, _mm256_set1_epi32(0xffff));
  const __m256i below = _mm256_sub_epi32(frequency, _mm256_set1_epi32(1));
  const __m256i full = _mm256_cmpgt_epi32(_mm256_srli_epi32(states, 32 - kFrequencyBits), below);
  GiveWords(states, full, words);
  states = _mm256_blendv_epi8(states, _mm256_srli_epi32(states, 16), full);
  const __m256i quotient = MultiplyHigh(states, reciprocal);
  const __m256i remainder = _mm256_sub_epi32(states, _mm256_mullo_epi32(quotient, frequency));
  const __m256i more = _mm256_cmpgt_epi32(remainder, below);
  const __m256i high = _mm256_slli_epi32(_mm256_sub_epi32(quotient, more), kFrequencyBits);
  const __m256i low = _mm256_sub_epi32(remainder, _mm256_and_si256(more, frequency));
  return _mm256_add_epi32(_mm256_add_epi32(high, low), _mm256_srli_epi32(range, 16));
}

// Where eight symbols stand in the tables.
QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i EncodePlaces(const uint8_t* table_of, const uint8_t* symbols) {
  constexpr int kEntriesPerTable = sizeof(EncodeTable) / sizeof(EncodeSymbol);
  const __m256i tables = _mm256_mullo_epi32(LoadBytes(table_of), _mm256_set1_epi32(kEntriesPerTable));
  return _mm256_add_epi32(tables, LoadBytes(symbols));
}

}  // namespace

QUICKSAVE_AVX2 void DecodeGroupsAvx2(RansCursor& cursor, const DecodeTable* tables) {
  const auto* const slots = reinterpret_cast<const int*>(tables);
  auto* const stored = reinterpret_cast<__m256i*>(cursor.states);
  RansPosition at = cursor.at;
  __m256i states[4];
  for (int v = 0; v < 4; ++v) states[v] = _mm256_load_si256(stored + v);
  while (at.HasSafeGroup()) {
    __m256i decoded[4];
    for (int v = 0; v < 4; ++v) decoded[v] = DecodeEight(states[v], slots, LoadBytes(at.table_of + 8 * v), at.next);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at.symbols.data()), PackSymbols(decoded));
    at.PassSymbols(kStreams);
  }
  for (int v = 0; v < 4; ++v) _mm256_store_si256(stored + v, states[v]);
  cursor.at = at;
}

QUICKSAVE_AVX2 void EncodeGroupsAvx2(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of,
                                     const uint8_t* symbols, size_t groups) {
  static_assert(sizeof(EncodeTable) % sizeof(EncodeSymbol) == 0 && sizeof(EncodeSymbol) == 8);
  auto* const stored = reinterpret_cast<__m256i*>(sink.states);
  __m256i states[4];
  for (int v = 0; v < 4; ++v) states[v] = _mm256_load_si256(stored + v);
  for (size_t i = groups * kStreams; i > 0;) {
    for (int v = 3; v >= 0; --v) {
      i -= 8;
      states[v] = EncodeEight(states[v], tables, EncodePlaces(table_of + i, symbols + i), sink.words);
    }
  }
  for (int v = 0; v < 4; ++v) _mm256_store_si256(stored + v, states[v]);
}

}  // namespace quicksave::compressor

#else

namespace quicksave::compressor {

void DecodeGroupsAvx2(RansCursor& cursor, const DecodeTable* tables) { DecodeGroupsPortable(cursor, tables); }

void EncodeGroupsAvx2(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                      size_t groups) {
  EncodeGroupsPortable(sink, tables, table_of, symbols, groups);
}

}  // namespace quicksave::compressor

#endif
