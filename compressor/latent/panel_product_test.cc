#include "compressor/latent/panel_product.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "compressor/latent/instruction_sets.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

struct Problem {
  Bf16Matrix matrix;
  std::vector<int> used;
  int columns = 0;
  std::vector<float> x;
  std::vector<float> y;
};

Problem MakeProblem(int inputs, int outputs, int columns, int use_every, uint64_t seed) {
  TestRandom random(seed);
  Problem problem{.matrix = {.inputs = inputs, .outputs = outputs}, .columns = columns};
  for (int i = 0; i < inputs * outputs; ++i) problem.matrix.values.push_back(NarrowToBf16(random.Normal()));
  for (int i = 0; i < inputs; i += use_every) problem.used.push_back(i);
  for (size_t i = 0; i < problem.used.size() * columns; ++i) problem.x.push_back(random.Normal());
  for (int i = 0; i < outputs * columns; ++i) problem.y.push_back(random.Normal());
  return problem;
}

// The definition: for each element a chain of fused multiply-adds in the order of `used`.
std::vector<float> Reference(const Problem& problem) {
  std::vector<float> y = problem.y;
  for (int o = 0; o < problem.matrix.outputs; ++o) {
    for (int c = 0; c < problem.columns; ++c) {
      float& sum = y[o * problem.columns + c];
      for (size_t i = 0; i < problem.used.size(); ++i) {
        const float weight = WidenBf16(problem.matrix.values[problem.used[i] * problem.matrix.outputs + o]);
        sum = std::fma(weight, problem.x[i * problem.columns + c], sum);
      }
    }
  }
  return y;
}

std::vector<float> Product(const Problem& problem) {
  std::vector<float> y = problem.y;
  AddProduct(problem.matrix, problem.used, problem.x.data(), problem.columns, y.data());
  return y;
}

TEST(PanelProductTest, HasTheBitsOfItsDefinitionOnEachInstructionSet) {
  ASSERT_FALSE(ProductTargets().empty());
  for (const int64_t target : ProductTargets()) {
    const ScopedProductTarget scoped(target);
    uint64_t seed = 1;
    for (const int inputs : {1, 2, 7, 255, 256, 257, 513}) {
      for (const int outputs : {1, 5, 6, 7, 11, 12, 13, 25}) {
        for (const int columns : {32, 96}) {
          const Problem problem = MakeProblem(inputs, outputs, columns, 1 + static_cast<int>(seed % 3), seed);
          ++seed;
          ASSERT_EQ(Product(problem), Reference(problem))
              << hwy::TargetName(target) << " " << inputs << " x " << outputs << " x " << columns;
        }
      }
    }
  }
}

TEST(PanelProductTest, AColumnDoesNotDependOnTheOthers) {
  const Problem all = MakeProblem(300, 17, 128, 1, 5);
  const std::vector<float> expected = Product(all);
  for (int first = 0; first < all.columns; first += kColumnGroup) {
    Problem part{.matrix = all.matrix, .used = all.used, .columns = kColumnGroup};
    for (size_t i = 0; i < all.used.size(); ++i) {
      const auto row = all.x.begin() + static_cast<std::ptrdiff_t>(i * all.columns + first);
      part.x.insert(part.x.end(), row, row + kColumnGroup);
    }
    // What else is in the group does not matter either.
    for (size_t i = 0; i < all.used.size(); ++i) part.x[i * kColumnGroup + 1] = std::numeric_limits<float>::infinity();
    for (int o = 0; o < all.matrix.outputs; ++o) {
      const auto row = all.y.begin() + o * all.columns + first;
      part.y.insert(part.y.end(), row, row + kColumnGroup);
    }
    const std::vector<float> y = Product(part);
    for (int o = 0; o < all.matrix.outputs; ++o) {
      for (int c = 0; c < kColumnGroup; ++c) {
        if (c != 1) {
          ASSERT_EQ(y[o * kColumnGroup + c], expected[o * all.columns + first + c]);
        }
      }
    }
  }
}

TEST(PanelProductTest, NothingUsedAddsNothing) {
  Problem problem = MakeProblem(4, 13, 32, 1, 9);
  problem.used.clear();
  problem.x.clear();
  EXPECT_EQ(Product(problem), problem.y);
  problem = MakeProblem(4, 13, 0, 1, 9);
  EXPECT_TRUE(Product(problem).empty());
}

TEST(Bf16Test, EveryNumberSurvivesWideningAndNarrowing) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    if ((bits & 0x7f80) == 0x7f80 && (bits & 0x7f) != 0) continue;  // not a number
    ASSERT_EQ(NarrowToBf16(WidenBf16(static_cast<uint16_t>(bits))), bits);
  }
}

TEST(Bf16Test, RoundsToNearestEven) {
  const auto narrowed = [](uint32_t bits) { return NarrowToBf16(std::bit_cast<float>(bits)); };
  EXPECT_EQ(narrowed(0x3f808000), 0x3f80);  // a tie, to even
  EXPECT_EQ(narrowed(0x3f818000), 0x3f82);
  EXPECT_EQ(narrowed(0x3f808001), 0x3f81);
  EXPECT_EQ(narrowed(0x3f80ffff), 0x3f81);
  EXPECT_EQ(narrowed(0xbf807fff), 0xbf80);
  EXPECT_EQ(narrowed(0x7f7fffff), 0x7f80);  // infinity
  EXPECT_EQ(narrowed(0x00000001), 0x0000);
}

TEST(PaddedColumnsTest, IsTheNextMultiple) {
  for (int columns = 0; columns <= 130; ++columns) {
    EXPECT_EQ(PaddedColumns(columns) % kColumnGroup, 0);
    EXPECT_GE(PaddedColumns(columns), columns);
    EXPECT_LT(PaddedColumns(columns), columns + kColumnGroup);
  }
}

}  // namespace
}  // namespace quicksave::compressor
