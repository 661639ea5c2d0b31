#include "compressor/rans_groups.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <array>
#include <bit>

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

// One symbol from each of eight streams; returns the tables' slots, whose low byte is the symbol.
__attribute__((target("avx2"), always_inline)) inline __m256i DecodeEight(__m256i& states, const int* slots,
                                                                          __m256i tables, const char*& next) {
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

__attribute__((target("avx2"), always_inline)) inline __m256i LoadTables(const uint8_t* table_of) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(table_of)));
}

// The low bytes of four times eight slots, in order.
__attribute__((target("avx2"), always_inline)) inline __m256i PackSymbols(const __m256i (&slots)[4]) {
  const __m256i byte = _mm256_set1_epi32(0xff);
  const __m256i front = _mm256_packus_epi32(_mm256_and_si256(slots[0], byte), _mm256_and_si256(slots[1], byte));
  const __m256i back = _mm256_packus_epi32(_mm256_and_si256(slots[2], byte), _mm256_and_si256(slots[3], byte));
  // Packing works within halves, which leaves groups of four in the order 0 2 4 6 1 3 5 7.
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(front, back), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

}  // namespace

bool HaveAvx2() { return __builtin_cpu_supports("avx2") != 0; }

__attribute__((target("avx2"))) size_t DecodeGroupsAvx2(RansCursor& cursor, const DecodeTable* tables,
                                                        const uint8_t* table_of, size_t groups, uint8_t* symbols) {
  const auto* const slots = reinterpret_cast<const int*>(tables);
  auto* const stored = reinterpret_cast<__m256i*>(cursor.states);
  __m256i states[4];
  for (int v = 0; v < 4; ++v) states[v] = _mm256_load_si256(stored + v);
  size_t group = 0;
  for (; group < groups && cursor.words_left() >= kWordsForGroup; ++group) {
    __m256i decoded[4];
    for (int v = 0; v < 4; ++v) decoded[v] = DecodeEight(states[v], slots, LoadTables(table_of + 8 * v), cursor.next);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(symbols), PackSymbols(decoded));
    table_of += kStreams;
    symbols += kStreams;
  }
  for (int v = 0; v < 4; ++v) _mm256_store_si256(stored + v, states[v]);
  return group;
}

}  // namespace quicksave::compressor

#else

namespace quicksave::compressor {

bool HaveAvx2() { return false; }

size_t DecodeGroupsAvx2(RansCursor& cursor, const DecodeTable* tables, const uint8_t* table_of, size_t groups,
                        uint8_t* symbols) {
  return DecodeGroupsPortable(cursor, tables, table_of, groups, symbols);
}

}  // namespace quicksave::compressor

#endif
