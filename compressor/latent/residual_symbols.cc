#include "compressor/latent/residual_symbols.h"

#include <cmath>
#include <vector>

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
// Place of the error's own magnitude in the window of 128.
constexpr int kErrorPlace = 96;

// The magnitude class of 2^(level / 4): eight classes an octave, linear within it.
int MagnitudeClassOfLevel(ErrorLevel level) {
  constexpr int kPlaces[4] = {0, 1, 3, 5};
  const int octave = level >> 2;
  return (octave + 127) * 8 + kPlaces[level & 3];
}

// The class of predictions with this biased exponent.
ResidualClass ClassOf(int biased_exponent, ErrorLevel level) {
  const int exponent = std::max(biased_exponent, 1);
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

const ResidualClasses& ResidualClasses::Of(ErrorLevel level) {
  static const auto& all = *new std::vector<ResidualClasses>([] {
    std::vector<ResidualClasses> made(kHighestLevel - kLowestLevel + 1);
    for (int i = kLowestLevel; i <= kHighestLevel; ++i) {
      ResidualClasses& classes = made[i - kLowestLevel];
      classes.window_ = MagnitudeClassOfLevel(static_cast<ErrorLevel>(i)) - kErrorPlace;
      for (int exponent = 0; exponent < 256; ++exponent) {
        classes.by_exponent_[exponent] = ClassOf(exponent, static_cast<ErrorLevel>(i));
      }
    }
    return made;
  }());
  return all[level - kLowestLevel];
}

}  // namespace quicksave::compressor
