// The inner loops of rANS: whole groups of one symbol from every stream.

#ifndef QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_
#define QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/types/span.h"
#include "compressor/entropy_table.h"
#include "compressor/rans.h"

namespace quicksave::compressor {

// A path may read this many words beyond, or write this many below, the ones that a symbol needs.
inline constexpr size_t kWordsAhead = 8;
// As many words must remain for a group to be decoded without a bounds check.
inline constexpr size_t kWordsForGroup = kStreams + kWordsAhead;

// Where decoding stands. Words have no alignment. The symbols that are left may end with a part of a group.
struct RansPosition {
  const char* next;
  const char* end;
  const uint8_t* table_of;
  absl::Span<uint8_t> symbols;

  size_t words_left() const { return static_cast<size_t>(end - next) / sizeof(uint16_t); }
  uint32_t PeekWord() const {
    uint16_t word;
    std::memcpy(&word, next, sizeof(word));
    return word;
  }
  bool HasSafeGroup() const { return symbols.size() >= kStreams && words_left() >= kWordsForGroup; }
  void PassWords(size_t words) { next += words * sizeof(uint16_t); }
  void PassSymbols(size_t count) {
    table_of += count;
    symbols.remove_prefix(count);
  }
};

struct RansCursor {
  alignas(64) uint32_t states[kStreams];
  RansPosition at;
};

// Takes a symbol off a state, which may then be below kStateLow.
inline uint8_t PopSymbol(uint32_t& state, const DecodeTable& table) {
  const uint32_t slot = table.slots[state % kFrequencyTotal];
  state = (slot >> 8 & (kFrequencyTotal - 1)) * (state >> kFrequencyBits) + (slot >> 20);
  return static_cast<uint8_t>(slot);
}

// Decode whole groups as long as kWordsForGroup words remain.
void DecodeGroupsPortable(RansCursor& cursor, const DecodeTable* tables);
// The same with more instructions, to be called only where this processor and this build have them.
void DecodeGroupsAvx2(RansCursor& cursor, const DecodeTable* tables);
void DecodeGroupsAvx512(RansCursor& cursor, const DecodeTable* tables);
// Decodes groups of two sequences in turn, until one of them has no more: the one's gathers run while the other waits
// for its own, which takes about two thirds of the time.
void DecodePairAvx512(RansCursor& a, RansCursor& b, const DecodeTable* tables);

// Where encoding stands. Words are written from the end of a buffer towards its beginning, as rANS encodes backwards.
struct RansSink {
  alignas(64) uint32_t states[kStreams];
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
// The same with more instructions, to be called only where this processor and this build have them.
void EncodeGroupsAvx2(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                      size_t groups);
void EncodeGroupsAvx512(RansSink& sink, const EncodeTable* tables, const uint8_t* table_of, const uint8_t* symbols,
                        size_t groups);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_
