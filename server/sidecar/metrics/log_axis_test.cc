#include "server/sidecar/metrics/log_axis.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::metrics {
namespace {

using ::testing::ElementsAre;

std::vector<double> Labelled(const LogAxis& axis) {
  std::vector<double> values;
  for (const Tick& tick : axis.Ticks()) {
    if (tick.labelled) values.push_back(tick.value);
  }
  return values;
}

TEST(LogAxisTest, ValuesStandByTheirLogarithm) {
  const LogAxis axis(1, 100, 0, 112);  // two decades, and 6% of them at each end: 50 pixels a decade
  EXPECT_NEAR(axis.Position(1), 6, 1e-9);
  EXPECT_NEAR(axis.Position(10), 56, 1e-9);
  EXPECT_NEAR(axis.Position(100), 106, 1e-9);
  const LogAxis upwards(1, 100, 112, 0);
  EXPECT_NEAR(upwards.Position(100), 6, 1e-9);
}

TEST(LogAxisTest, OneValueIsInTheMiddleOfAFactorOfFour) {
  const LogAxis axis(3, 3, 0, 100);
  EXPECT_NEAR(axis.Position(3), 50, 1e-9);
  EXPECT_GT(axis.Position(1.5), 0);
  EXPECT_LT(axis.Position(6), 100);
}

TEST(LogAxisTest, LabelsAreRoundNumbersAndNotTooMany) {
  EXPECT_THAT(Labelled(LogAxis(1.5, 6, 0, 1)), ElementsAre(2, 3, 4, 5, 6));
  EXPECT_THAT(Labelled(LogAxis(1.5, 45, 0, 1)), ElementsAre(2, 5, 10, 20, 50));
  EXPECT_THAT(Labelled(LogAxis(0.00009, 0.12, 0, 1)), ElementsAre(0.0001, 0.001, 0.01, 0.1));
  // More than 20 decades with the room at the ends: every third.
  EXPECT_THAT(Labelled(LogAxis(1e-18, 1, 0, 1)), ElementsAre(1e-18, 1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 1));
}

TEST(LogAxisTest, EveryRangeHasLabels) {
  for (double low = 1e-9; low < 1e4; low *= 1.37) {
    for (double factor = 1; factor < 1e13; factor *= 2.9) {
      const size_t labels = Labelled(LogAxis(low, low * factor, 0, 1)).size();
      EXPECT_TRUE(labels >= 2 && labels <= 11) << low << " to " << low * factor << ": " << labels;
    }
  }
}

}  // namespace
}  // namespace quicksave::metrics
