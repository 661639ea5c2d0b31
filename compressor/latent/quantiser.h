// The latent's integers: uniform quantiser with dead zone, symbols and their tables.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_QUANTISER_H_
#define QUICKSAVE_COMPRESSOR_LATENT_QUANTISER_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::compressor {

// A component that is coded at some step.
struct CodedComponent {
  int index;  // in its group
  int sigma_class;
};

// The components that are coded at this step, of those that have these deviations, in order.
std::vector<CodedComponent> CodedComponents(absl::Span<const float> sigma, float step);

// Integers go from minus this to this.
inline constexpr int32_t kLargestInteger = 1 << 24;

// Whether a number can be a step: positive, and so that both it and its inverse are finite.
inline bool IsStep(float step) { return step > 0 && std::isfinite(step) && std::isfinite(1 / step); }

// The integer of a finite value, for the inverse of a step. Values round towards zero a little: that costs less in
// error than it saves in bits.
inline int32_t Quantise(float value, float inverse_step) {
  constexpr float kRounding = 0.38f;
  const float magnitude = std::min(std::abs(value * inverse_step), static_cast<float>(kLargestInteger));
  const auto q = static_cast<int32_t>(magnitude + kRounding);
  return value < 0 ? -q : q;
}

// The value that an integer stands for, in steps.
inline float Reconstruct(int32_t q, const SigmaClass& statistics) {
  if (q == 0) return 0;
  const int magnitude = std::abs(q);
  const float value = static_cast<float>(magnitude) + statistics.centroids[std::min(magnitude, kCentroids) - 1];
  return q < 0 ? -value : value;
}

inline uint8_t SymbolOf(int32_t q) {
  return q >= -kZeroSymbol && q < kEscapeSymbol - kZeroSymbol ? static_cast<uint8_t>(q + kZeroSymbol) : kEscapeSymbol;
}

// The values that symbols stand for, in steps, into `to`; anything for escapes.
void ReconstructSymbols(absl::Span<const uint8_t> symbols, const SigmaClass& statistics, float* to);

// Collects how quantised components of each class are distributed, and makes the tables of it.
class ClassStatistics {
 public:
  ClassStatistics();

  // Counts a component's values at some step. Any number of steps may be counted, so that all classes have values.
  void Add(absl::Span<const float> values, float sigma, float step);

  // Statistics for all classes; those with few values are completed from their neighbours.
  std::vector<SigmaClass> Build() const;

 private:
  struct Counts {
    std::vector<uint64_t> symbols = std::vector<uint64_t>(kSymbols);
    // Of the values with |q| = 1, 2, 3 and more: how many, and the sum of |value| / step - |q|.
    std::array<uint64_t, kCentroids> magnitudes{};
    std::array<double, kCentroids> offsets{};
    uint64_t values = 0;
    double squares = 0;  // of the error without centroids, in squared steps
  };
  std::vector<Counts> counts_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_QUANTISER_H_
