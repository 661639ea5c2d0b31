// How a bf16 value is told, given a prediction of it and how far off that is expected to be.
//
// Where the expected error is small beside the prediction, the symbol is the distance between the two, counted in
// representable numbers; its low bits go raw where that loses nothing. Near zero, where representable numbers crowd,
// the symbol is the value's own sign (against the prediction's), exponent and three bits of mantissa (against the
// expected error's); four bits go raw.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_SYMBOLS_H_
#define QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_SYMBOLS_H_

#include <algorithm>
#include <array>
#include <cstdint>

#include "compressor/entropy_table.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::compressor {

// Expected errors come as the exponent of a quarter octave: error ~ 2^(level / 4).
using ErrorLevel = int16_t;
inline constexpr ErrorLevel kLowestLevel = -4 * 126;
inline constexpr ErrorLevel kHighestLevel = 4 * 127;
// The level nearest to an error; errors of 0 have the lowest level. The same on every machine.
ErrorLevel LevelOf(double error);

// Low bits of a value near zero that go raw.
inline constexpr int kNearZeroRawBits = 4;
// The symbol of distance 0.
inline constexpr int kZeroDistance = 127;

// The table of a value's symbol, and how many bits go raw. A function of the prediction and the level alone.
struct ResidualClass {
  uint8_t table;
  uint8_t raw_bits;
  bool near_zero;
};

// The classes of all predictions at one level.
class ResidualClasses {
 public:
  // For a level from kLowestLevel to kHighestLevel. Computed once in a process; any thread.
  static const ResidualClasses& Of(ErrorLevel level);

  const ResidualClass& operator[](uint16_t prediction) const { return by_exponent_[prediction >> 7 & 0xff]; }

  // First magnitude class (entropy_table.h) of the window for values near zero.
  int window() const { return window_; }

 private:
  int window_ = 0;
  std::array<ResidualClass, 256> by_exponent_{};
};

// -32768 ... 32767 in the order of the numbers.
inline int32_t OrderOf(uint16_t bits) {
  const int32_t magnitude = bits & 0x7fff;
  return (bits & 0x8000) != 0 ? -magnitude - 1 : magnitude;
}
inline uint16_t BitsOfOrder(int32_t order) { return static_cast<uint16_t>(order < 0 ? 0x8000 | (-order - 1) : order); }

struct ResidualSymbol {
  uint8_t symbol;  // kEscapeSymbol: the value itself follows
  uint16_t raw;
};

inline ResidualSymbol SymbolOf(uint16_t value, uint16_t prediction, const ResidualClasses& classes) {
  const ResidualClass& residual_class = classes[prediction];
  if (residual_class.near_zero) {
    const int place = ((value & 0x7fff) >> kNearZeroRawBits) - classes.window();
    const int symbol = ((value ^ prediction) >> 15) * kWindowClasses + place;
    if (place < 0 || place >= kWindowClasses || symbol == kEscapeSymbol) return {kEscapeSymbol, 0};
    return {static_cast<uint8_t>(symbol), static_cast<uint16_t>(value & ((1 << kNearZeroRawBits) - 1))};
  }
  const int32_t distance = OrderOf(value) - OrderOf(prediction);
  const int32_t high = distance >> residual_class.raw_bits;
  if (high < -kZeroDistance || high >= kEscapeSymbol - kZeroDistance) return {kEscapeSymbol, 0};
  return {static_cast<uint8_t>(high + kZeroDistance),
          static_cast<uint16_t>(distance & ((1 << residual_class.raw_bits) - 1))};
}

// The inverse, for symbols other than the escape.
inline uint16_t ValueOf(const ResidualSymbol& symbol, uint16_t prediction, const ResidualClasses& classes) {
  const ResidualClass& residual_class = classes[prediction];
  if (residual_class.near_zero) {
    const int place = symbol.symbol % kWindowClasses;
    const int sign = symbol.symbol / kWindowClasses;
    const int magnitude = std::clamp(place + classes.window(), 0, kMagnitudeClasses - 1);
    return static_cast<uint16_t>(((prediction >> 15) ^ sign) << 15 | magnitude << kNearZeroRawBits | symbol.raw);
  }
  const int32_t distance = (int32_t{symbol.symbol} - kZeroDistance) * (1 << residual_class.raw_bits) + symbol.raw;
  return BitsOfOrder(std::clamp(OrderOf(prediction) + distance, -32768, 32767));
}

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_SYMBOLS_H_
