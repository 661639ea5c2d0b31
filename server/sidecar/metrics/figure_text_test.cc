#include "server/sidecar/metrics/figure_text.h"

#include <limits>

#include "gtest/gtest.h"

namespace quicksave::metrics {
namespace {

TEST(ReadableNumberTest, ThreeDigitsThatMeanSomething) {
  EXPECT_EQ(ReadableNumber(0), "0");
  EXPECT_EQ(ReadableNumber(1), "1");
  EXPECT_EQ(ReadableNumber(0.0017), "0.0017");
  EXPECT_EQ(ReadableNumber(0.00012345), "0.000123");
  EXPECT_EQ(ReadableNumber(0.1), "0.1");
  EXPECT_EQ(ReadableNumber(1.556), "1.56");
  EXPECT_EQ(ReadableNumber(9.999), "10");
  EXPECT_EQ(ReadableNumber(12.46), "12.5");
  EXPECT_EQ(ReadableNumber(100), "100");
  EXPECT_EQ(ReadableNumber(779.25), "779");
  EXPECT_EQ(ReadableNumber(-3.14159), "-3.14");
}

TEST(ReadableNumberTest, LargeAndSmallOnes) {
  EXPECT_EQ(ReadableNumber(999.4), "999");
  EXPECT_EQ(ReadableNumber(999.6), "1,000");
  EXPECT_EQ(ReadableNumber(14816.72), "14,817");
  EXPECT_EQ(ReadableNumber(2.5e20), "2.5e20");
  EXPECT_EQ(ReadableNumber(0.00009), "9e-5");
  EXPECT_EQ(ReadableNumber(0.000099999), "0.0001");
  EXPECT_EQ(ReadableNumber(3.216e-7), "3.22e-7");
  EXPECT_EQ(ReadableNumber(1e-300), "1e-300");
}

TEST(GroupedNumberTest, GroupsByThousands) {
  EXPECT_EQ(GroupedNumber(0), "0");
  EXPECT_EQ(GroupedNumber(999), "999");
  EXPECT_EQ(GroupedNumber(1000), "1,000");
  EXPECT_EQ(GroupedNumber(-123456), "-123,456");
  EXPECT_EQ(GroupedNumber(std::numeric_limits<int64_t>::max()), "9,223,372,036,854,775,807");
}

TEST(ShortenedTest, KeepsBothEnds) {
  EXPECT_EQ(Shortened("latent n=6", 10), "latent n=6");
  EXPECT_EQ(Shortened("latent, split n=10", 12), "laten...n=10");
  EXPECT_EQ(Shortened("abcdefgh", 5), "a...h");
}

}  // namespace
}  // namespace quicksave::metrics
