#include "compressor/learned/learned_layers.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace quicksave::compressor {
namespace {

constexpr float kNormEpsilon = 1e-5f;

// Softmax of scores [count, columns], column by column.
void Softmax(size_t count, size_t columns, std::vector<float>& scores) {
  for (size_t t = 0; t < columns; ++t) {
    float most = scores[t];
    for (size_t m = 1; m < count; ++m) most = std::max(most, scores[m * columns + t]);
    float sum = 0;
    for (size_t m = 0; m < count; ++m) {
      float& score = scores[m * columns + t];
      score = Exponential(score - most);
      sum += score;
    }
    for (size_t m = 0; m < count; ++m) scores[m * columns + t] /= sum;
  }
}

// The rows of a head's queries; keys and values are as far from them as all queries are many, and twice that.
struct Head {
  size_t first;
  size_t size;
};

// One head of one vector: adds what it attends to. Of each vector there are queries, keys and values.
void AttendHead(const std::vector<std::vector<float>>& projected, size_t self, const Head& head, size_t columns,
                std::vector<float>& attended) {
  const size_t width = attended.size() / columns;
  const size_t end = head.first + head.size;
  const size_t count = projected.size();
  const float scale = 1 / std::sqrt(static_cast<float>(head.size));
  std::vector<float> scores(count * columns);
  for (size_t m = 0; m < count; ++m) {
    float* row = scores.data() + m * columns;
    for (size_t i = head.first; i < end; ++i) {
      const float* query = projected[self].data() + i * columns;
      const float* key = projected[m].data() + (width + i) * columns;
      for (size_t t = 0; t < columns; ++t) row[t] += query[t] * key[t];
    }
    for (size_t t = 0; t < columns; ++t) row[t] *= scale;
  }
  Softmax(count, columns, scores);
  for (size_t m = 0; m < count; ++m) {
    const float* share = scores.data() + m * columns;
    for (size_t i = head.first; i < end; ++i) {
      const float* value = projected[m].data() + (2 * width + i) * columns;
      float* to = attended.data() + i * columns;
      for (size_t t = 0; t < columns; ++t) to[t] += share[t] * value[t];
    }
  }
}

}  // namespace

float Exponential(float x) {
  constexpr float kLog2E = 1.44269504f;
  // ln 2 in two parts, so that their products with small integers are exact and nearly so.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  // Written so that a NaN has an exponent, too.
  x = x > -87 ? std::min(x, 88.0f) : -87;
  const float turns = x * kLog2E;
  const auto n = static_cast<int32_t>(turns + (turns < 0 ? -0.5f : 0.5f));
  const auto whole = static_cast<float>(n);
  const float r = (x - whole * kLn2High) - whole * kLn2Low;
  float sum = 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1;
  sum = sum * r + 1;
  return sum * std::bit_cast<float>((n + 127) << 23);
}

std::vector<float> ApplyLinear(const LinearLayer& layer, const std::vector<float>& x, int columns) {
  std::vector<int> used(x.size() / columns);
  std::iota(used.begin(), used.end(), 0);
  std::vector<float> y(static_cast<size_t>(layer.outputs()) * columns);
  for (int o = 0; o < layer.outputs(); ++o) {
    std::fill_n(y.begin() + static_cast<size_t>(o) * columns, columns, layer.bias[o]);
  }
  AddProduct(layer.weight, used, x.data(), columns, y.data());
  return y;
}

void ApplyGelu(absl::Span<float> x) {
  // x / (1 + e^-2k) = x (1 + tanh k) / 2 with k = sqrt(2 / pi) (x + 0.044715 x^3).
  for (float& value : x) {
    const float twice = 1.5957691f * (value + 0.044715f * value * value * value);
    value = value / (1 + Exponential(-twice));
  }
}

void ApplyNorm(const NormLayer& layer, int columns, std::vector<float>& x) {
  const size_t n = columns;
  const size_t rows = layer.gain.size();
  const float inverse = 1 / static_cast<float>(rows);
  std::vector<float> mean(n);
  std::vector<float> scale(n);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t t = 0; t < n; ++t) mean[t] += x[r * n + t];
  }
  for (float& value : mean) value *= inverse;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t t = 0; t < n; ++t) {
      const float from_mean = x[r * n + t] - mean[t];
      scale[t] += from_mean * from_mean;
    }
  }
  for (float& value : scale) value = 1 / std::sqrt(value * inverse + kNormEpsilon);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t t = 0; t < n; ++t) {
      x[r * n + t] = (x[r * n + t] - mean[t]) * scale[t] * layer.gain[r] + layer.shift[r];
    }
  }
}

std::vector<float> WithNeighbours(const std::vector<float>& x, int tokens, int columns) {
  const size_t n = columns;
  const size_t rows = x.size() / n;
  std::vector<float> all(3 * x.size());
  for (size_t r = 0; r < rows; ++r) {
    const float* from = x.data() + r * n;
    float* self = all.data() + r * n;
    float* before = self + x.size();
    float* after = before + x.size();
    for (int t = 0; t < tokens; ++t) self[t] = from[t];
    for (int t = 1; t < tokens; ++t) before[t] = from[t - 1];
    for (int t = 0; t + 1 < tokens; ++t) after[t] = from[t + 1];
  }
  return all;
}

void ApplyAttention(const AttentionLayer& layer, int columns, std::vector<std::vector<float>>& x) {
  const size_t width = layer.output.inputs();
  const size_t size = width / layer.heads;
  std::vector<std::vector<float>> projected;
  for (const std::vector<float>& panel : x) {
    std::vector<float> normed = panel;
    ApplyNorm(layer.norm, columns, normed);
    projected.push_back(ApplyLinear(layer.query_key_value, normed, columns));
  }
  for (size_t l = 0; l < x.size(); ++l) {
    std::vector<float> attended(width * columns);
    for (size_t first = 0; first < width; first += size) {
      AttendHead(projected, l, {first, size}, columns, attended);
    }
    const std::vector<float> added = ApplyLinear(layer.output, attended, columns);
    for (size_t i = 0; i < added.size(); ++i) x[l][i] += added[i];
  }
}

}  // namespace quicksave::compressor
