#include "compressor/latent/quantiser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "compressor/latent/instruction_sets.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
constexpr float kMost = std::numeric_limits<float>::max();

TEST(SigmaClassTest, FourClassesAnOctaveWithTheirDeviationInTheMiddle) {
  for (int i = 0; i < kSigmaClasses; ++i) {
    const double middle = std::exp2(kLowestSigmaExponent + i / 4.0);
    EXPECT_EQ(SigmaClassOf(static_cast<float>(middle), 1), i);
    EXPECT_EQ(SigmaClassOf(static_cast<float>(middle * 1.09), 1), i);
    EXPECT_EQ(SigmaClassOf(static_cast<float>(middle / 1.09), 1), i);
    EXPECT_EQ(SigmaClassOf(static_cast<float>(middle * 1.091), 1), std::min(i + 1, kSigmaClasses - 1));
    EXPECT_EQ(SigmaClassOf(static_cast<float>(middle / 1.091), 1), i - 1);
  }
}

// The edges are part of the format: where a class begins, bit for bit.
TEST(SigmaClassTest, EdgesAreExact) {
  for (int i = 0; i < kSigmaClasses; ++i) {
    // The smallest sigma of the class, by bisection of the bits.
    uint32_t low = 0;
    uint32_t high = std::bit_cast<uint32_t>(1e6f);
    while (low + 1 < high) {
      const uint32_t middle = low + (high - low) / 2;
      (SigmaClassOf(std::bit_cast<float>(middle), 1) < i ? low : high) = middle;
    }
    constexpr float kEdges[] = {1.0f, 1.1892071f, 1.4142135f, 1.6817929f};
    const float edge = std::ldexp(kEdges[i % 4], kLowestSigmaExponent + i / 4);
    EXPECT_GE(std::bit_cast<float>(high) * 1.0905077f, edge) << i;
    EXPECT_LT(std::bit_cast<float>(low) * 1.0905077f, edge) << i;
  }
}

TEST(SigmaClassTest, NeverFallsAsSigmaGrowsOrTheStepShrinks) {
  int previous = -1;
  for (uint32_t bits = 0; bits <= 0x7f800000; bits += 4099) {
    const int now = SigmaClassOf(std::bit_cast<float>(bits), 1);
    ASSERT_GE(now, previous) << std::bit_cast<float>(bits);
    ASSERT_LT(now, kSigmaClasses);
    previous = now;
  }
  EXPECT_EQ(previous, kSigmaClasses - 1);
  for (uint32_t bits = 1; bits <= 0x7f800000; bits += 4099) {
    const int now = SigmaClassOf(1, std::bit_cast<float>(bits));
    ASSERT_LE(now, previous) << std::bit_cast<float>(bits);
    previous = now;
  }
  EXPECT_EQ(previous, -1);
}

TEST(SigmaClassTest, HasAnAnswerToAnyNumbers) {
  EXPECT_EQ(SigmaClassOf(kInfinity, 1), kSigmaClasses - 1);
  EXPECT_EQ(SigmaClassOf(1, 0), kSigmaClasses - 1);
  EXPECT_EQ(SigmaClassOf(1, kDenormal), kSigmaClasses - 1);
  EXPECT_EQ(SigmaClassOf(kMost, std::numeric_limits<float>::min()), kSigmaClasses - 1);
  EXPECT_EQ(SigmaClassOf(kMost, 1), kSigmaClasses - 1);
  EXPECT_EQ(SigmaClassOf(0, 1), -1);
  EXPECT_EQ(SigmaClassOf(kDenormal, 1), -1);
  EXPECT_EQ(SigmaClassOf(1, kMost), -1);
  EXPECT_EQ(SigmaClassOf(1, kInfinity), -1);
  EXPECT_EQ(SigmaClassOf(kNan, 1), -1);
  EXPECT_EQ(SigmaClassOf(1, kNan), -1);
  EXPECT_EQ(SigmaClassOf(0, 0), -1);
  EXPECT_EQ(SigmaClassOf(-1, 1), -1);
  EXPECT_EQ(SigmaClassOf(1, -1), -1);
}

TEST(StepTest, HasAFiniteInverse) {
  for (const float step : {1e-37f, 0.5f, 1e30f, kMost}) EXPECT_TRUE(IsStep(step)) << step;
  for (const float step : {0.0f, -0.0f, -1.0f, kNan, kInfinity, -kInfinity, kDenormal}) EXPECT_FALSE(IsStep(step));
}

TEST(QuantiserTest, RoundsTowardsZeroALittle) {
  EXPECT_EQ(Quantise(0.61f, 1), 0);
  EXPECT_EQ(Quantise(0.63f, 1), 1);
  EXPECT_EQ(Quantise(-0.61f, 1), 0);
  EXPECT_EQ(Quantise(-0.63f, 1), -1);
  EXPECT_EQ(Quantise(1.63f, 1), 2);
  EXPECT_EQ(Quantise(3, 2), 6);
  EXPECT_EQ(Quantise(-0.0f, 1), 0);
}

TEST(QuantiserTest, BoundsItsIntegers) {
  for (const float value : {1e30f, kMost}) {
    EXPECT_EQ(Quantise(value, 1e-3f), kLargestInteger);
    EXPECT_EQ(Quantise(-value, 1e30f), -kLargestInteger);
  }
}

TEST(QuantiserTest, SymbolsAreTheIntegersNearZero) {
  for (int32_t q = -kZeroSymbol; q <= kZeroSymbol; ++q) EXPECT_EQ(SymbolOf(q), q + kZeroSymbol);
  for (const int32_t q : {-kZeroSymbol - 1, kZeroSymbol + 1, kLargestInteger, -kLargestInteger}) {
    EXPECT_EQ(SymbolOf(q), kEscapeSymbol) << q;
  }
}

TEST(QuantiserTest, ReconstructionIsOddAndHasACentroidOfItsOwnForEachSmallMagnitude) {
  const SigmaClass statistics{.centroids = {-0.1f, -0.05f, 0.25f}};
  EXPECT_EQ(Reconstruct(0, statistics), 0);
  EXPECT_EQ(Reconstruct(1, statistics), 0.9f);
  EXPECT_EQ(Reconstruct(2, statistics), 1.95f);
  EXPECT_EQ(Reconstruct(3, statistics), 3.25f);
  EXPECT_EQ(Reconstruct(100, statistics), 100.25f);
  for (const int q : {1, 2, 3, 200}) EXPECT_EQ(Reconstruct(-q, statistics), -Reconstruct(q, statistics));
}

TEST(QuantiserTest, SymbolsAreReconstructedAsTheirIntegersOnEachInstructionSet) {
  // The last ones are of no calibration, but a profile may have them.
  for (const auto& centroids :
       {std::array{-0.1f, -0.05f, 0.25f}, std::array{-7.0f, 0.0f, -300.0f}, std::array{-1.0f, -2.0f, 0.0f}}) {
    const SigmaClass statistics{.centroids = centroids};
    std::vector<uint8_t> symbols;
    for (int s = 0; s < kEscapeSymbol; ++s) symbols.push_back(static_cast<uint8_t>(s));
    for (const int64_t target : ProductTargets()) {
      const ScopedProductTarget scoped(target);
      std::vector<float> values(symbols.size());
      ReconstructSymbols(symbols, statistics, values.data());
      for (size_t s = 0; s < symbols.size(); ++s) {
        // Not as numbers, of which 0 equals -0.
        const float expected = Reconstruct(static_cast<int>(s) - kZeroSymbol, statistics);
        EXPECT_EQ(std::bit_cast<uint32_t>(values[s]), std::bit_cast<uint32_t>(expected)) << s;
      }
    }
  }
}

TEST(CodedComponentsTest, AreThoseOfSomeClass) {
  const std::vector<float> sigma = {4, 1, 0.25f, 0.001f, 0.5f};
  const std::vector<CodedComponent> coded = CodedComponents(sigma, 1);
  ASSERT_EQ(coded.size(), 4U);
  EXPECT_EQ(coded[3].index, 4);
  EXPECT_EQ(coded[0].sigma_class, SigmaClassOf(4, 1));
  EXPECT_TRUE(CodedComponents(sigma, 1e9f).empty());
}

class ClassStatisticsTest : public testing::Test {
 protected:
  static std::vector<float> Normal(size_t count, float sigma) {
    TestRandom random(11);
    std::vector<float> values;
    for (size_t i = 0; i < count; ++i) values.push_back(sigma * random.Normal());
    return values;
  }
};

TEST_F(ClassStatisticsTest, ErrorIsThatOfTheReconstruction) {
  ClassStatistics statistics;
  const std::vector<float> values = Normal(50'000, 2);
  statistics.Add(values, 2, 1);
  const SigmaClass built = statistics.Build()[SigmaClassOf(2, 1)];
  double square = 0;
  for (const float value : values) {
    const double error = value - Reconstruct(Quantise(value, 1), built);
    square += error * error;
  }
  EXPECT_NEAR(built.error, square / static_cast<double>(values.size()), 1e-5);
  // A little more than 1/12, for the dead zone.
  EXPECT_NEAR(built.error, 0.09, 0.01);
}

TEST_F(ClassStatisticsTest, BothSignsHaveTheSameFrequencies) {
  ClassStatistics statistics;
  std::vector<float> values = Normal(50'000, 2);
  for (float& value : values) value += 0.5f;
  statistics.Add(values, 2, 1);
  const TableFrequencies frequencies = statistics.Build()[SigmaClassOf(2, 1)].frequencies;
  for (int q = 1; q <= kZeroSymbol; ++q) {
    // Rounding to a sum may move one by one.
    EXPECT_NEAR(frequencies[kZeroSymbol + q], frequencies[kZeroSymbol - q], 1) << q;
  }
}

TEST_F(ClassStatisticsTest, AllClassesHaveValidTablesWhateverWasCounted) {
  ClassStatistics nothing;
  ClassStatistics little;
  little.Add({1.0f, -2.0f, 0.0f}, 1, 1);
  ClassStatistics strange;
  strange.Add({kMost, -kMost, 0}, 1, 1e-3f);
  strange.Add({1.0f}, 1e-9f, 1);  // not coded
  for (const ClassStatistics* statistics : {&nothing, &little, &strange}) {
    const std::vector<SigmaClass> classes = statistics->Build();
    ASSERT_EQ(classes.size(), static_cast<size_t>(kSigmaClasses));
    for (const SigmaClass& one : classes) {
      EXPECT_TRUE(ValidateFrequencies(one.frequencies).ok());
      EXPECT_GE(one.error, 0);
      EXPECT_LE(one.error, 1);
      for (const float centroid : one.centroids) EXPECT_LE(std::abs(centroid), 1);
    }
  }
  EXPECT_NEAR(little.Build()[0].centroids[1], 0, 1e-6);
}

}  // namespace
}  // namespace quicksave::compressor
