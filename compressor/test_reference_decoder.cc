#include "compressor/test_reference_decoder.h"

#include <xxhash.h>

#include <algorithm>
#include <deque>
#include <stdexcept>

namespace quicksave::compressor {
namespace {

using Table = std::vector<uint64_t>;

void Require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

uint64_t Field(const std::string& bytes, size_t offset, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes.at(offset + i))) << 8 * i;
  return value;
}

// Takes fields from the front.
struct Input {
  std::string bytes;
  size_t at = 0;

  uint64_t Take(size_t size) {
    at += size;
    return Field(bytes, at - size, size);
  }
};

struct Model {
  uint64_t table = 0;
  uint64_t flip = 0;
  uint64_t start = 0;
};

Model MakeModel(uint64_t packed) { return {packed >> 12, packed >> 11 & 1, packed & 2047}; }

struct Profile {
  std::vector<Table> tables;
  std::vector<Model> models;
};

uint64_t Bell(int64_t d) {
  uint64_t p = (uint64_t{1} << 48) / ((uint64_t{1} << 24) + static_cast<uint64_t>(d * d / 1024));
  for (int i = 0; i < 3; ++i) p = p * p / (1 << 24);
  return p;
}

int64_t Edge(int k) { return (8 + k % 8) * (int64_t{1} << (k / 8)); }

Table BuiltinTable(int64_t mean) {
  Table weights(256);
  for (int k = 0; k < 128; ++k) {
    const int64_t width = Edge(k + 1) - Edge(k);
    const int64_t x = Edge(k) + width / 2;
    weights[static_cast<size_t>(k)] = Bell(x - mean * 8192) * static_cast<uint64_t>(width);
    weights[size_t{128} + static_cast<size_t>(k)] = Bell(x + mean * 8192) * static_cast<uint64_t>(width);
  }
  uint64_t total = 0;
  for (const uint64_t weight : weights) total += weight;
  for (uint64_t& weight : weights) weight = weight * 8192 < total ? 0 : weight;
  weights[255] = 0;
  total = 0;
  uint64_t left = 0;
  for (const uint64_t weight : weights) {
    total += weight;
    left += weight > 0 ? 1 : 0;
  }
  Table frequencies(256);
  uint64_t sum = 0;
  for (size_t s = 0; s < 255; ++s) {
    const uint64_t rest = 4096 - 4 - left;
    if (weights[s] > 0) frequencies[s] = 1 + (sum + weights[s]) * rest / total - sum * rest / total;
    sum += weights[s];
  }
  frequencies[255] = 4;
  return frequencies;
}

std::vector<Table> BuiltinTables() {
  std::vector<Table> tables;
  for (const int mean : {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 19, 25, 34, 52}) tables.push_back(BuiltinTable(mean));
  return tables;
}

Profile ReadProfile(const std::string& bytes) {
  Require(bytes.substr(0, 4) == "QSXP", "profile magic");
  Require(Field(bytes, 4, 2) == 1, "profile version");
  Require(Field(bytes, bytes.size() - 8, 8) == XXH3_64bits(bytes.data(), bytes.size() - 8), "profile checksum");
  Input input{.bytes = bytes, .at = 8};
  uint64_t channels = 2;
  for (int i = 0; i < 3; ++i) channels *= input.Take(4);
  const uint64_t tables = input.Take(4);
  input.at += input.Take(4);
  Profile profile;
  for (uint64_t t = 0; t < tables; ++t) {
    profile.tables.emplace_back();
    for (int s = 0; s < 256; ++s) profile.tables.back().push_back(input.Take(2));
  }
  for (uint64_t c = 0; c < channels; ++c) profile.models.push_back(MakeModel(input.Take(2)));
  Require(input.at + 8 == bytes.size(), "profile size");
  return profile;
}

std::vector<Model> ReadModels(int mode, Input& input, const std::vector<Model>& profile_models) {
  std::vector<Model> models = profile_models;
  if (mode == 2) {
    const uint64_t group = input.Take(1);
    for (size_t c = 0; c < models.size(); ++c) {
      models[c] = c % group == 0 ? MakeModel(input.Take(2)) : models[c - 1];
    }
  }
  if (mode == 3) {
    std::deque<bool> adjusted;
    while (adjusted.size() < models.size()) {
      const uint64_t byte = input.Take(1);
      for (int bit = 0; bit < 8; ++bit) adjusted.push_back((byte >> bit & 1) != 0);
    }
    for (size_t c = 0; c < models.size(); ++c) {
      if (!adjusted[c]) continue;
      const uint64_t byte = input.Take(1);
      models[c].table = byte >> 4;
      models[c].start = models[c].start + (byte & 15) - 8;
    }
  }
  return models;
}

uint64_t TakeSymbol(uint64_t& x, const Table& table) {
  const uint64_t slot = x % 4096;
  uint64_t start = 0;
  uint64_t symbol = 0;
  while (slot >= start + table.at(symbol)) start += table.at(symbol++);
  x = table[symbol] * (x / 4096) + slot - start;
  return symbol;
}

// `models` are the profile's, or as many empty ones without a profile.
std::vector<uint16_t> DecodeSection(Input input, size_t count, size_t tokens, const std::vector<Table>& tables,
                                    std::vector<Model> models, int& mode) {
  std::vector<uint16_t> values;
  mode = static_cast<int>(input.Take(1));
  if (mode == 0) {
    while (values.size() < count) values.push_back(static_cast<uint16_t>(input.Take(2)));
    Require(input.at == input.bytes.size(), "raw section size");
    return values;
  }
  const uint64_t escape_count = input.Take(4);
  models = ReadModels(mode, input, models);
  std::deque<uint16_t> escapes;
  while (escapes.size() < escape_count) escapes.push_back(static_cast<uint16_t>(input.Take(2)));
  std::vector<uint64_t> raw;
  for (size_t i = 0; i < (count + 1) / 2; ++i) {
    const uint64_t byte = input.Take(1);
    raw.push_back(byte & 15);
    raw.push_back(byte >> 4);
  }
  std::vector<uint64_t> states;
  while (states.size() < 32) states.push_back(input.Take(4));
  for (size_t i = 0; i < count; ++i) {
    const Model& model = models.at(i / tokens);
    uint64_t& x = states[i % 32];
    const uint64_t symbol = TakeSymbol(x, tables.at(model.table));
    if (x < 65536) x = x * 65536 + input.Take(2);
    if (symbol == 255) {
      values.push_back(escapes.at(0));
      escapes.pop_front();
      continue;
    }
    const uint64_t sign = symbol >> 7 ^ model.flip;
    values.push_back(static_cast<uint16_t>(sign << 15 | ((symbol & 127) + model.start) << 4 | raw[i]));
  }
  for (const uint64_t x : states) Require(x == 65536, "final state");
  Require(input.at == input.bytes.size() && escapes.empty(), "section size");
  return values;
}

}  // namespace

ReferenceBlock ReferenceDecode(const std::string& container, const std::string& profile_bytes) {
  Require(container.substr(0, 4) == "QSBK" && Field(container, 4, 2) == 1, "magic and version");
  Require(Field(container, 12, 4) == 1 && container.substr(16, 16) == std::string("exact") + std::string(11, '\0'),
          "codec");
  ReferenceBlock block;
  block.layers = static_cast<uint32_t>(Field(container, 64, 4));
  block.kv_heads = static_cast<uint32_t>(Field(container, 68, 4));
  block.head_dim = static_cast<uint32_t>(Field(container, 72, 4));
  block.tokens = static_cast<uint32_t>(Field(container, 76, 4));
  for (size_t i = 48; i < 64; ++i) {
    for (const int shift : {4, 0}) block.id_hex += "0123456789abcdef"[Field(container, i, 1) >> shift & 15];
  }
  const size_t channels = size_t{block.layers} * 2 * block.kv_heads * block.head_dim;
  const bool with_profile = container.substr(32, 16) != std::string(16, '\0');
  const Profile profile = with_profile ? ReadProfile(profile_bytes) : Profile{BuiltinTables(), {}};
  std::vector<Model> models = profile.models;
  models.resize(channels);
  size_t at = Field(container, 8, 4);
  const size_t per_section = Field(container, 80, 4) * block.kv_heads * block.head_dim;
  Require(at == 104 + 12 * Field(container, 84, 4), "header size");
  Require(Field(container, at - 8, 8) == XXH3_64bits(container.data(), at - 8), "header checksum");
  for (size_t i = 0, first = 0; first < channels; ++i, first += per_section) {
    const std::string bytes = container.substr(at, Field(container, 96 + 12 * i, 4));
    Require(Field(container, 100 + 12 * i, 8) == XXH3_64bits(bytes.data(), bytes.size()), "section checksum");
    const size_t last = std::min(channels, first + per_section);
    const std::vector<Model> section_models(models.begin() + static_cast<std::ptrdiff_t>(first),
                                            models.begin() + static_cast<std::ptrdiff_t>(last));
    int mode = 0;
    const auto values =
        DecodeSection({bytes}, (last - first) * block.tokens, block.tokens, profile.tables, section_models, mode);
    Require(with_profile ? mode != 2 : mode == 0 || mode == 2, "mode");
    block.values.insert(block.values.end(), values.begin(), values.end());
    block.modes.push_back(mode);
    at += bytes.size();
  }
  Require(at == container.size(), "container size");
  return block;
}

}  // namespace quicksave::compressor
