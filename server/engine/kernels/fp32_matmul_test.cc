#include "server/engine/kernels/fp32_matmul.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/testing/instruction_sets.h"

namespace quicksave::engine::cpu {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// One element in the order that cpu_kernels.h promises for MatMul.
float InOrder(const float* x, const float* weights, int inputs) {
  float sum = 0;
  for (int group = 0; group < inputs; group += 32) {
    float half[2] = {0, 0};
    for (int k = group; k < std::min(group + 32, inputs); ++k) half[k % 2] = std::fma(x[k], weights[k], half[k % 2]);
    sum += half[0] + half[1];
  }
  return sum;
}

TEST(Fp32MatMulTest, SumsInThePromisedOrderOnEveryInstructionSet) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    for (const int rows : {0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 31}) {
      const int outputs = 1 + static_cast<int>(random() % 100);
      const int inputs = 1 + static_cast<int>(random() % 200);
      SCOPED_TRACE(testing::Message() << TargetName(target) << " [" << rows << ", " << inputs << "] x " << outputs);
      Fp32Matrix matrix(outputs, inputs);
      std::vector<float> weights(size_t(outputs) * inputs);
      for (float& weight : weights) weight = normal(random);
      for (int i = 0; i < outputs; ++i) matrix.SetOutput(i, weights.data() + size_t(i) * inputs);
      const int x_stride = matrix.padded_inputs() + 32;
      // What lies between the rows must not be looked at.
      std::vector<float> x(size_t(rows) * x_stride, kNan);
      for (int i = 0; i < rows * x_stride; ++i) {
        const int k = i % x_stride;
        if (k < matrix.padded_inputs()) x[i] = k < inputs ? normal(random) : 0.0F;
      }
      const int y_stride = outputs + 3;
      std::vector<float> y(size_t(rows) * y_stride, kNan);
      const int middle = matrix.panels() / 2;
      MatMul(x.data(), x_stride, rows, matrix, middle, matrix.panels(), y.data(), y_stride);
      MatMul(x.data(), x_stride, rows, matrix, 0, middle, y.data(), y_stride);
      for (int row = 0; row < rows; ++row) {
        for (int i = 0; i < y_stride; ++i) {
          const float value = y[size_t(row) * y_stride + i];
          if (i >= outputs) {
            ASSERT_TRUE(std::isnan(value));
          } else {
            ASSERT_EQ(value, InOrder(x.data() + size_t(row) * x_stride, weights.data() + size_t(i) * inputs, inputs));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quicksave::engine::cpu
