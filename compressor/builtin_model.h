// Fits the built-in tables to values: the models of sections that have no profile.

#ifndef QUICKSAVE_COMPRESSOR_BUILTIN_MODEL_H_
#define QUICKSAVE_COMPRESSOR_BUILTIN_MODEL_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "compressor/entropy_table.h"

namespace quicksave::compressor {

// The built-in table and window that fit values best, by their mean and mean deviation.
ChannelModel EstimateBuiltinModel(absl::Span<const uint16_t> values);

// So many models at once are estimated faster than one by one.
inline constexpr size_t kModelsAtOnce = 4;
// Where values of four models stand: `count` of each, one model's after the other's.
struct ModelValues {
  const uint16_t* values;
  size_t count;
};
using ModelBatch = std::array<ChannelModel, kModelsAtOnce>;

// The models that EstimateBuiltinModel gives for each.
ModelBatch EstimateBuiltinModels(const ModelValues& values);

// A number for each of four models, and four numbers for each.
using PerModel = std::array<float, kModelsAtOnce>;
using FourPerModel = std::array<std::array<float, 4>, kModelsAtOnce>;
using ModelLimits = std::array<uint16_t, kModelsAtOnce>;

using Sample = std::array<uint16_t, 16>;

// Only where HaveAvx512().
uint16_t FourthLargestAvx512(const Sample& sample);
// Of each model's values four sums, of every fourth one: added up in order, those whose magnitude is above the limit
// counted as zero. Only where HaveAvx512(), for a count that 8 divides.
FourPerModel SumValuesAvx512(const ModelValues& values, const ModelLimits& limits);
// The same of the values' distances from `means`.
FourPerModel SumDistancesAvx512(const ModelValues& values, const ModelLimits& limits, const PerModel& means);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_BUILTIN_MODEL_H_
