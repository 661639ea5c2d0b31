#include "compressor/builtin_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "compressor/cpu_features.h"

namespace quicksave::compressor {
namespace {

// Standard deviation of a normal distribution over its mean absolute deviation.
constexpr float kSigmaPerMeanDeviation = 1.2533141F;

float ToFloat(uint16_t value) { return std::bit_cast<float>(uint32_t{value} << 16); }

uint16_t FourthLargest(const Sample& sample) {
  if (HaveAvx512()) return FourthLargestAvx512(sample);
  std::array<uint16_t, 4> largest = {};
  for (uint16_t value : sample) {
    for (uint16_t& place : largest) {
      const uint16_t smaller = std::min(place, value);
      place = std::max(place, value);
      value = smaller;
    }
  }
  return largest.back();
}

// The magnitude, as a bit pattern, above which a value is an outlier that says nothing about the others (attention
// sinks are such, NaN and infinities, too): four octaves above the upper quartile of a sample.
uint16_t OutlierLimit(absl::Span<const uint16_t> values) {
  constexpr int kFourOctaves = 4 << 7;
  constexpr int kLargestFinite = 0x7f7f;
  Sample sample;
  for (size_t i = 0; i < sample.size(); ++i) sample[i] = values[i * values.size() / sample.size()] & 0x7fff;
  return static_cast<uint16_t>(std::min(FourthLargest(sample) + kFourOctaves, kLargestFinite));
}

float MeanOf(const std::array<float, 4>& sums, size_t count) {
  return (sums[0] + sums[1] + sums[2] + sums[3]) / static_cast<float>(count);
}

// Mean of f(value), where outliers count as zero. Four sums, so that additions need not wait for each other.
template <typename Function>
float Mean(absl::Span<const uint16_t> values, uint16_t limit, Function f) {
  std::array<float, 4> sums = {0, 0, 0, 0};
  for (size_t i = 0; i < values.size(); ++i) {
    const bool usual = (values[i] & 0x7fff) <= limit;
    sums[i % 4] += f(usual ? ToFloat(values[i]) : 0.0F);
  }
  return MeanOf(sums, values.size());
}

size_t NearestTable(float means_per_quarter_sigma) {
  size_t above = 0;
  for (const uint16_t mean : kBuiltinMeans) above += mean < means_per_quarter_sigma ? 1 : 0;
  if (above == 0) return 0;
  if (above == kMaxTables) return kMaxTables - 1;
  const bool below_is_nearer =
      means_per_quarter_sigma - kBuiltinMeans[above - 1] < kBuiltinMeans[above] - means_per_quarter_sigma;
  return above - (below_is_nearer ? 1 : 0);
}

ChannelModel ModelOf(float mean, float mean_deviation) {
  // A narrower curve than the narrowest table's is coded with that one.
  const float sigma = std::max(kSigmaPerMeanDeviation * mean_deviation, std::fabs(mean) * 4 / kBuiltinMeans.back());
  const float quarters = sigma > 0 && std::isfinite(sigma) ? 4 * std::fabs(mean) / sigma : 0.0F;
  const int sigma_class = static_cast<int>(std::bit_cast<uint32_t>(sigma) >> 20 & (kMagnitudeClasses - 1));
  return {.table = static_cast<uint8_t>(NearestTable(quarters)),
          .flip_sign = std::signbit(mean),
          .window_start = static_cast<uint16_t>(std::clamp(sigma_class - kBuiltinSigmaClass, 0, kMaxWindowStart))};
}

}  // namespace

ChannelModel EstimateBuiltinModel(absl::Span<const uint16_t> values) {
  const uint16_t limit = OutlierLimit(values);
  const float mean = Mean(values, limit, [](float value) { return value; });
  return ModelOf(mean, Mean(values, limit, [mean](float value) { return std::fabs(value - mean); }));
}

ModelBatch EstimateBuiltinModels(const ModelValues& values) {
  const auto of_model = [&](size_t m) { return absl::MakeConstSpan(values.values + m * values.count, values.count); };
  ModelBatch models;
  if (!HaveAvx512() || values.count % 8 != 0) {
    for (size_t m = 0; m < kModelsAtOnce; ++m) models[m] = EstimateBuiltinModel(of_model(m));
    return models;
  }
  ModelLimits limits;
  for (size_t m = 0; m < kModelsAtOnce; ++m) limits[m] = OutlierLimit(of_model(m));
  const FourPerModel sums = SumValuesAvx512(values, limits);
  PerModel means;
  for (size_t m = 0; m < kModelsAtOnce; ++m) means[m] = MeanOf(sums[m], values.count);
  const FourPerModel distances = SumDistancesAvx512(values, limits, means);
  for (size_t m = 0; m < kModelsAtOnce; ++m) models[m] = ModelOf(means[m], MeanOf(distances[m], values.count));
  return models;
}

}  // namespace quicksave::compressor
