#include <algorithm>
#include <cstring>

#include "compressor/byte_io.h"
#include "compressor/exact_section.h"
#include "compressor/rans.h"

namespace quicksave::compressor {
namespace {

// A model of a section's own serves as many channels as it takes to have this many values.
constexpr size_t kValuesPerModel = 128;
// Adjustments do not pay with fewer values to the channel.
constexpr size_t kMinTokensToAdjust = 32;

constexpr size_t ChannelsPerModel(size_t tokens) { return (kValuesPerModel + tokens - 1) / tokens; }

// Models fitted to the values, each stored whole, for `channels_per_model` channels.
void EstimateModels(absl::Span<const uint16_t> values, size_t tokens, SectionScratch& scratch) {
  const size_t channels_per_model = ChannelsPerModel(tokens);
  AppendInteger(scratch.stored_models, static_cast<uint8_t>(channels_per_model));
  const size_t channels = values.size() / tokens;
  for (size_t first = 0; first < channels; first += channels_per_model) {
    const size_t count = std::min(channels_per_model, channels - first);
    const ChannelModel model = EstimateBuiltinModel(values.subspan(first * tokens, count * tokens));
    AppendInteger(scratch.stored_models, model.Pack());
    scratch.models.insert(scratch.models.end(), count, model);
  }
}

// The given models, adjusted where that pays: a bit for each channel, then the adjustments of those whose bit is set.
void AdjustModels(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
                  const ModelAdjuster& adjuster, size_t tables, SectionScratch& scratch) {
  scratch.stored_models.assign((models.size() + 7) / 8, '\0');
  for (size_t c = 0; c < models.size(); ++c) {
    const auto adjustment = adjuster.Search(values.subspan(c * tokens, tokens), models[c]);
    scratch.models.push_back(adjustment ? *adjustment->Apply(models[c], tables) : models[c]);
    if (!adjustment) continue;
    scratch.stored_models[c / 8] = static_cast<char>(scratch.stored_models[c / 8] | 1 << (c % 8));
    AppendInteger(scratch.stored_models, adjustment->Pack());
  }
}

// The symbols of a channel before the table is asked which of them it has.
void PlaceInWindow(absl::Span<const uint16_t> values, const ChannelModel& model, uint8_t* symbols) {
  const uint16_t start = model.window_start;
  const uint16_t flip = model.flip_sign ? 0x80 : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t value = values[i];
    const auto place = static_cast<uint16_t>((value >> kRawBits & (kMagnitudeClasses - 1)) - start);
    const auto symbol = static_cast<uint16_t>((value >> 8 & 0x80) ^ flip) | place;
    symbols[i] = static_cast<uint8_t>(place < kWindowClasses ? symbol : kEscapeSymbol);
  }
}

void CollectEscapes(absl::Span<const uint16_t> values, const uint8_t* symbols, std::vector<uint16_t>& escapes) {
  const uint8_t* const end = symbols + values.size();
  const uint8_t* next = symbols;
  while ((next = static_cast<const uint8_t*>(std::memchr(next, kEscapeSymbol, static_cast<size_t>(end - next)))) !=
         nullptr) {
    escapes.push_back(values[static_cast<size_t>(next - symbols)]);
    ++next;
  }
}

void AppendWords(absl::Span<const uint16_t> words, std::string& out) {
  out.append(reinterpret_cast<const char*>(words.data()), words.size() * sizeof(uint16_t));
}

// The low bits of two values to the byte, the first one in the lower half.
void AppendRawBits(absl::Span<const uint16_t> values, std::string& out) {
  const size_t first = out.size();
  out.resize(first + (values.size() + 1) / 2);
  char* const bytes = out.data() + first;
  for (size_t i = 0; i < values.size() / 2; ++i) {
    bytes[i] = static_cast<char>((values[2 * i] & 15) | (values[2 * i + 1] & 15) << 4);
  }
  if (values.size() % 2 != 0) bytes[values.size() / 2] = static_cast<char>(values.back() & 15);
}

}  // namespace

SectionEncoder::SectionEncoder(absl::Span<const TableFrequencies> tables)
    : tables_(tables.begin(), tables.end()), adjuster_(tables) {}

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

void SectionEncoder::MakeSymbols(absl::Span<const uint16_t> values, size_t tokens, SectionScratch& scratch) const {
  scratch.symbols.resize(std::max(scratch.symbols.size(), values.size()));
  scratch.table_of.resize(scratch.symbols.size());
  scratch.escapes.clear();
  for (size_t c = 0; c < scratch.models.size(); ++c) {
    const ChannelModel& model = scratch.models[c];
    const EncodeTable& table = tables_[model.table];
    uint8_t* const symbols = scratch.symbols.data() + c * tokens;
    const absl::Span<const uint16_t> channel = values.subspan(c * tokens, tokens);
    PlaceInWindow(channel, model, symbols);
    for (size_t i = 0; i < tokens; ++i) symbols[i] = table.Available(symbols[i]);
    CollectEscapes(channel, symbols, scratch.escapes);
    std::fill_n(scratch.table_of.begin() + static_cast<ptrdiff_t>(c * tokens), tokens, model.table);
  }
}

void SectionEncoder::Encode(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
                            SectionScratch& scratch, std::string& out) const {
  const size_t first_byte = out.size();
  const SectionMode mode = ChooseModels(values, tokens, models, scratch);
  MakeSymbols(values, tokens, scratch);
  AppendInteger(out, static_cast<uint8_t>(mode));
  AppendInteger(out, static_cast<uint32_t>(scratch.escapes.size()));
  out += scratch.stored_models;
  AppendWords(scratch.escapes, out);
  AppendRawBits(values, out);
  RansEncode(absl::MakeConstSpan(scratch.symbols.data(), values.size()),
             absl::MakeConstSpan(scratch.table_of.data(), values.size()), tables_, scratch.words, out);
  const size_t raw_bytes = 1 + values.size() * sizeof(uint16_t);
  if (out.size() - first_byte < raw_bytes) return;
  out.resize(first_byte);
  AppendInteger(out, static_cast<uint8_t>(SectionMode::kRaw));
  AppendWords(values, out);
}

}  // namespace quicksave::compressor
