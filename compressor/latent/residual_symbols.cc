#include "compressor/latent/residual_symbols.h"

#include <cmath>

namespace quicksave::compressor {
namespace {

// Classes of distance: half octaves of the error in representable numbers, from 2^-3 to 2^6.5; errors beyond 2^6 are
// near zero, so that the last class has no values.
constexpr int kLowestDistance = -6;
constexpr int kDistanceClasses = 20;
// Symbols are left with a deviation of about 2^4 at most, the rest goes raw.
constexpr int kSymbolBits = 4;
// Classes near zero: half octaves by which the error exceeds half of the prediction.
constexpr int kNearZeroClasses = kResidualClasses - kDistanceClasses;
constexpr int kZeroDistance = 127;
constexpr int kNearZeroRawBits = 4;
// Place of the error's own magnitude in the window of 128.
constexpr int kErrorPlace = 96;
constexpr ErrorLevel kLowestLevel = -4 * 126;
constexpr ErrorLevel kHighestLevel = 4 * 127;

// Biased exponent of a bf16 number.
int ExponentOf(uint16_t bits) { return (bits >> 7) & 0xff; }
// Exponent and three bits of mantissa.
int MagnitudeClass(uint16_t bits) { return (bits & 0x7fff) >> kNearZeroRawBits; }
// The magnitude class of 2^(level / 4): eight classes an octave, linear within it.
int MagnitudeClassOfLevel(ErrorLevel level) {
  constexpr int kPlaces[4] = {0, 1, 3, 5};
  const int octave = level >> 2;
  return (octave + 127) * 8 + kPlaces[level & 3];
}
// First magnitude class of the window.
int WindowOf(ErrorLevel level) { return MagnitudeClassOfLevel(level) - kErrorPlace; }

}  // namespace

ErrorLevel LevelOf(double error) {
  if (!(error > 0)) return kLowestLevel;
  // 2^((2 i + 1) / 8): comparing is exact, while logarithms differ between libraries.
  constexpr double kEdges[] = {1.0905077326652577, 1.2968395546510096, 1.5422108254079407, 1.8340080864093424};
  int exponent;
  // The bound is for infinity, which has no exponent.
  const double mantissa = 2 * std::frexp(std::min(error, std::ldexp(1.0, 512)), &exponent);  // [1, 2)
  int level = 4 * (exponent - 1);
  for (const double edge : kEdges) level += mantissa >= edge ? 1 : 0;
  return static_cast<ErrorLevel>(std::clamp<int>(level, kLowestLevel, kHighestLevel));
}

ResidualClass ClassOf(uint16_t prediction, ErrorLevel level) {
  const int exponent = std::max(ExponentOf(prediction), 1);
  // In quarter octaves: the prediction's magnitude to the octave below it, and the distance of numbers there.
  const int magnitude = 4 * (exponent - 127);
  const int spacing = magnitude - 4 * 7;
  if (level <= magnitude - 4) {
    const int half_octaves = (level - spacing) >> 1;
    const int distance = std::clamp(half_octaves - kLowestDistance, 0, kDistanceClasses - 1);
    const int raw = std::max(0, (half_octaves >> 1) - kSymbolBits);
    return {.table = static_cast<uint8_t>(distance), .raw_bits = static_cast<uint8_t>(raw), .near_zero = false};
  }
  // From a prediction of half the error up to one that is hidden in it.
  const int hidden = (level - (magnitude - 4)) >> 1;
  const int place = std::min(hidden, kNearZeroClasses - 1);
  return {.table = static_cast<uint8_t>(kDistanceClasses + place), .raw_bits = kNearZeroRawBits, .near_zero = true};
}

ResidualSymbol SymbolOf(uint16_t value, uint16_t prediction, ErrorLevel level, const ResidualClass& residual_class) {
  if (residual_class.near_zero) {
    const int place = MagnitudeClass(value) - WindowOf(level);
    const int sign = (value ^ prediction) >> 15;
    const int symbol = sign * kWindowClasses + place;
    if (place < 0 || place >= kWindowClasses || symbol == kEscapeSymbol) return {kEscapeSymbol, 0};
    return {static_cast<uint8_t>(symbol), static_cast<uint16_t>(value & ((1 << kNearZeroRawBits) - 1))};
  }
  const int32_t distance = OrderOf(value) - OrderOf(prediction);
  const int32_t high = distance >> residual_class.raw_bits;
  if (high < -kZeroDistance || high >= kEscapeSymbol - kZeroDistance) return {kEscapeSymbol, 0};
  return {static_cast<uint8_t>(high + kZeroDistance),
          static_cast<uint16_t>(distance & ((1 << residual_class.raw_bits) - 1))};
}

uint16_t ValueOf(const ResidualSymbol& symbol, uint16_t prediction, ErrorLevel level,
                 const ResidualClass& residual_class) {
  if (residual_class.near_zero) {
    const int place = symbol.symbol % kWindowClasses;
    const int sign = symbol.symbol / kWindowClasses;
    const int magnitude = std::clamp(place + WindowOf(level), 0, kMagnitudeClasses - 1);
    return static_cast<uint16_t>(((prediction >> 15) ^ sign) << 15 | magnitude << kNearZeroRawBits | symbol.raw);
  }
  const int32_t distance = (int32_t{symbol.symbol} - kZeroDistance) * (1 << residual_class.raw_bits) + symbol.raw;
  return BitsOfOrder(std::clamp(OrderOf(prediction) + distance, -32768, 32767));
}

}  // namespace quicksave::compressor
