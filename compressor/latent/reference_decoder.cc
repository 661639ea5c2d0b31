#include "compressor/latent/reference_decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "nlohmann/json.hpp"

namespace quicksave::compressor {
namespace {

using Json = nlohmann::json;

void Require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(what);
}

uint64_t Field(const std::string& bytes, size_t offset, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes.at(offset + i))) << 8 * i;
  return value;
}

float FloatOf(uint64_t bits) {
  const auto word = static_cast<uint32_t>(bits);
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}

uint16_t RoundToBf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t rest = bits & 0xffff;
  uint32_t high = bits >> 16;
  if (rest > 0x8000 || (rest == 0x8000 && high % 2 == 1)) ++high;
  return static_cast<uint16_t>(high);
}

struct Tensor {
  std::string dtype;
  std::vector<size_t> shape;
  std::vector<float> values;  // of U16 and I8, the integers

  bool present() const { return !shape.empty(); }
  float at(size_t row, size_t column) const { return values.at(row * shape.at(1) + column); }
};

struct Group {
  size_t first_layer = 0;
  size_t layers = 0;
  Tensor mean, predictor, predictor_scale, encode, decode, decode_scale, scale, sigma;
};

struct Profile {
  size_t layers = 0, kv_heads = 0, head_dim = 0, split = 0, features = 0;
  Tensor feature_mean, feature_scale, frequencies, centroids_and_error, residual;
  std::vector<Group> groups;

  size_t width() const { return kv_heads * head_dim; }
};

Tensor ReadTensor(const std::string& bytes, const Json& header, const std::string& name) {
  Tensor tensor;
  if (!header.contains(name)) return tensor;
  const Json& entry = header[name];
  tensor.dtype = entry["dtype"];
  const std::string& dtype = tensor.dtype;
  const size_t size = dtype == "F32" ? 4 : dtype == "I8" ? 1 : 2;
  tensor.shape = entry["shape"].get<std::vector<size_t>>();
  const size_t data = 8 + Field(bytes, 0, 8);
  for (size_t at = entry["data_offsets"][0]; at < entry["data_offsets"][1].get<size_t>(); at += size) {
    const uint64_t field = Field(bytes, data + at, size);
    tensor.values.push_back(dtype == "U16"    ? static_cast<float>(field)
                            : dtype == "I8"   ? static_cast<float>(static_cast<int8_t>(field))
                            : dtype == "BF16" ? FloatOf(field << 16)
                                              : FloatOf(field));
  }
  return tensor;
}

Profile ReadProfile(const std::string& bytes) {
  const Json header = Json::parse(bytes.substr(8, Field(bytes, 0, 8)));
  const Json& metadata = header["__metadata__"];
  const auto number = [&](const char* name) { return std::stoul(metadata[name].get<std::string>()); };
  Profile profile{.layers = number("layers"),
                  .kv_heads = number("kv_heads"),
                  .head_dim = number("head_dim"),
                  .split = number("split"),
                  .features = number("features")};
  const auto read = [&](const std::string& name) { return ReadTensor(bytes, header, name); };
  profile.feature_mean = read("feature.mean");
  profile.feature_scale = read("feature.scale");
  profile.frequencies = read("class.frequencies");
  profile.centroids_and_error = read("class.centroids_and_error");
  profile.residual = read("residual.frequencies");
  size_t layer = profile.split + 1;
  for (const Json& layers : Json::parse(metadata["group_layers"].get<std::string>())) {
    const std::string name = "group" + std::to_string(profile.groups.size()) + ".";
    profile.groups.push_back({layer, layers.get<size_t>(), read(name + "mean"), read(name + "predictor"),
                              read(name + "predictor.scale"), read(name + "encode"), read(name + "decode"),
                              read(name + "decode.scale"), read(name + "scale"), read(name + "sigma")});
    layer += profile.groups.back().layers;
  }
  Require(layer == profile.layers, "groups");
  return profile;
}

// -1 for a component that is not coded.
int ClassOfSigma(float sigma, float step) {
  float r = sigma / step;
  r = r * 1.0905077F;
  if (std::isinf(r)) r = 512;
  if (r < 1.0F / 64) return -1;
  int x = 0;
  while (std::ldexp(1.0F, x + 1) <= r) ++x;
  while (std::ldexp(1.0F, x) > r) --x;
  const float m = std::ldexp(r, -x);
  const int quarter = (1.1892071F <= m ? 1 : 0) + (1.4142135F <= m ? 1 : 0) + (1.6817929F <= m ? 1 : 0);
  return std::min(4 * (x + 6) + quarter, 59);
}

// Symbols in 32 interleaved streams; a row of `frequencies` is a table.
class Rans {
 public:
  Rans(const std::string& bytes, size_t at, const Tensor& frequencies)
      : bytes_(bytes), at_(at + 128), frequencies_(frequencies) {
    for (size_t i = 0; i < 32; ++i) states_.push_back(Field(bytes, at + 4 * i, 4));
  }
  int Next(size_t table) {
    uint64_t& x = states_[count_++ % 32];
    const uint64_t slot = x % 4096;
    uint64_t start = 0;
    size_t symbol = 0;
    const auto frequency = [&](size_t s) { return static_cast<uint64_t>(frequencies_.at(table, s)); };
    while (slot >= start + frequency(symbol)) start += frequency(symbol++);
    x = frequency(symbol) * (x / 4096) + slot - start;
    if (x < 65536) {
      x = x * 65536 + Field(bytes_, at_, 2);
      at_ += 2;
    }
    return static_cast<int>(symbol);
  }
  void RequireEnd() const {
    Require(at_ == bytes_.size(), "words are left");
    for (const uint64_t state : states_) Require(state == 65536, "states");
  }

 private:
  const std::string& bytes_;
  size_t at_;
  const Tensor& frequencies_;
  std::vector<uint64_t> states_;
  size_t count_ = 0;
};

// The offset of the payload; `tokens` is what the header says of them.
size_t OpenContainer(const std::string& container, const std::string& codec, size_t& tokens) {
  Require(container.substr(0, 4) == "QSBK", "magic");
  Require(container.substr(16, codec.size()) == codec && container[16 + codec.size()] == '\0', "codec");
  Require(Field(container, 84, 4) == 1, "sections");
  tokens = Field(container, 76, 4);
  return Field(container, 8, 4);
}

struct Latent {
  float step = 0;
  // [group][component][coded token], in steps; empty for components that are 0 throughout.
  std::vector<std::vector<std::vector<float>>> z;
};

Latent ReadLatent(const std::string& container, size_t payload, const Profile& profile, size_t coded) {
  const float step = FloatOf(Field(container, payload, 4));
  const size_t groups = profile.groups.size();
  const size_t escape_count = Field(container, payload + 20 + groups, 4);
  size_t escape_at = payload + 24 + groups;
  Rans rans(container, escape_at + 4 * escape_count, profile.frequencies);
  Latent latent{.step = step};
  for (size_t g = 0; g < groups; ++g) {
    const int shift = static_cast<int>(Field(container, payload + 20 + g, 1)) - 4;
    auto& components = latent.z.emplace_back();
    for (const float sigma : profile.groups[g].sigma.values) {
      std::vector<float>& row = components.emplace_back();
      const int found = ClassOfSigma(sigma, step);
      if (found < 0) continue;
      bool zero = true;
      for (size_t t = 0; t < coded; ++t) {
        int q = rans.Next(static_cast<size_t>(std::clamp(found + shift, 0, 59))) - 127;
        if (q == 128) {
          q = static_cast<int32_t>(Field(container, escape_at, 4));
          escape_at += 4;
        }
        zero = zero && q == 0;
        const size_t place = static_cast<size_t>(std::min(std::abs(q), 3)) - 1;
        float z = 0;
        if (q != 0) {
          z = static_cast<float>(std::abs(q)) + profile.centroids_and_error.at(static_cast<size_t>(found), place);
          z = q < 0 ? -z : z;
        }
        row.push_back(z);
      }
      if (zero) row.clear();
    }
  }
  rans.RequireEnd();
  return latent;
}

// "Fixed point": the numbers of a token, some of them absent, rounded as their exponents say.
struct Number {
  bool absent = false;
  float value = 0;
};
std::vector<double> FixedPoint(const std::vector<Number>& x, int least) {
  const auto magnitude = [](float value) {
    return std::isnan(value) ? 0.0 : std::min<double>(std::abs(value), 1 << 26);
  };
  std::vector<double> largest;  // of 128 numbers each; -1 where all are absent
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % 128 == 0) largest.push_back(-1);
    if (!x[i].absent) largest.back() = std::max(largest.back(), magnitude(x[i].value));
  }
  double bound = 0;
  for (const double m : largest) bound += m < 0 ? 0 : (m + 1) * 128 * 128;
  int common = 5;
  while (bound * std::pow(2, common) >= 2147483648.0) --common;
  const auto finest = [&](double m, double most) {
    int e = common;
    while (m * std::pow(2, e) > most) --e;
    return e;
  };
  std::vector<double> rounded;
  for (size_t i = 0; i < x.size(); ++i) {
    const double m = std::max(largest[i / 128], 0.0);
    const int one_byte = finest(m, 127);
    const int e = one_byte >= std::min(least, common) ? one_byte : finest(m, 127 * 256);
    const double value = std::copysign(magnitude(x[i].value), x[i].value);
    rounded.push_back(std::nearbyint(value * std::pow(2, e)) / std::pow(2, e));
  }
  return rounded;
}

// Rows of numbers, of each input one: [inputs][coded token], empty where the input is absent.
using Rows = std::vector<std::vector<float>>;

struct Weights {
  const Tensor& matrix;
  const Tensor& scales;  // absent with BF16
  int least;             // bits behind the point
};

// Adds the product of a matrix of integers with x to y: their sums are exact in double.
void AddIntegerProduct(const Weights& weights, const std::vector<Number>& x, float unit, std::vector<float>& y) {
  const std::vector<double> fixed = FixedPoint(x, weights.least);
  for (size_t c = 0; c < y.size(); ++c) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      if (!x[i].absent) sum += static_cast<double>(weights.matrix.at(i, c)) * fixed[i];
    }
    const float factor = weights.scales.values[c] * unit;
    y[c] = std::fma(static_cast<float>(sum), factor, y[c]);
  }
}

// Adds the product of a matrix with one token of the rows to y.
void AddProduct(const Weights& weights, const Rows& rows, size_t t, float unit, std::vector<float>& y) {
  std::vector<Number> x;
  for (const std::vector<float>& row : rows) x.push_back({row.empty(), row.empty() ? 0 : row[t]});
  if (weights.matrix.dtype == "I8") return AddIntegerProduct(weights, x, unit, y);
  for (size_t c = 0; c < y.size(); ++c) {
    for (size_t i = 0; i < x.size(); ++i) {
      if (x[i].absent) continue;
      const float input = x[i].value * unit;
      y[c] = std::fma(weights.matrix.at(i, c), input, y[c]);
    }
  }
}

// Standardised, [features][coded token].
Rows Features(const Profile& profile, const std::vector<float>& hidden, size_t known, size_t tokens) {
  Rows rows(profile.features, std::vector<float>(tokens - known));
  for (size_t f = 0; f < profile.features; ++f) {
    for (size_t t = known; t < tokens; ++t) {
      const float difference = hidden[t * profile.features + f] - profile.feature_mean.values[f];
      rows[f][t - known] = difference * profile.feature_scale.values[f];
    }
  }
  return rows;
}

// Steps 1 to 3 of "Values" for one token.
std::vector<float> ChannelsOf(const Group& group, const Rows& features, const Rows& z, float step, size_t t) {
  std::vector<float> y = group.mean.values;
  if (group.predictor.present()) AddProduct({group.predictor, group.predictor_scale, 5}, features, t, 1, y);
  if (group.decode.present()) {
    Rows inputs = z;
    for (size_t k = 0; inputs.size() < group.decode.shape[0]; ++k) {
      inputs.push_back(z[k]);
      for (float& value : inputs.back()) value /= 128;
    }
    AddProduct({group.decode, group.decode_scale, 3}, inputs, t, step, y);
    return y;
  }
  for (size_t c = 0; c < y.size(); ++c) {
    if (z[c].empty()) continue;
    const float value = z[c][t] * step;
    const float product = group.scale.values[c] * value;
    y[c] = y[c] + product;
  }
  return y;
}

// Step 4, for the keys of one layer.
void TurnKeys(const Profile& profile, const float* angles, float* y) {
  const size_t half = profile.head_dim / 2;
  for (size_t h = 0; h < profile.kv_heads; ++h, y += profile.head_dim) {
    for (size_t i = 0; i < half; ++i) {
      const float a = y[i];
      const float b = y[i + half];
      const float a_cos = a * angles[i];
      const float b_sin = b * angles[half + i];
      const float b_cos = b * angles[i];
      const float a_sin = a * angles[half + i];
      y[i] = a_cos - b_sin;
      y[i + half] = b_cos + a_sin;
    }
  }
}

int LevelOfError(double error) {
  if (error == 0) return -504;
  int x = 0;
  const double m = 2 * std::frexp(error, &x);
  int level = 4 * (x - 1);
  for (const double edge : {1.0905077326652577, 1.2968395546510096, 1.5422108254079407, 1.8340080864093424}) {
    level += edge <= m ? 1 : 0;
  }
  return std::clamp(level, -504, 508);
}

// [layers * 2 * kv_heads * head_dim of the group].
std::vector<int> Levels(const Profile& profile, const Group& group, float step) {
  const size_t channels = group.mean.values.size();
  std::vector<double> squares(channels);
  for (size_t k = 0; k < group.sigma.values.size(); ++k) {
    const double sigma = group.sigma.values[k];
    const int found = ClassOfSigma(group.sigma.values[k], step);
    const double error =
        found < 0 ? sigma * sigma
                  : static_cast<double>(profile.centroids_and_error.at(static_cast<size_t>(found), 3)) * step * step;
    for (size_t c = 0; c < channels; ++c) {
      if (!group.decode.present()) {
        if (c == k) squares[c] = error * group.scale.values[c] * group.scale.values[c];
        continue;
      }
      const double scale = group.decode.dtype == "I8" ? group.decode_scale.values[c] : 1;
      double weight = scale * group.decode.at(k, c);
      const size_t second = group.sigma.values.size() + k;
      if (second < group.decode.shape[0]) weight += scale * group.decode.at(second, c) / 128;
      const double square = weight * weight;
      squares[c] = squares[c] + error * square;
    }
  }
  std::vector<int> levels;
  for (size_t c = 0; c < channels; ++c) {
    double square = squares[c];
    if (c / profile.width() % 2 == 0) {
      const size_t half = profile.head_dim / 2;
      const size_t dim = c % profile.head_dim;
      const size_t low = dim < half ? c : c - half;
      square = (squares[low] + squares[low + half]) / 2;
    }
    levels.push_back(LevelOfError(std::sqrt(square)));
  }
  return levels;
}

int Order(int bits) { return bits >= 32768 ? -(bits - 32768) - 1 : bits; }
int BitsOf(int order) { return order < 0 ? 32768 + (-order - 1) : order; }

// Divides by 2^bits, rounding down.
int Down(int value, int bits) {
  const int divisor = 1 << bits;
  return value >= 0 ? value / divisor : -((-value + divisor - 1) / divisor);
}

struct BitInput {
  const std::string& bytes;
  size_t at;
  size_t bit = 0;

  int Take(int count) {
    int value = 0;
    for (int i = 0; i < count; ++i, ++bit) {
      value |= static_cast<int>(Field(bytes, at + bit / 8, 1) >> (bit % 8) & 1) << i;
    }
    return value;
  }
};

// The value that a symbol stands for, with the raw bits that it needs.
int ValueOfSymbol(int symbol, int p, int level, BitInput& raw) {
  const int a = 4 * (std::max(p >> 7 & 255, 1) - 127);
  if (level <= a - 4) {
    const int h = Down(level - a + 28, 1);
    const int b = std::max(0, Down(h, 1) - 4);
    return BitsOf(std::clamp(Order(p) + (symbol - 127) * (1 << b) + raw.Take(b), -32768, 32767));
  }
  constexpr int kPlaces[] = {0, 1, 3, 5};
  const int quarter = level - 4 * Down(level, 2);
  const int w = 8 * (Down(level, 2) + 127) + kPlaces[quarter] - 96;
  const int sign = (p >> 15) ^ (symbol / 128);
  const int place = std::clamp(symbol % 128 + w, 0, 2047);
  return sign << 15 | place << 4 | raw.Take(4);
}

size_t TableOf(int p, int level) {
  const int a = 4 * (std::max(p >> 7 & 255, 1) - 127);
  if (level <= a - 4) return static_cast<size_t>(std::min(std::max(Down(level - a + 28, 1) + 6, 0), 19));
  return static_cast<size_t>(20 + std::min(Down(level - a + 4, 1), 11));
}

}  // namespace

std::vector<uint16_t> ReferenceDecodeLatent(const std::string& container, const ReferenceContext& context) {
  const Profile profile = ReadProfile(context.profile);
  size_t tokens = 0;
  const size_t payload = OpenContainer(container, "latent", tokens);
  const size_t known = std::min(static_cast<size_t>(context.known), tokens);
  const Latent latent = ReadLatent(container, payload, profile, tokens - known);
  const Rows features = Features(profile, context.hidden, known, tokens);
  std::vector<uint16_t> values = context.values;
  for (size_t g = 0; g < profile.groups.size(); ++g) {
    const Group& group = profile.groups[g];
    for (size_t t = known; t < tokens; ++t) {
      std::vector<float> y = ChannelsOf(group, features, latent.z[g], latent.step, t - known);
      for (size_t layer = 0; layer < group.layers; ++layer) {
        const std::vector<float>& angles = context.angles.at(group.first_layer + layer);
        TurnKeys(profile, angles.data() + t * profile.head_dim, y.data() + 2 * layer * profile.width());
      }
      const size_t first_channel = 2 * profile.width() * group.first_layer;
      for (size_t c = 0; c < y.size(); ++c) values.at((first_channel + c) * tokens + t) = RoundToBf16(y[c]);
    }
  }
  return values;
}

std::vector<uint16_t> ReferenceDecodeResidual(const std::string& container, const ReferenceContext& context) {
  const Profile profile = ReadProfile(context.profile);
  size_t tokens = 0;
  const size_t payload = OpenContainer(container, "latent-residual", tokens);
  const float step = FloatOf(Field(container, payload, 4));
  const size_t escapes = Field(container, payload + 20, 4);
  const size_t raw_bytes = Field(container, payload + 24, 4);
  size_t escape_at = payload + 28;
  BitInput raw{container, escape_at + 2 * escapes};
  Rans rans(container, escape_at + 2 * escapes + raw_bytes, profile.residual);
  std::vector<uint16_t> values = context.values;
  for (const Group& group : profile.groups) {
    const std::vector<int> levels = Levels(profile, group, step);
    for (size_t c = 0; c < levels.size(); ++c) {
      for (size_t t = std::min(static_cast<size_t>(context.known), tokens); t < tokens; ++t) {
        uint16_t& value = values.at((2 * profile.width() * group.first_layer + c) * tokens + t);
        const int symbol = rans.Next(TableOf(value, levels[c]));
        if (symbol == 255) {
          value = static_cast<uint16_t>(Field(container, escape_at, 2));
          escape_at += 2;
        } else {
          value = static_cast<uint16_t>(ValueOfSymbol(symbol, value, levels[c], raw));
        }
      }
    }
  }
  rans.RequireEnd();
  Require((raw.bit + 7) / 8 == raw_bytes, "raw bits");
  return values;
}

}  // namespace quicksave::compressor
