// The inner loops of rANS decoding: whole groups of one symbol from every stream.

#ifndef QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_
#define QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "compressor/entropy_table.h"
#include "compressor/rans.h"

namespace quicksave::compressor {

// As many words must remain for a group to be decoded without a bounds check: one for each symbol, and what is read
// ahead.
inline constexpr size_t kWordsForGroup = kStreams + 8;

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

// Whether this processor and this build have the AVX2 path.
bool HaveAvx2();

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_RANS_GROUPS_H_
