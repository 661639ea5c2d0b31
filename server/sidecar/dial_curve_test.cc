#include "server/sidecar/dial_curve.h"

#include <cmath>

#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

// A curve whose divergence is the step's square, in thousandths.
std::vector<metrics::RateDistortionPoint> SquareCurve() {
  std::vector<metrics::RateDistortionPoint> curve;
  for (const double step : {0.5, 1.0, 2.0, 4.0}) {
    curve.push_back({.step = step, .effective_ratio = 4 * std::sqrt(step), .mean_kl = 0.001 * step * step});
  }
  return curve;
}

TEST(DialCurveTest, PointsLieWhereTheCurveHasTheirDivergence) {
  const std::vector<compressor::DialPoint> points = NamedPoints(SquareCurve());
  ASSERT_EQ(points.size(), 3u);
  const double divergences[] = {0.0005, 0.002, 0.008};
  const char* const names[] = {"fine", "default", "small"};
  for (size_t i = 0; i < points.size(); ++i) {
    const double step = std::sqrt(divergences[i] / 0.001);
    EXPECT_EQ(points[i].name, names[i]);
    EXPECT_NEAR(points[i].step, step, 1e-5 * step);
    EXPECT_NEAR(points[i].ratio, 4 * std::sqrt(step), 1e-5);
    EXPECT_NEAR(points[i].mean_kl, divergences[i], 1e-9);
  }
}

TEST(DialCurveTest, BeyondTheEndsItGoesOnNotFurtherThanAPiece) {
  std::vector<metrics::RateDistortionPoint> curve = SquareCurve();
  for (metrics::RateDistortionPoint& point : curve) point.mean_kl *= 1e-4;
  // All of the curve is below every named divergence.
  const std::vector<compressor::DialPoint> points = NamedPoints(curve);
  EXPECT_NEAR(points[2].step, 8, 1e-3);
  EXPECT_LT(points[2].mean_kl, 0.008);
}

TEST(DialCurveTest, ACurveWithoutDivergenceGivesStepsAllTheSame) {
  std::vector<metrics::RateDistortionPoint> curve = SquareCurve();
  for (metrics::RateDistortionPoint& point : curve) point.mean_kl = 0;
  for (const compressor::DialPoint& point : NamedPoints(curve)) {
    EXPECT_TRUE(std::isfinite(point.step) && point.step > 0) << point.step;
    EXPECT_TRUE(std::isfinite(point.mean_kl)) << point.mean_kl;
  }
}

TEST(DialCurveTest, LengthsFitThePiece) {
  EXPECT_EQ(CurveLengthsOf(1024).context, 512);
  EXPECT_EQ(CurveLengthsOf(1024).continuation, 128);
  EXPECT_EQ(CurveLengthsOf(64).context, 48);
  EXPECT_EQ(CurveLengthsOf(64).continuation, 16);
}

}  // namespace
}  // namespace quicksave::server
