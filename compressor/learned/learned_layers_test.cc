// Each layer against the same in double, written down plainly.

#include "compressor/learned/learned_layers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr int kTokens = 29;
constexpr int kColumns = 32;

std::vector<float> RandomValues(size_t count, TestRandom& random) {
  std::vector<float> values(count);
  for (float& value : values) value = random.Normal();
  return values;
}

LinearLayer RandomLinear(int inputs, int outputs, TestRandom& random) {
  LinearLayer layer{.weight = {.inputs = inputs, .outputs = outputs}, .bias = RandomValues(outputs, random)};
  for (const float value : RandomValues(static_cast<size_t>(inputs) * outputs, random)) {
    layer.weight.values.push_back(NarrowToBf16(0.3f * value));
  }
  return layer;
}

NormLayer RandomNorm(int width, TestRandom& random) {
  return {.gain = RandomValues(width, random), .shift = RandomValues(width, random)};
}

double At(const std::vector<float>& panel, int row, int column) {
  return panel[static_cast<size_t>(row) * kColumns + column];
}

// One column through a linear layer.
std::vector<double> Linear(const LinearLayer& layer, const std::vector<double>& x) {
  std::vector<double> y(layer.bias.begin(), layer.bias.end());
  for (size_t i = 0; i < x.size(); ++i) {
    for (size_t o = 0; o < y.size(); ++o) y[o] += WidenBf16(layer.weight.values[i * y.size() + o]) * x[i];
  }
  return y;
}

std::vector<double> Normed(const NormLayer& layer, std::vector<double> x) {
  double mean = 0;
  double variance = 0;
  for (const double value : x) mean += value / static_cast<double>(x.size());
  for (const double value : x) variance += (value - mean) * (value - mean) / static_cast<double>(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = (x[i] - mean) / std::sqrt(variance + 1e-5) * layer.gain[i] + layer.shift[i];
  }
  return x;
}

std::vector<double> Column(const std::vector<float>& panel, int column) {
  std::vector<double> values;
  for (size_t row = 0; row < panel.size() / kColumns; ++row) values.push_back(At(panel, static_cast<int>(row), column));
  return values;
}

TEST(ExponentialTest, IsTheExponentialFunction) {
  for (double x = -86; x < 87; x += 0.0317) {
    const double expected = std::exp(static_cast<float>(x));
    EXPECT_NEAR(Exponential(static_cast<float>(x)), expected, 4e-7 * expected) << x;
  }
  EXPECT_EQ(Exponential(0), 1);
}

TEST(ExponentialTest, HasAnAnswerForEverything) {
  EXPECT_EQ(Exponential(-1e30f), Exponential(-87));
  EXPECT_EQ(Exponential(1e30f), Exponential(88));
  EXPECT_EQ(Exponential(std::numeric_limits<float>::infinity()), Exponential(88));
  EXPECT_TRUE(std::isfinite(Exponential(std::nanf(""))));
}

TEST(LinearLayerTest, AgreesWithTheReference) {
  TestRandom random(1);
  const LinearLayer layer = RandomLinear(37, 23, random);
  const std::vector<float> x = RandomValues(37 * kColumns, random);
  const std::vector<float> y = ApplyLinear(layer, x, kColumns);
  for (int t = 0; t < kColumns; ++t) {
    const std::vector<double> expected = Linear(layer, Column(x, t));
    for (int o = 0; o < 23; ++o) EXPECT_NEAR(At(y, o, t), expected[o], 1e-5);
  }
}

TEST(LinearLayerTest, TakesMissingRowsAsZeros) {
  TestRandom random(2);
  const LinearLayer layer = RandomLinear(12, 5, random);
  std::vector<float> x = RandomValues(7 * kColumns, random);
  const std::vector<float> y = ApplyLinear(layer, x, kColumns);
  x.resize(12 * kColumns);
  EXPECT_EQ(ApplyLinear(layer, x, kColumns), y);
}

TEST(GeluTest, AgreesWithTheReference) {
  std::vector<float> x;
  for (float value = -12; value < 12; value += 0.013f) x.push_back(value);
  std::vector<float> y = x;
  ApplyGelu(absl::MakeSpan(y));
  for (size_t i = 0; i < x.size(); ++i) {
    const double inner = std::sqrt(2 / std::numbers::pi) * (x[i] + 0.044715 * std::pow(x[i], 3));
    EXPECT_NEAR(y[i], 0.5 * x[i] * (1 + std::tanh(inner)), 2e-6) << x[i];
  }
}

TEST(NormLayerTest, AgreesWithTheReference) {
  TestRandom random(3);
  const NormLayer layer = RandomNorm(41, random);
  const std::vector<float> x = RandomValues(41 * kColumns, random);
  std::vector<float> y = x;
  ApplyNorm(layer, kColumns, y);
  for (int t = 0; t < kColumns; ++t) {
    const std::vector<double> expected = Normed(layer, Column(x, t));
    for (int r = 0; r < 41; ++r) EXPECT_NEAR(At(y, r, t), expected[r], 1e-5);
  }
}

TEST(NormLayerTest, DoesNotDivideByZero) {
  const NormLayer layer{.gain = {1, 1}, .shift = {0.5f, 0.25f}};
  std::vector<float> x(2 * kColumns, 3);
  ApplyNorm(layer, kColumns, x);
  EXPECT_EQ(At(x, 0, 0), 0.5);
  EXPECT_EQ(At(x, 1, 31), 0.25);
}

TEST(WithNeighboursTest, ShiftsAndPads) {
  TestRandom random(4);
  const std::vector<float> x = RandomValues(3 * kColumns, random);
  const std::vector<float> y = WithNeighbours(x, kTokens, kColumns);
  ASSERT_EQ(y.size(), 3 * x.size());
  for (int r = 0; r < 3; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      EXPECT_EQ(At(y, r, t), At(x, r, t));
      EXPECT_EQ(At(y, 3 + r, t), t > 0 ? At(x, r, t - 1) : 0);
      EXPECT_EQ(At(y, 6 + r, t), t + 1 < kTokens ? At(x, r, t + 1) : 0);
    }
  }
}

TEST(AttentionLayerTest, AgreesWithTheReference) {
  constexpr int kWidth = 12;
  constexpr int kHeads = 3;
  constexpr int kVectors = 5;
  TestRandom random(5);
  const AttentionLayer layer{.heads = kHeads,
                             .norm = RandomNorm(kWidth, random),
                             .query_key_value = RandomLinear(kWidth, 3 * kWidth, random),
                             .output = RandomLinear(kWidth, kWidth, random)};
  std::vector<std::vector<float>> x;
  for (int l = 0; l < kVectors; ++l) x.push_back(RandomValues(kWidth * kColumns, random));
  std::vector<std::vector<float>> y = x;
  ApplyAttention(layer, kColumns, y);
  for (int t = 0; t < kColumns; t += 7) {
    std::vector<std::vector<double>> projected;
    for (const auto& panel : x) {
      projected.push_back(Linear(layer.query_key_value, Normed(layer.norm, Column(panel, t))));
    }
    for (int l = 0; l < kVectors; ++l) {
      std::vector<double> attended(kWidth);
      for (int head = 0; head < kHeads; ++head) {
        const int first = head * kWidth / kHeads;
        std::vector<double> weights(kVectors);
        double sum = 0;
        for (int m = 0; m < kVectors; ++m) {
          double product = 0;
          for (int i = first; i < first + kWidth / kHeads; ++i) product += projected[l][i] * projected[m][kWidth + i];
          weights[m] = std::exp(product / std::sqrt(static_cast<double>(kWidth) / kHeads));
          sum += weights[m];
        }
        for (int m = 0; m < kVectors; ++m) {
          for (int i = first; i < first + kWidth / kHeads; ++i) {
            attended[i] += weights[m] / sum * projected[m][2 * kWidth + i];
          }
        }
      }
      const std::vector<double> added = Linear(layer.output, attended);
      for (int i = 0; i < kWidth; ++i) EXPECT_NEAR(At(y[l], i, t), At(x[l], i, t) + added[i], 2e-5);
    }
  }
}

}  // namespace
}  // namespace quicksave::compressor
