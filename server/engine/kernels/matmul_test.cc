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

struct Product {
  int rows;
  int outputs;
  int inputs;
  int x_stride;
  std::vector<float> x;           // [rows, x_stride], bf16-representable, zeros from `inputs` to the padding
  std::vector<uint16_t> weights;  // [outputs, inputs]
};

Product RandomProduct(int rows, int outputs, int inputs, std::mt19937& random) {
  std::normal_distribution<float> normal;
  const int padded = (inputs + 31) / 32 * 32;
  Product product{rows, outputs, inputs, padded + 32, {}, {}};
  // What lies between the rows must not be looked at.
  product.x.assign(size_t(rows) * product.x_stride, kNan);
  for (int row = 0; row < rows; ++row) {
    float* x = product.x.data() + size_t(row) * product.x_stride;
    for (int k = 0; k < padded; ++k) x[k] = k < inputs ? Bf16ToFloat(Bf16Bits(normal(random))) : 0.0F;
  }
  for (int i = 0; i < outputs * inputs; ++i) product.weights.push_back(Bf16Bits(normal(random)));
  return product;
}

// One element in the order that cpu_kernels.h promises.
float InOrder(const Product& p, int row, int output) {
  float sum = 0;
  for (int group = 0; group < p.inputs; group += 32) {
    float half[2] = {0, 0};
    for (int k = group; k < group + 32; ++k) {
      const float w = k < p.inputs ? Bf16ToFloat(p.weights[size_t(output) * p.inputs + k]) : 0.0F;
      half[k % 2] = std::fma(p.x[size_t(row) * p.x_stride + k], w, half[k % 2]);
    }
    sum += half[0] + half[1];
  }
  return sum;
}

double InDouble(const Product& p, int row, int output) {
  double sum = 0;
  for (int k = 0; k < p.inputs; ++k) {
    sum += double{p.x[size_t(row) * p.x_stride + k]} * Bf16ToFloat(p.weights[size_t(output) * p.inputs + k]);
  }
  return sum;
}

// y of all panels; what is not written stays NaN.
std::vector<float> Multiply(const Product& p, int y_stride) {
  const PackedMatrix packed(p.weights.data(), p.outputs, p.inputs);
  std::vector<float> y(size_t(p.rows) * y_stride, kNan);
  MatMul(p.x.data(), p.x_stride, p.rows, packed, 0, packed.panels(), y.data(), y_stride);
  return y;
}

TEST(MatMulTest, SumsInThePromisedOrderOnEveryInstructionSet) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    for (const int rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 48}) {
      const int outputs = 1 + static_cast<int>(random() % 100);
      const int inputs = 1 + static_cast<int>(random() % 200);
      SCOPED_TRACE(testing::Message() << TargetName(target) << " [" << rows << ", " << inputs << "] x " << outputs);
      const Product product = RandomProduct(rows, outputs, inputs, random);
      const std::vector<float> y = Multiply(product, outputs + 3);
      for (int row = 0; row < rows; ++row) {
        for (int output = 0; output < outputs; ++output) {
          const float value = y[size_t(row) * (outputs + 3) + output];
          ASSERT_EQ(value, InOrder(product, row, output)) << row << ", " << output;
          // Each term's error is at most 2^-24 of a partial sum, which is of the order of 10 here.
          ASSERT_NEAR(value, InDouble(product, row, output), 1e-4);
        }
        for (int after = 0; after < 3; ++after)
          ASSERT_TRUE(std::isnan(y[size_t(row) * (outputs + 3) + outputs + after]));
      }
    }
  }
}

TEST(MatMulTest, ComputesOnlyThePanelsThatAreAskedFor) {
  std::mt19937 random(3);
  const Product product = RandomProduct(5, 32 * 3 + 10, 64, random);
  const PackedMatrix packed(product.weights.data(), product.outputs, product.inputs);
  ASSERT_EQ(packed.panels(), 4);
  const std::vector<float> whole = Multiply(product, product.outputs);
  std::vector<float> parts(whole.size(), kNan);
  const auto run = [&](int first, int last) {
    MatMul(product.x.data(), product.x_stride, 5, packed, first, last, parts.data(), product.outputs);
  };
  run(1, 3);
  for (int row = 0; row < 5; ++row) {
    for (int output = 0; output < product.outputs; ++output) {
      const bool asked = output >= 32 && output < 96;
      EXPECT_EQ(std::isnan(parts[size_t(row) * product.outputs + output]), !asked);
    }
  }
  run(0, 1);
  run(2, 2);
  run(3, 4);
  EXPECT_EQ(std::memcmp(whole.data(), parts.data(), whole.size() * sizeof(float)), 0);
}

TEST(MatMulTest, NoRowsAreNoWork) {
  std::mt19937 random(4);
  const Product product = RandomProduct(0, 40, 32, random);
  EXPECT_TRUE(Multiply(product, 40).empty());
}

TEST(PackedMatrixTest, PadsWithZeros) {
  const std::vector<uint16_t> weights(3 * 5, 0x3f80);
  const PackedMatrix packed(weights.data(), 3, 5);
  EXPECT_EQ(packed.padded_inputs(), 32);
  EXPECT_EQ(packed.panels(), 1);
  for (int k = 0; k < 32; ++k) {
    for (int output = 0; output < 32; ++output) {
      const uint16_t expected = k < 5 && output < 3 ? 0x3f80 : 0;
      ASSERT_EQ(packed.panel(0)[size_t(k / 2) * 64 + output * 2 + k % 2], expected) << k << ", " << output;
    }
  }
}

}  // namespace
}  // namespace quicksave::engine::cpu
