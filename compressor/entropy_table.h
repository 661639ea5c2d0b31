// Static entropy tables of the `exact` codec: symbols, channel models, frequencies and their coding forms.
//
// A bf16 value is split into its sign, an 11-bit *magnitude class* (8 bits of exponent, 3 of mantissa) and 4 low bits
// of mantissa. A channel model places a window of 128 classes; sign and place in the window make the 8-bit symbol. What
// falls outside the window, or on a symbol that the table lacks, is the escape symbol. See block_container.md.

#ifndef QUICKSAVE_COMPRESSOR_ENTROPY_TABLE_H_
#define QUICKSAVE_COMPRESSOR_ENTROPY_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace quicksave::compressor {

inline constexpr int kSymbols = 256;
// Stands for any value that has no symbol; the value itself follows in the escape stream.
inline constexpr int kEscapeSymbol = 255;
inline constexpr int kFrequencyBits = 12;
// The frequencies of a table add up to this.
inline constexpr uint32_t kFrequencyTotal = 1u << kFrequencyBits;
inline constexpr int kRawBits = 4;
inline constexpr int kMagnitudeClasses = 2048;
inline constexpr int kWindowClasses = 128;
inline constexpr int kMaxWindowStart = kMagnitudeClasses - kWindowClasses;
inline constexpr size_t kMaxTables = 16;

// Frequency of each symbol; 0 for a symbol that the table lacks.
using TableFrequencies = std::array<uint16_t, kSymbols>;

// How the values of a channel become symbols.
struct ChannelModel {
  // Index into the tables, below kMaxTables.
  uint8_t table = 0;
  // Whether the sign bit is inverted, so that the channel's more frequent sign is symbol bit 7 = 0.
  bool flip_sign = false;
  // First magnitude class of the window, 0 to kMaxWindowStart.
  uint16_t window_start = 0;

  // table << 12 | flip_sign << 11 | window_start: the stored form.
  uint16_t Pack() const;
  // The inverse. Unpack(x).Valid(n) tells whether x may occur where there are n tables.
  static ChannelModel Unpack(uint16_t packed);
  bool Valid(size_t tables) const { return table < tables && window_start <= kMaxWindowStart; }

  friend bool operator==(const ChannelModel&, const ChannelModel&) = default;
};

// INVALID_ARGUMENT unless the frequencies add up to kFrequencyTotal, each is below it, and the escape has one.
absl::Status ValidateFrequencies(const TableFrequencies& frequencies);

// Frequencies for symbols that occur in these proportions, near the optimum for code length. Symbols too rare for a
// frequency of their own join the escape. All counts may be zero; counts[kEscapeSymbol] are the escaped values.
TableFrequencies QuantizeFrequencies(absl::Span<const uint64_t> counts);

// What rANS needs to encode a symbol.
struct EncodeSymbol {
  // floor((2^32 - 1) / frequency): state * reciprocal >> 32 is the quotient or one less.
  uint32_t reciprocal = 0;
  uint16_t frequency = 0;
  uint16_t start = 0;
};

// The encoder's form of a table.
struct EncodeTable {
  std::array<EncodeSymbol, kSymbols> symbols;

  // The symbol itself, or kEscapeSymbol if the table lacks it.
  uint8_t Available(uint8_t symbol) const { return symbols[symbol].frequency == 0 ? kEscapeSymbol : symbol; }

  // `frequencies` must be valid.
  explicit EncodeTable(const TableFrequencies& frequencies);
};

// The decoder's form: for each value of the state's low kFrequencyBits bits, symbol | frequency << 8 | offset in the
// symbol's range << 20.
struct DecodeTable {
  std::array<uint32_t, kFrequencyTotal> slots;

  // `frequencies` must be valid.
  explicit DecodeTable(const TableFrequencies& frequencies);
};

// The built-in tables: kMaxTables bell curves whose mean is kBuiltinMeans[i] / 4 standard deviations from zero. A
// window that starts at class c fits a standard deviation of about the c + kBuiltinSigmaClass'th class.
extern const std::array<uint16_t, kMaxTables> kBuiltinMeans;
inline constexpr int kBuiltinSigmaClass = 96;
TableFrequencies BuiltinTable(size_t index);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_ENTROPY_TABLE_H_
