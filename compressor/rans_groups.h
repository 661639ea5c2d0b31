// The inner loops of rANS: whole groups of one symbol from every stream.

#ifndef QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_
#define QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "compressor/entropy_table.h"
#include "compressor/rans.h"

namespace quicksave::compressor {

// A path may read this many words beyond, or write this many below, the ones that a symbol needs.
inline constexpr size_t kWordsAhead = 8;
// As many words must remain for a group to be decoded without a bounds check.
inline constexpr size_t kWordsForGroup = kStreams + kWordsAhead;

// Where decoding stands. Words have no alignment.
struct RansCursor {
  alignas(32) uint32_t states[kStreams];
  const char* next;
  const char* end;

  size_t words_left() const { return static_cast<size_t>(end - next) / sizeof(uint16_t); }
  uint32_t PeekWord() const {
    uint16_t word;
    std::memcpy(&word, next, sizeof(word));
    return word;
  }
};

// Takes a symbol off a state, which may then be below kStateLow.
inline uint8_t PopSymbol(uint32_t& state, const DecodeTable& table) {
  const uint32_t slot = table.slots[state % kFrequencyTotal];
  state = (slot >> 8 & (kFrequencyTotal - 1)) * (state >> kFrequencyBits) + (slot >> 20);
  return static_cast<uint8_t>(slot);
}

// Decode up to `groups` groups, as long as kWordsForGroup words remain; return how many.
size_t DecodeGroupsPortable(RansCursor& cursor, const DecodeTable* tables, const uint8_t* table_of, size_t groups,
                            uint8_t* symbols);
// The same with AVX2, to be called only where HaveAvx2().
size_t DecodeGroupsAvx2(RansCursor& cursor, const DecodeTable* tables, const uint8_t* table_of, size_t groups,
                        uint8_t* symbols);

// Where encoding stands. Words are written from the end of a buffer towards its beginning, as rANS encodes backwards.
struct RansSink {
  alignas(32) uint32_t states[kStreams];
  uint16_t* words;
};

// Puts a symbol on a state, after moving a word to `words` if it would not fit.
inline uint32_t PushSymbol(uint32_t state, const EncodeSymbol& symbol, uint16_t*& words) {
  constexpr int kLimitShift = 32 - kFrequencyBits;
  const uint32_t frequency = symbol.frequency;
  // No branch: whether the state is full is as good as random.
  const uint32_t full = state >> kLimitShift >= frequency ? 1 : 0;
  words[-1] = static_cast<uint16_t>(state);
  words -= full;
  state >>= 16 * full;
  const auto quotient = static_cast<uint32_t>(uint64_t{state} * symbol.reciprocal >> 32);
  const uint32_t remainder = state - quotient * frequency;
  const uint32_t more = remainder >= frequency ? 1 : 0;
  return ((quotient + more) << kFrequencyBits) + remainder - frequency * more + symbol.start;
}

// Encode the symbols of `groups` groups, the last one first. At least kWordsAhead words must have room below those that
// the symbols make.
void EncodeGroupsPortable(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                          size_t groups);
// The same with AVX2, to be called only where HaveAvx2().
void EncodeGroupsAvx2(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                      size_t groups);

// Whether this processor and this build have the AVX2 path.
bool HaveAvx2();

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_
