#include <algorithm>
#include <cstring>

#include "compressor/byte_io.h"
#include "compressor/exact_section.h"
#include "compressor/rans.h"

namespace quicksave::compressor {
namespace {

absl::Status Damaged() { return absl::DataLossError("exact section damaged"); }

absl::Status DecodeRaw(std::string_view bytes, absl::Span<uint16_t> values) {
  if (bytes.size() != values.size() * sizeof(uint16_t)) return Damaged();
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return absl::OkStatus();
}

bool ReadOwnModels(size_t channels, size_t tables, ByteReader& reader, std::vector<ChannelModel>& models) {
  const size_t channels_per_model = reader.Integer<uint8_t>();
  if (channels_per_model == 0) return false;
  while (models.size() < channels) {
    const ChannelModel model = ChannelModel::Unpack(reader.Integer<uint16_t>());
    if (!reader.ok() || !model.Valid(tables)) return false;
    models.insert(models.end(), std::min(channels_per_model, channels - models.size()), model);
  }
  return true;
}

bool ReadAdjustedModels(absl::Span<const ChannelModel> unadjusted, size_t tables, ByteReader& reader,
                        std::vector<ChannelModel>& models) {
  const std::string_view adjusted = reader.Bytes((unadjusted.size() + 7) / 8);
  if (!reader.ok()) return false;
  models.assign(unadjusted.begin(), unadjusted.end());
  for (size_t c = 0; c < models.size(); ++c) {
    if ((adjusted[c / 8] >> (c % 8) & 1) == 0) continue;
    const auto model = ModelAdjustment::Unpack(reader.Integer<uint8_t>()).Apply(models[c], tables);
    if (!reader.ok() || !model) return false;
    models[c] = *model;
  }
  return true;
}

void UnpackRawBits(std::string_view bytes, absl::Span<uint16_t> values) {
  const auto* const packed = reinterpret_cast<const uint8_t*>(bytes.data());
  for (size_t i = 0; i < values.size() / 2; ++i) {
    values[2 * i] = packed[i] & 15;
    values[2 * i + 1] = packed[i] >> 4;
  }
  if (values.size() % 2 != 0) values.back() = packed[values.size() / 2] & 15;
}

// Adds sign and magnitude class to the raw bits.
void ApplySymbols(const uint8_t* symbols, const ChannelModel& model, absl::Span<uint16_t> values) {
  const uint16_t start = model.window_start;
  const uint16_t flip = model.flip_sign ? 0x80 : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t symbol = symbols[i] ^ flip;
    const auto magnitude = static_cast<uint16_t>((symbol & 0x7f) + start);
    values[i] = static_cast<uint16_t>(values[i] | magnitude << kRawBits | (symbol & 0x80) << 8);
  }
}

// Puts the escaped values in their places. False if there are more than `escapes` holds.
bool ApplyEscapes(const uint8_t* symbols, ByteReader& escapes, absl::Span<uint16_t> values) {
  const uint8_t* const end = symbols + values.size();
  const uint8_t* next = symbols;
  while ((next = static_cast<const uint8_t*>(std::memchr(next, kEscapeSymbol, static_cast<size_t>(end - next)))) !=
         nullptr) {
    values[static_cast<size_t>(next - symbols)] = escapes.Integer<uint16_t>();
    ++next;
  }
  return escapes.ok();
}

}  // namespace

SectionDecoder::SectionDecoder(absl::Span<const TableFrequencies> tables) : tables_(tables.begin(), tables.end()) {}

absl::Status SectionDecoder::ReadModels(SectionMode mode, size_t channels, absl::Span<const ChannelModel> models,
                                        ByteReader& reader, SectionScratch& scratch) const {
  scratch.models.clear();
  bool good = models.empty() == (mode == SectionMode::kOwnModels);
  if (mode == SectionMode::kOwnModels) {
    good = good && ReadOwnModels(channels, tables_.size(), reader, scratch.models);
  } else if (mode == SectionMode::kAdjustedModels) {
    good = good && ReadAdjustedModels(models, tables_.size(), reader, scratch.models);
  } else if (mode == SectionMode::kProfileModels) {
    scratch.models.assign(models.begin(), models.end());
  } else {
    good = false;
  }
  return good ? absl::OkStatus() : Damaged();
}

absl::Status SectionDecoder::Decode(std::string_view bytes, size_t tokens, absl::Span<const ChannelModel> models,
                                    SectionScratch& scratch, absl::Span<uint16_t> values) const {
  ByteReader reader(bytes);
  const auto mode = static_cast<SectionMode>(reader.Integer<uint8_t>());
  if (reader.ok() && mode == SectionMode::kRaw) return DecodeRaw(reader.rest(), values);
  const auto escape_count = reader.Integer<uint32_t>();
  const size_t channels = values.size() / tokens;
  if (absl::Status status = ReadModels(mode, channels, models, reader, scratch); !status.ok()) return status;
  ByteReader escapes(reader.Bytes(escape_count * sizeof(uint16_t)));
  const std::string_view raw_bits = reader.Bytes((values.size() + 1) / 2);
  if (!reader.ok()) return Damaged();
  scratch.symbols.resize(std::max(scratch.symbols.size(), values.size()));
  scratch.table_of.resize(scratch.symbols.size());
  for (size_t c = 0; c < channels; ++c) {
    std::fill_n(scratch.table_of.begin() + static_cast<ptrdiff_t>(c * tokens), tokens, scratch.models[c].table);
  }
  absl::Status status = RansDecode(reader.rest(), absl::MakeConstSpan(scratch.table_of.data(), values.size()), tables_,
                                   absl::MakeSpan(scratch.symbols.data(), values.size()));
  if (!status.ok()) return status;
  UnpackRawBits(raw_bits, values);
  for (size_t c = 0; c < channels; ++c) {
    const uint8_t* const symbols = scratch.symbols.data() + c * tokens;
    const absl::Span<uint16_t> channel = values.subspan(c * tokens, tokens);
    ApplySymbols(symbols, scratch.models[c], channel);
    if (!ApplyEscapes(symbols, escapes, channel)) return Damaged();
  }
  return escapes.rest().empty() ? absl::OkStatus() : Damaged();
}

}  // namespace quicksave::compressor
