#include <algorithm>
#include <cstring>

#include "compressor/byte_io.h"
#include "compressor/exact_section.h"
#include "compressor/exact_values.h"

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

absl::StatusOr<SectionDecoder::Parts> SectionDecoder::Divide(const SectionInput& section, size_t tokens,
                                                             SectionScratch& scratch) const {
  const absl::Span<uint16_t> values = section.values;
  ByteReader reader(section.bytes);
  const auto mode = static_cast<SectionMode>(reader.Integer<uint8_t>());
  if (reader.ok() && mode == SectionMode::kRaw) {
    absl::Status status = DecodeRaw(reader.rest(), values);
    if (!status.ok()) return status;
    return Parts{.raw = true};
  }
  const auto escape_count = reader.Integer<uint32_t>();
  const size_t channels = values.size() / tokens;
  if (absl::Status status = ReadModels(mode, channels, section.models, reader, scratch); !status.ok()) return status;
  Parts parts{.escapes = reader.Bytes(escape_count * sizeof(uint16_t)),
              .raw_bits = reader.Bytes((values.size() + 1) / 2)};
  if (!reader.ok()) return Damaged();
  scratch.symbols.resize(std::max(scratch.symbols.size(), values.size()));
  scratch.table_of.resize(scratch.symbols.size());
  for (size_t c = 0; c < channels; ++c) {
    std::fill_n(scratch.table_of.begin() + static_cast<ptrdiff_t>(c * tokens), tokens, scratch.models[c].table);
  }
  parts.symbols = {.bytes = reader.rest(),
                   .table_of = absl::MakeConstSpan(scratch.table_of.data(), values.size()),
                   .symbols = absl::MakeSpan(scratch.symbols.data(), values.size())};
  return parts;
}

absl::Status SectionDecoder::Restore(const SectionInput& section, const Parts& parts, size_t tokens,
                                     const SectionScratch& scratch) const {
  std::string_view escapes = parts.escapes;
  for (size_t c = 0; c < scratch.models.size(); ++c) {
    const size_t first = c * tokens;
    const CodedValues coded{
        .symbols = parts.symbols.symbols.subspan(first, tokens), .raw_bits = parts.raw_bits, .first_raw = first};
    if (!RestoreValues(scratch.models[c], coded, escapes, section.values.data() + first)) return Damaged();
  }
  return escapes.empty() ? absl::OkStatus() : Damaged();
}

absl::Status SectionDecoder::DecodeParts(const SectionInput& section, const Parts& parts, size_t tokens,
                                         const SectionScratch& scratch) const {
  if (parts.raw) return absl::OkStatus();
  const RansInput& symbols = parts.symbols;
  absl::Status status = RansDecode(symbols.bytes, symbols.table_of, tables_, symbols.symbols);
  return status.ok() ? Restore(section, parts, tokens, scratch) : status;
}

absl::Status SectionDecoder::Decode(const SectionInput& section, size_t tokens, SectionScratch& scratch) const {
  const absl::StatusOr<Parts> parts = Divide(section, tokens, scratch);
  return parts.ok() ? DecodeParts(section, *parts, tokens, scratch) : parts.status();
}

absl::Status SectionDecoder::DecodePair(const SectionInput& first, const SectionInput& second, size_t tokens,
                                        SectionScratch& first_scratch, SectionScratch& second_scratch) const {
  const absl::StatusOr<Parts> a = Divide(first, tokens, first_scratch);
  if (!a.ok()) return a.status();
  const absl::StatusOr<Parts> b = Divide(second, tokens, second_scratch);
  if (!b.ok()) return b.status();
  if (a->raw || b->raw) {
    absl::Status status = DecodeParts(first, *a, tokens, first_scratch);
    return status.ok() ? DecodeParts(second, *b, tokens, second_scratch) : status;
  }
  absl::Status status = RansDecodePair(a->symbols, b->symbols, tables_);
  if (status.ok()) status = Restore(first, *a, tokens, first_scratch);
  return status.ok() ? Restore(second, *b, tokens, second_scratch) : status;
}

}  // namespace quicksave::compressor
