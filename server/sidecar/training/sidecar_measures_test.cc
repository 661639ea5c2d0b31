#include "server/sidecar/training/sidecar_measures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace quicksave::server {
namespace {

TEST(AtRatioTest, IsStraightInTheLogarithms) {
  const std::vector<metrics::RateDistortionPoint> curve = {{.step = 1, .effective_ratio = 4, .mean_kl = 0.001},
                                                           {.step = 4, .effective_ratio = 16, .mean_kl = 0.1}};
  const absl::StatusOr<PointAtRatio> point = AtRatio(curve, 8);
  ASSERT_TRUE(point.ok()) << point.status();
  EXPECT_NEAR(point->step, 2, 1e-9);
  EXPECT_NEAR(point->mean_kl, 0.01, 1e-9);
  EXPECT_NEAR(AtRatio(curve, 16)->mean_kl, 0.1, 1e-9);
}

TEST(AtRatioTest, SaysNothingOfWhatWasNotMeasured) {
  const std::vector<metrics::RateDistortionPoint> curve = {{.step = 1, .effective_ratio = 4, .mean_kl = 0.001},
                                                           {.step = 4, .effective_ratio = 16, .mean_kl = 0.1}};
  for (const double ratio : {3.9, 16.1}) {
    EXPECT_EQ(AtRatio(curve, ratio).status().code(), absl::StatusCode::kFailedPrecondition) << ratio;
  }
}

}  // namespace
}  // namespace quicksave::server
