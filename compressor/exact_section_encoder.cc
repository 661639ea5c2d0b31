#include <algorithm>
#include <cstring>

#include "compressor/builtin_model.h"
#include "compressor/byte_io.h"
#include "compressor/exact_section.h"
#include "compressor/exact_values.h"
#include "compressor/rans.h"

namespace quicksave::compressor {
namespace {

// A model of a section's own serves as many channels as it takes to have this many values.
constexpr size_t kValuesPerModel = 128;
// Adjustments do not pay with fewer values to the channel.
constexpr size_t kMinTokensToAdjust = 32;

constexpr size_t ChannelsPerModel(size_t tokens) { return (kValuesPerModel + tokens - 1) / tokens; }

// Appends the model of `count` channels.
void AddModel(const ChannelModel& model, size_t count, SectionScratch& scratch) {
  AppendInteger(scratch.stored_models, model.Pack());
  scratch.models.insert(scratch.models.end(), count, model);
}

// Models fitted to the values, each stored whole, for `channels_per_model` channels.
void EstimateModels(absl::Span<const uint16_t> values, size_t tokens, SectionScratch& scratch) {
  const size_t channels_per_model = ChannelsPerModel(tokens);
  AppendInteger(scratch.stored_models, static_cast<uint8_t>(channels_per_model));
  const size_t values_per_model = channels_per_model * tokens;
  while (values.size() >= kModelsAtOnce * values_per_model) {
    const ModelBatch batch = EstimateBuiltinModels({.values = values.data(), .count = values_per_model});
    for (const ChannelModel& model : batch) AddModel(model, channels_per_model, scratch);
    values.remove_prefix(kModelsAtOnce * values_per_model);
  }
  while (!values.empty()) {
    const size_t count = std::min(values.size(), values_per_model);
    AddModel(EstimateBuiltinModel(values.first(count)), count / tokens, scratch);
    values.remove_prefix(count);
  }
}

// The given models, adjusted where that pays: a bit for each channel, then the adjustments of those whose bit is set.
void AdjustModels(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
                  const ModelAdjuster& adjuster, size_t tables, SectionScratch& scratch) {
  scratch.stored_models.assign((models.size() + 7) / 8, '\0');
  scratch.adjustments.resize(models.size());
  adjuster.Search(values, tokens, models, absl::MakeSpan(scratch.adjustments));
  for (size_t c = 0; c < models.size(); ++c) {
    const std::optional<ModelAdjustment>& adjustment = scratch.adjustments[c];
    scratch.models.push_back(adjustment ? *adjustment->Apply(models[c], tables) : models[c]);
    if (!adjustment) continue;
    scratch.stored_models[c / 8] = static_cast<char>(scratch.stored_models[c / 8] | 1 << (c % 8));
    AppendInteger(scratch.stored_models, adjustment->Pack());
  }
}

void AppendWords(absl::Span<const uint16_t> words, std::string& out) {
  out.append(reinterpret_cast<const char*>(words.data()), words.size() * sizeof(uint16_t));
}

}  // namespace

SectionEncoder::SectionEncoder(absl::Span<const TableFrequencies> tables)
    : tables_(tables.begin(), tables.end()), available_(tables.begin(), tables.end()), adjuster_(tables) {}

SectionMode SectionEncoder::ChooseModels(absl::Span<const uint16_t> values, size_t tokens,
                                         absl::Span<const ChannelModel> models, SectionScratch& scratch) const {
  scratch.models.clear();
  scratch.stored_models.clear();
  if (models.empty()) {
    EstimateModels(values, tokens, scratch);
    return SectionMode::kOwnModels;
  }
  if (tokens >= kMinTokensToAdjust) {
    AdjustModels(values, tokens, models, adjuster_, tables_.size(), scratch);
    return SectionMode::kAdjustedModels;
  }
  scratch.models.assign(models.begin(), models.end());
  return SectionMode::kProfileModels;
}

size_t SectionEncoder::MakeSymbols(absl::Span<const uint16_t> values, size_t tokens, SectionScratch& scratch) const {
  scratch.symbols.resize(std::max(scratch.symbols.size(), values.size()));
  scratch.table_of.resize(scratch.symbols.size());
  scratch.raw_bits.resize(std::max(scratch.raw_bits.size(), (values.size() + 1) / 2));
  scratch.escapes.resize(std::max(scratch.escapes.size(), values.size() + kEscapesAhead));
  uint16_t* escapes = scratch.escapes.data();
  for (size_t c = 0; c < scratch.models.size(); ++c) {
    const ChannelModel& model = scratch.models[c];
    const size_t first = c * tokens;
    const SeparatedValues separated{
        .symbols = scratch.symbols.data() + first, .raw_bits = scratch.raw_bits.data(), .first_raw = first};
    escapes += SeparateValues(model, available_[model.table], values.subspan(first, tokens), separated, escapes);
    std::fill_n(scratch.table_of.begin() + static_cast<ptrdiff_t>(first), tokens, model.table);
  }
  return static_cast<size_t>(escapes - scratch.escapes.data());
}

void SectionEncoder::Encode(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
                            SectionScratch& scratch, std::string& out) const {
  const size_t first_byte = out.size();
  const SectionMode mode = ChooseModels(values, tokens, models, scratch);
  const size_t escapes = MakeSymbols(values, tokens, scratch);
  AppendInteger(out, static_cast<uint8_t>(mode));
  AppendInteger(out, static_cast<uint32_t>(escapes));
  out += scratch.stored_models;
  AppendWords(absl::MakeConstSpan(scratch.escapes.data(), escapes), out);
  out.append(reinterpret_cast<const char*>(scratch.raw_bits.data()), (values.size() + 1) / 2);
  RansEncode(absl::MakeConstSpan(scratch.symbols.data(), values.size()),
             absl::MakeConstSpan(scratch.table_of.data(), values.size()), tables_, scratch.words, out);
  const size_t raw_bytes = 1 + values.size() * sizeof(uint16_t);
  if (out.size() - first_byte < raw_bytes) return;
  out.resize(first_byte);
  AppendInteger(out, static_cast<uint8_t>(SectionMode::kRaw));
  AppendWords(values, out);
}

}  // namespace quicksave::compressor
