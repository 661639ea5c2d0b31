#include "server/engine/kernels/int8_matmul.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/testing/instruction_sets.h"

namespace quicksave::engine::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int kGroup = Int8Matrix::kGroup;

struct Product {
  Int8Matrix w;
  std::vector<float> weights;  // [outputs, inputs], before they are quantised
  int rows;
  int x_stride;
  std::vector<float> x;  // [rows, x_stride], bf16-representable; NaN from `inputs`

  const float* row(int index) const { return x.data() + size_t(index) * x_stride; }
};

// Magnitudes differ from group to group, and some inputs stand out, as they do in models.
Product RandomProduct(int rows, int outputs, int inputs, std::mt19937& random) {
  std::normal_distribution<float> normal;
  Product product{Int8Matrix(outputs, inputs), {}, rows, inputs + 16, {}};
  for (int i = 0; i < outputs * inputs; ++i) product.weights.push_back(normal(random) * (i % 7 == 0 ? 3.0F : 0.05F));
  for (int i = 0; i < outputs; ++i) product.w.SetOutput(i, product.weights.data() + size_t(i) * inputs);
  product.x.assign(size_t(rows) * product.x_stride, kNan);
  for (int row = 0; row < rows; ++row) {
    for (int k = 0; k < inputs; ++k) {
      const float value = normal(random) * (random() % 50 == 0 ? 100.0F : 1.0F);
      product.x[size_t(row) * product.x_stride + k] = Bf16ToFloat(Bf16Bits(value));
    }
  }
  return product;
}

FixedPointRows FixAll(const Product& p) {
  FixedPointRows fixed;
  fixed.Resize(p.rows, p.w.inputs());
  FixPoint(p.x.data(), p.x_stride, 0, p.rows, fixed);
  return fixed;
}

// One element in the order that int8_matmul.h promises, from the weights and inputs as numbers.
float InOrder(const Product& p, const std::vector<float>& weights, int row) {
  float sum = 0;
  for (int first = 0; first < p.w.inputs(); first += kGroup) {
    const int last = std::min(first + kGroup, p.w.inputs());
    float largest = 0;
    float largest_weight = 0;
    for (int k = first; k < last; ++k) largest = std::max(largest, std::fabs(p.row(row)[k]));
    for (int k = first; k < last; ++k) largest_weight = std::max(largest_weight, std::fabs(weights[k]));
    if (largest == 0 || largest_weight == 0) continue;
    const float x_scale = std::ldexp(1.0F, std::ilogb(largest) - 14);
    const float w_scale = Bf16ToFloat(Bf16Bits(largest_weight / 127));
    int64_t total = 0;
    for (int k = first; k < last; ++k) {
      total += std::llrint(p.row(row)[k] / x_scale) * std::lrint(weights[k] / w_scale);
    }
    sum = std::fma(static_cast<float>(total), x_scale * w_scale, sum);
  }
  return sum;
}

std::vector<float> Multiply(const Product& p, const FixedPointRows& x, int y_stride) {
  std::vector<float> y(size_t(p.rows) * y_stride, kNan);
  MatMul(x, p.w, 0, p.w.panels(), y.data(), y_stride);
  return y;
}

TEST(Int8MatMulTest, SumsInThePromisedOrderOnEveryInstructionSet) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    for (const int rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 33}) {
      const int outputs = 1 + static_cast<int>(random() % 100);
      const int inputs = 16 * (1 + static_cast<int>(random() % 15));
      SCOPED_TRACE(testing::Message() << TargetName(target) << " [" << rows << ", " << inputs << "] x " << outputs);
      const Product product = RandomProduct(rows, outputs, inputs, random);
      const std::vector<float> y = Multiply(product, FixAll(product), outputs + 3);
      for (int output = 0; output < outputs; ++output) {
        const std::vector<float> weights = product.w.Output(output);
        for (int row = 0; row < rows; ++row) {
          ASSERT_EQ(y[size_t(row) * (outputs + 3) + output], InOrder(product, weights, row)) << row << ", " << output;
        }
      }
      for (int row = 0; row < rows; ++row) {
        for (int after = 0; after < 3; ++after)
          ASSERT_TRUE(std::isnan(y[size_t(row) * (outputs + 3) + outputs + after]));
      }
    }
  }
}

TEST(Int8MatMulTest, IsCloseToTheProductOfWhatItWasMadeFrom) {
  std::mt19937 random(7);
  const Product product = RandomProduct(9, 70, 576, random);
  const std::vector<float> y = Multiply(product, FixAll(product), 70);
  double error = 0;
  double power = 0;
  for (int row = 0; row < 9; ++row) {
    for (int output = 0; output < 70; ++output) {
      double exact = 0;
      for (int k = 0; k < 576; ++k) exact += double{product.row(row)[k]} * product.weights[size_t(output) * 576 + k];
      error += std::pow(y[size_t(row) * 70 + output] - exact, 2);
      power += exact * exact;
    }
  }
  // The rms error of a step of 1/127 of the largest weight is 0.0023 of that, which is 5 times a group's rms here.
  EXPECT_LT(std::sqrt(error / power), 0.02);
}

TEST(Int8MatMulTest, ExtremeWeightsAndInputsDoNotOverflow) {
  Product product{Int8Matrix(1, kGroup), std::vector<float>(kGroup, -4.0F), 1, kGroup, {}};
  product.w.SetOutput(0, product.weights.data());
  product.x.assign(kGroup, Bf16ToFloat(0x40ff));  // 7.96875, the largest mantissa
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    EXPECT_NEAR(Multiply(product, FixAll(product), 1)[0], -4.0F * 7.96875F * kGroup, 4.0F) << TargetName(target);
  }
}

TEST(Int8MatMulTest, ComputesOnlyThePanelsThatAreAskedFor) {
  std::mt19937 random(3);
  const Product product = RandomProduct(5, 32 * 3 + 10, 64, random);
  const FixedPointRows x = FixAll(product);
  const int outputs = product.w.outputs();
  ASSERT_EQ(product.w.panels(), 4);
  const std::vector<float> whole = Multiply(product, x, outputs);
  std::vector<float> parts(whole.size(), kNan);
  MatMul(x, product.w, 1, 3, parts.data(), outputs);
  for (int i = 0; i < 5 * outputs; ++i) EXPECT_EQ(std::isnan(parts[i]), i % outputs < 32 || i % outputs >= 96);
  MatMul(x, product.w, 0, 1, parts.data(), outputs);
  MatMul(x, product.w, 2, 2, parts.data(), outputs);
  MatMul(x, product.w, 3, 4, parts.data(), outputs);
  EXPECT_EQ(std::memcmp(whole.data(), parts.data(), whole.size() * sizeof(float)), 0);
}

TEST(Int8MatrixTest, QuantisesToTheNearestStep) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  const int inputs = 150;
  std::vector<float> weights(inputs);
  for (float& weight : weights) weight = normal(random);
  Int8Matrix matrix(40, inputs);
  matrix.SetOutput(37, weights.data());
  const std::vector<float> kept = matrix.Output(37);
  for (int i = 0; i < inputs; ++i) {
    float largest = 0;
    for (int k = i / kGroup * kGroup; k < std::min(inputs, (i / kGroup + 1) * kGroup); ++k) {
      largest = std::max(largest, std::fabs(weights[k]));
    }
    // The scale is rounded to bf16, so the largest weight may be cut by 2^-9 of itself.
    EXPECT_NEAR(kept[i], weights[i], largest / 127 * 0.51F + largest / 512) << i;
  }
  EXPECT_EQ(matrix.Output(36), std::vector<float>(inputs, 0.0F));
}

TEST(Int8MatrixTest, WeightsTooSmallForAScaleAreZero) {
  const std::vector<float> weights = {1e-38F, -1e-39F, 0.0F};
  Int8Matrix matrix(1, 3);
  matrix.SetOutput(0, weights.data());
  EXPECT_EQ(matrix.Output(0), std::vector<float>(3, 0.0F));
}

TEST(FixPointTest, Bf16NearTheLargestIsExact) {
  std::vector<float> x(kGroup, 0.0F);
  x[0] = 1.9921875F;
  x[1] = -1.0F / 128;
  x[2] = 1.0F / 128 + 1.0F / 16384;
  x[3] = -0.7734375F;
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    FixedPointRows fixed;
    fixed.Resize(1, kGroup);
    FixPoint(x.data(), kGroup, 0, 1, fixed);
    for (int i = 0; i < kGroup; ++i) EXPECT_EQ(fixed.values[i] * fixed.scales[0], x[i]) << i;
  }
}

TEST(FixPointTest, ZerosStayZeros) {
  constexpr int kInputs = 2 * kGroup + 16;
  const std::vector<float> x(kInputs, 0.0F);
  FixedPointRows fixed;
  fixed.Resize(1, kInputs);
  fixed.values.assign(fixed.values.size(), 7);
  FixPoint(x.data(), kInputs, 0, 1, fixed);
  EXPECT_EQ(fixed.values, std::vector<int16_t>(3 * kGroup, 0));
  for (const float scale : fixed.scales) EXPECT_GT(scale, 0);
}

}  // namespace
}  // namespace quicksave::engine::cpu
