// From the values of a channel to symbols, raw bits and escapes, and back: the exact codec's loops over values.
//
// Every path makes the same bytes; tests ask for one.

#ifndef QUICKSAVE_COMPRESSOR_EXACT_VALUES_H_
#define QUICKSAVE_COMPRESSOR_EXACT_VALUES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "compressor/entropy_table.h"

namespace quicksave::compressor {

// SeparateValues may write this many words beyond the escapes.
inline constexpr size_t kEscapesAhead = 32;

// Which symbols a table has, one bit each; never the escape.
struct AvailableSymbols {
  std::array<uint16_t, kSymbols / 16> words = {};

  explicit AvailableSymbols(const TableFrequencies& frequencies);
  bool Has(uint8_t symbol) const { return (words[symbol / 16] >> (symbol % 16) & 1) != 0; }
};

// Where a channel's parts go: a symbol for each value, and raw bits, two values to the byte, the first one in the lower
// half. The channel's first value is number `first_raw` of those that `raw_bits` holds; one before it that shares its
// byte is there already.
struct SeparatedValues {
  uint8_t* symbols;
  uint8_t* raw_bits;
  size_t first_raw;
};

// Writes a channel's parts; appends to `escapes` the values that have no symbol and returns how many these are.
size_t SeparateValues(const ChannelModel& model, const AvailableSymbols& available, absl::Span<const uint16_t> values,
                      const SeparatedValues& to, uint16_t* escapes);

// A channel's parts as they are read. `raw_bits` holds the section's and has all of the channel's.
struct CodedValues {
  absl::Span<const uint8_t> symbols;
  std::string_view raw_bits;
  size_t first_raw;
};

// Writes a value for each symbol; takes those that have none from the front of `escapes`, two bytes each. False if
// there are too few.
bool RestoreValues(const ChannelModel& model, const CodedValues& coded, std::string_view& escapes, uint16_t* values);

// The same, a value at a time.
size_t SeparateValuesPortable(const ChannelModel& model, const AvailableSymbols& available,
                              absl::Span<const uint16_t> values, const SeparatedValues& to, uint16_t* escapes);
bool RestoreValuesPortable(const ChannelModel& model, const CodedValues& coded, std::string_view& escapes,
                           uint16_t* values);
// The same by vectors of 32 values, only where HaveAvx512(); `first_raw` must be even.
size_t SeparateValuesAvx512(const ChannelModel& model, const AvailableSymbols& available,
                            absl::Span<const uint16_t> values, const SeparatedValues& to, uint16_t* escapes);
bool RestoreValuesAvx512(const ChannelModel& model, const CodedValues& coded, std::string_view& escapes,
                         uint16_t* values);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_EXACT_VALUES_H_
