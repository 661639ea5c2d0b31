#include "compressor/latent/fixed_point.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "compressor/latent/instruction_sets.h"
#include "compressor/latent/test_fixed_point.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr int kColumns = 32;

// A value with another one in its column.
double Rounded(float value, float other) {
  std::vector<float> x(2 * kColumns);
  x[3] = value;
  x[kColumns + 3] = other;
  return FixedValue(ToFixedPoint(std::vector<int>{5, 9}, x.data(), kColumns, 3), 5, 3);
}

TEST(FixedPointTest, SmallNumbersAreMultiplesOfTheFinest) {
  EXPECT_EQ(Rounded(0.5f, 3.96f), 0.5);
  EXPECT_EQ(Rounded(0.51f, 3.96f), 0.5);
  EXPECT_EQ(Rounded(-0.52f, 3.96f), -17.0 / 32);
  EXPECT_EQ(Rounded(1.0f / 64, 1), 0) << "halves go to even";
  EXPECT_EQ(Rounded(3.0f / 64, 1), 2.0 / 32);
}

TEST(FixedPointTest, ResolutionFallsToAnEighthAndThenThereAreTwoBytes) {
  EXPECT_EQ(Rounded(0.14f, 15.8f), 0.125);
  EXPECT_EQ(Rounded(0.14f, 16), 4.0 / 32);
  EXPECT_EQ(Rounded(0.16f, 16), 5.0 / 32);
  EXPECT_EQ(Rounded(0.16f, 1000), 5.0 / 32);
  EXPECT_EQ(Rounded(1000.03f, 1000.03f), 1000 + 1.0 / 32);
  EXPECT_EQ(Rounded(-1000.03f, 1000.03f), -1000 - 1.0 / 32);
  EXPECT_EQ(Rounded(4000.13f, 4060), 4000.125);
}

TEST(FixedPointTest, WhatIsNoNumberIsZeroAndInfinityIsLarge) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Rounded(nan, 1), 0);
  EXPECT_EQ(Rounded(0.5f, nan), 0.5);
  EXPECT_NEAR(Rounded(std::numeric_limits<float>::infinity(), 1), 1 << 26, 1 << 12);
  EXPECT_NEAR(Rounded(-std::numeric_limits<float>::infinity(), 1), -(1 << 26), 1 << 12);
}

TEST(FixedPointTest, InputsOf128HaveAnExponentOfTheirOwn) {
  // Inputs 127, 128 and 129; the second is large.
  const std::vector<int> used = {127, 128, 129};
  std::vector<float> x(3 * kColumns, 1.0f / 32);
  x[kColumns + 7] = 3000;
  const std::vector<FixedPointGroup> fixed = ToFixedPoint(used, x.data(), kColumns, 3);
  EXPECT_EQ(FixedValue(fixed, 127, 7), 1.0 / 32);
  EXPECT_EQ(FixedValue(fixed, 129, 7), 0);
  EXPECT_EQ(FixedValue(fixed, 128, 7), 3000);
  EXPECT_EQ(FixedValue(fixed, 129, 8), 1.0 / 32) << "of another column";
}

TEST(FixedPointTest, IsTheSameOnEachInstructionSet) {
  TestRandom random(5);
  std::vector<int> used;
  std::vector<float> x;
  for (int i = 0; i < 900; i += 1 + static_cast<int>(random.Below(3))) {
    used.push_back(i);
    for (int c = 0; c < 2 * kColumns; ++c) {
      const auto kind = random.Below(400);
      const float number = std::ldexp(random.Normal(), static_cast<int>(random.Below(30)) - 20);
      const float strange = kind == 0 ? std::numeric_limits<float>::quiet_NaN() : 1e9f * number;
      x.push_back(kind < 2 ? strange : number);
    }
  }
  std::vector<FixedPointGroup> first;
  for (const int64_t target : ProductTargets()) {
    const ScopedProductTarget scoped(target);
    const std::vector<FixedPointGroup> fixed = ToFixedPoint(used, x.data(), 2 * kColumns, 3);
    if (first.empty()) first = fixed;
    ASSERT_EQ(fixed.size(), 2U);
    for (size_t g = 0; g < fixed.size(); ++g) {
      EXPECT_EQ(fixed[g].exponents, first[g].exponents);
      ASSERT_EQ(fixed[g].planes.size(), first[g].planes.size());
      for (size_t p = 0; p < fixed[g].planes.size(); ++p) {
        EXPECT_EQ(fixed[g].planes[p].shifts, first[g].planes[p].shifts);
        EXPECT_EQ(fixed[g].planes[p].sums, first[g].planes[p].sums);
        EXPECT_EQ(fixed[g].planes[p].quads, first[g].planes[p].quads);
        EXPECT_EQ(fixed[g].planes[p].values, first[g].planes[p].values);
      }
    }
  }
}

TEST(FixedPointTest, SumsAreThoseOfThePlanes) {
  TestRandom random(3);
  std::vector<int> used;
  std::vector<float> x;
  for (int i = 0; i < 700; i += 3) {
    used.push_back(i);
    const float amplitude = i < 200 ? 50 : 0.2f;
    for (int c = 0; c < kColumns; ++c) x.push_back(random.Below(3) == 0 ? amplitude * random.Normal() : 0);
  }
  const std::vector<FixedPointGroup> fixed = ToFixedPoint(used, x.data(), kColumns, 3);
  ASSERT_EQ(fixed.size(), 1U);
  ASSERT_GT(fixed[0].planes.size(), 1U);
  for (const FixedPlane& plane : fixed[0].planes) {
    for (int c = 0; c < kColumns; ++c) {
      EXPECT_GE(plane.shifts[c], 0);
      int sum = 0;
      for (size_t q = 0; q < plane.quads.size(); ++q) {
        for (int i = 0; i < kQuad; ++i) sum += static_cast<int8_t>(plane.values[q * kColumns + c] >> (8 * i));
      }
      EXPECT_EQ(sum, plane.sums[c]);
    }
  }
  for (size_t i = 0; i < used.size(); ++i) {
    for (int c = 0; c < kColumns; ++c) {
      EXPECT_NEAR(FixedValue(fixed, used[i], c), x[i * kColumns + c], 1.0 / 64 + 1e-6);
    }
  }
}

}  // namespace
}  // namespace quicksave::compressor
