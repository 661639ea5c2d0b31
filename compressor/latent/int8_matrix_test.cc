#include "compressor/latent/int8_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

// The targets of both products.
#define HWY_WANT_AVX3_DL
#include "compressor/latent/instruction_sets.h"
#include "compressor/latent/panel_product.h"
#include "compressor/latent/test_fixed_point.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

struct Problem {
  Int8Matrix matrix;
  std::vector<int> used;
  int columns = 32;
  std::vector<float> x;
  std::vector<float> y;
};

// `keep` of the values are not zero.
Problem MakeProblem(int inputs, int outputs, int columns, double keep, float amplitude, uint64_t seed) {
  TestRandom random(seed);
  std::vector<int8_t> values;
  for (int i = 0; i < inputs * outputs; ++i) values.push_back(static_cast<int8_t>(random.Below(255)) - 127);
  std::vector<float> scales;
  for (int o = 0; o < outputs; ++o) scales.push_back(0.01f + std::abs(random.Normal()));
  Problem problem{.matrix = Int8Matrix(inputs, outputs, values, scales), .columns = columns};
  for (int i = 0; i < inputs; i += 1 + static_cast<int>(random.Below(2))) problem.used.push_back(i);
  for (size_t i = 0; i < problem.used.size() * columns; ++i) {
    const bool zero = static_cast<double>(random.Below(1000)) >= 1000 * keep;
    problem.x.push_back(zero ? 0 : amplitude * random.Normal());
  }
  for (int i = 0; i < outputs * columns; ++i) problem.y.push_back(random.Normal());
  return problem;
}

std::vector<float> Product(const Problem& problem, float unit) {
  std::vector<float> y = problem.y;
  AddProduct(problem.matrix, problem.used, problem.x.data(), problem.columns, unit, y.data());
  return y;
}

// The definition, of the rounded x.
std::vector<float> Reference(const Problem& problem, float unit) {
  const std::vector<FixedPointGroup> fixed =
      ToFixedPoint(problem.used, problem.x.data(), problem.columns, kLeastExponent);
  std::vector<float> y = problem.y;
  for (int c = 0; c < problem.columns; ++c) {
    std::vector<double> x;
    for (const int input : problem.used) x.push_back(FixedValue(fixed, input, c));
    for (int o = 0; o < problem.matrix.outputs(); ++o) {
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) sum += x[i] * problem.matrix.value(problem.used[i], o);
      float& to = y[o * problem.columns + c];
      to = std::fma(static_cast<float>(sum), problem.matrix.scales()[o] * unit, to);
    }
  }
  return y;
}

TEST(Int8ProductTest, HasTheBitsOfItsDefinitionOnEachInstructionSet) {
  ASSERT_FALSE(ProductTargets().empty());
  for (const int64_t target : ProductTargets()) {
    const ScopedProductTarget scoped(target);
    uint64_t seed = 1;
    for (const int inputs : {1, 3, 4, 5, 127, 128, 129, 300}) {
      for (const int outputs : {1, 15, 16, 17, 100, 256, 257, 530}) {
        for (const double keep : {1.0, 0.05}) {
          const Problem problem = MakeProblem(inputs, outputs, seed % 2 == 0 ? 32 : 64, keep,
                                              std::array{0.3f, 5.0f, 40.0f, 3000.0f}[seed % 4], seed);
          ++seed;
          ASSERT_EQ(Product(problem, 0.37f), Reference(problem, 0.37f))
              << hwy::TargetName(target) << " " << inputs << " x " << outputs << " seed " << seed;
        }
      }
    }
  }
}

TEST(Int8ProductTest, AColumnDoesNotDependOnTheOthers) {
  const Problem all = MakeProblem(300, 40, 64, 0.4, 20, 5);
  Problem other = all;
  for (size_t i = 0; i < all.used.size(); ++i) other.x[i * 64 + 1] = 1e9f;
  const std::vector<float> expected = Product(all, 1);
  const std::vector<float> y = Product(other, 1);
  for (size_t i = 0; i < y.size(); ++i) {
    if (i % 64 != 1) {
      ASSERT_EQ(y[i], expected[i]) << i;
    }
  }
}

TEST(Int8ProductTest, SumsDoNotOverflow) {
  // All that can be large is.
  const int inputs = 2000;
  const std::vector<int8_t> values(inputs * 2, -Int8Matrix::kLargest);
  const Int8Matrix matrix(inputs, 2, values, {1, 2});
  std::vector<int> used(inputs);
  std::iota(used.begin(), used.end(), 0);
  // The last but one is as large as it may be at its exponent.
  for (const float magnitude : {1.0f, 100.0f, 4000.0f, 1e5f, 4194000.0f, 4227328.5f, 6e7f}) {
    const std::vector<float> x(inputs * 32, magnitude);
    std::vector<float> y(2 * 32);
    AddProduct(matrix, used, x.data(), 32, 1, y.data());
    EXPECT_NEAR(y[33] / (-2.0 * 127 * 2000 * magnitude), 1, 1e-3) << magnitude;
  }
}

TEST(Int8ProductTest, NothingUsedAddsNothing) {
  Problem problem = MakeProblem(4, 13, 32, 1, 1, 9);
  problem.used.clear();
  EXPECT_EQ(Product(problem, 1), problem.y);
  problem = MakeProblem(4, 13, 0, 1, 1, 9);
  EXPECT_TRUE(Product(problem, 1).empty());
}

TEST(Int8MatrixTest, GivesBackWhatItWasMadeOf) {
  for (const int inputs : {1, 4, 7}) {
    for (const int outputs : {1, 16, 300}) {
      TestRandom random(inputs * 1000 + outputs);
      std::vector<int8_t> values;
      for (int i = 0; i < inputs * outputs; ++i) values.push_back(static_cast<int8_t>(random.Below(255)) - 127);
      const Int8Matrix matrix(inputs, outputs, values, std::vector<float>(outputs, 0.5f));
      EXPECT_EQ(matrix.RowMajor(), values);
      EXPECT_EQ(matrix.value(inputs - 1, outputs - 1), values.back());
    }
  }
}

TEST(Int8MatrixTest, NearestIsWithinHalfAStep) {
  TestRandom random(7);
  std::vector<float> values;
  for (int i = 0; i < 50 * 20; ++i) values.push_back(random.Normal());
  // An output of zeros, and one of numbers too small to have a scale.
  for (int i = 0; i < 50; ++i) values[i * 20 + 3] = 0;
  for (int i = 0; i < 50; ++i) values[i * 20 + 4] = 1e-38f;
  const Int8Matrix matrix = Int8Matrix::Nearest(50, 20, values);
  std::vector<int> largest(20);
  for (int i = 0; i < 50; ++i) {
    for (int o = 0; o < 20; ++o) {
      const float scale = matrix.scales()[o];
      EXPECT_NEAR(matrix.value(i, o) * scale, values[i * 20 + o], 0.5001 * scale);
      largest[o] = std::max(largest[o], std::abs(matrix.value(i, o)));
    }
  }
  EXPECT_EQ(largest[0], Int8Matrix::kLargest);
  EXPECT_EQ(largest[3], 0);
}

}  // namespace
}  // namespace quicksave::compressor
