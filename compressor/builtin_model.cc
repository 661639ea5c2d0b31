#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "compressor/exact_section.h"

namespace quicksave::compressor {
namespace {

// Standard deviation of a normal distribution over its mean absolute deviation.
constexpr float kSigmaPerMeanDeviation = 1.2533141F;

float ToFloat(uint16_t value) { return std::bit_cast<float>(uint32_t{value} << 16); }

// The magnitude, as a bit pattern, above which a value is an outlier that says nothing about the others (attention
// sinks are such, NaN and infinities, too): four octaves above the upper quartile of a sample.
uint16_t OutlierLimit(absl::Span<const uint16_t> values) {
  constexpr size_t kSamples = 16;
  constexpr int kFourOctaves = 4 << 7;
  constexpr int kLargestFinite = 0x7f7f;
  std::array<uint16_t, kSamples> sample;
  for (size_t i = 0; i < kSamples; ++i) sample[i] = values[i * values.size() / kSamples] & 0x7fff;
  std::nth_element(sample.begin(), sample.begin() + kSamples * 3 / 4, sample.end());
  return static_cast<uint16_t>(std::min(sample[kSamples * 3 / 4] + kFourOctaves, kLargestFinite));
}

// Mean of f(value), where outliers count as zero. Four sums, so that additions need not wait for each other.
template <typename Function>
float Mean(absl::Span<const uint16_t> values, uint16_t limit, Function f) {
  float sums[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < values.size(); ++i) {
    const bool usual = (values[i] & 0x7fff) <= limit;
    sums[i % 4] += f(usual ? ToFloat(values[i]) : 0.0F);
  }
  return (sums[0] + sums[1] + sums[2] + sums[3]) / static_cast<float>(values.size());
}

size_t NearestTable(float means_per_quarter_sigma) {
  const auto* const above = std::lower_bound(kBuiltinMeans.begin(), kBuiltinMeans.end(), means_per_quarter_sigma);
  if (above == kBuiltinMeans.begin()) return 0;
  if (above == kBuiltinMeans.end()) return kMaxTables - 1;
  const bool below_is_nearer = means_per_quarter_sigma - above[-1] < *above - means_per_quarter_sigma;
  return static_cast<size_t>(above - kBuiltinMeans.begin()) - (below_is_nearer ? 1 : 0);
}

}  // namespace

ChannelModel EstimateBuiltinModel(absl::Span<const uint16_t> values) {
  const uint16_t limit = OutlierLimit(values);
  const float mean = Mean(values, limit, [](float value) { return value; });
  float sigma = kSigmaPerMeanDeviation * Mean(values, limit, [mean](float value) { return std::fabs(value - mean); });
  // A narrower curve than the narrowest table's is coded with that one.
  sigma = std::max(sigma, std::fabs(mean) * 4 / kBuiltinMeans.back());
  const float quarters = sigma > 0 && std::isfinite(sigma) ? 4 * std::fabs(mean) / sigma : 0.0F;
  const int sigma_class = static_cast<int>(std::bit_cast<uint32_t>(sigma) >> 20 & (kMagnitudeClasses - 1));
  return {.table = static_cast<uint8_t>(NearestTable(quarters)),
          .flip_sign = std::signbit(mean),
          .window_start = static_cast<uint16_t>(std::clamp(sigma_class - kBuiltinSigmaClass, 0, kMaxWindowStart))};
}

}  // namespace quicksave::compressor
