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

bool ReadModels(ByteReader& reader, size_t count, size_t tables, std::vector<ChannelModel>& models) {
  models.clear();
  if (reader.rest().size() / sizeof(uint16_t) < count) return false;
  for (size_t i = 0; i < count; ++i) {
    models.push_back(ChannelModel::Unpack(reader.Integer<uint16_t>()));
    if (!models.back().Valid(tables)) return false;
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

absl::Status SectionDecoder::Decode(std::string_view bytes, size_t tokens, absl::Span<const ChannelModel> models,
                                    SectionScratch& scratch, absl::Span<uint16_t> values) const {
  ByteReader reader(bytes);
  const auto mode = static_cast<SectionMode>(reader.Integer<uint8_t>());
  if (!reader.ok()) return Damaged();
  if (mode == SectionMode::kRaw) return DecodeRaw(reader.rest(), values);
  const bool own_models = mode == SectionMode::kOwnModels;
  if (own_models == !models.empty() || mode > SectionMode::kOwnModels) return Damaged();
  const size_t channels = values.size() / tokens;
  size_t channels_per_model = reader.Integer<uint8_t>();
  const auto escape_count = reader.Integer<uint32_t>();
  if (own_models != (channels_per_model != 0)) return Damaged();
  if (own_models) {
    const size_t count = (channels + channels_per_model - 1) / channels_per_model;
    if (!ReadModels(reader, count, tables_.size(), scratch.models)) return Damaged();
    models = scratch.models;
  } else {
    channels_per_model = 1;
  }
  ByteReader escapes(reader.Bytes(escape_count * sizeof(uint16_t)));
  const std::string_view raw_bits = reader.Bytes((values.size() + 1) / 2);
  if (!reader.ok()) return Damaged();
  scratch.symbols.resize(std::max(scratch.symbols.size(), values.size()));
  scratch.table_of.resize(scratch.symbols.size());
  for (size_t c = 0; c < channels; ++c) {
    std::fill_n(scratch.table_of.begin() + static_cast<ptrdiff_t>(c * tokens), tokens,
                models[c / channels_per_model].table);
  }
  absl::Status status = RansDecode(reader.rest(), absl::MakeConstSpan(scratch.table_of.data(), values.size()), tables_,
                                   absl::MakeSpan(scratch.symbols.data(), values.size()));
  if (!status.ok()) return status;
  UnpackRawBits(raw_bits, values);
  for (size_t c = 0; c < channels; ++c) {
    const uint8_t* const symbols = scratch.symbols.data() + c * tokens;
    const absl::Span<uint16_t> channel = values.subspan(c * tokens, tokens);
    ApplySymbols(symbols, models[c / channels_per_model], channel);
    if (!ApplyEscapes(symbols, escapes, channel)) return Damaged();
  }
  return escapes.rest().empty() ? absl::OkStatus() : Damaged();
}

}  // namespace quicksave::compressor
