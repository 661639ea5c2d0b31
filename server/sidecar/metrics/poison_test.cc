#include "server/sidecar/metrics/poison.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/sidecar/metrics/divergence.h"
#include "server/sidecar/metrics/state_distance.h"

namespace quicksave::metrics {
namespace {

using ::testing::HasSubstr;

TEST(PoisonTest, CountsWhatWasNotWritten) {
  std::vector<float> values(10);
  FillWithPoison(absl::MakeSpan(values));
  EXPECT_EQ(CountPoison(values), 10u);
  values[3] = 0;
  values[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(CountPoison(values), 8u);
  std::vector<uint16_t> bits(10);
  FillWithPoison(absl::MakeSpan(bits));
  EXPECT_EQ(CountPoison(bits), 10u);
  bits[9] = 0x7fc0;  // another NaN
  EXPECT_EQ(CountPoison(bits), 9u);
}

TEST(PoisonTest, NoMetricMakesAFigureOfIt) {
  const std::vector<float> good = {1, 2, 3, 5};
  std::vector<float> poisoned = good;
  FillWithPoison(absl::MakeSpan(poisoned).subspan(3));
  EXPECT_TRUE(std::isnan(poisoned[3] * 0));
  EXPECT_FALSE(MeanSquaredError(good, poisoned).ok());
  EXPECT_FALSE(CosineSimilarity({good, 2}, {poisoned, 2}).ok());
  EXPECT_FALSE(LinearCka({good, 2}, {poisoned, 2}).ok());
  EXPECT_FALSE(KlDivergence(good, poisoned).ok());
}

TEST(PoisonTest, Bfloat16PoisonIsNoNumberEither) {
  uint16_t bits = 0;
  FillWithPoison(absl::MakeSpan(&bits, 1));
  EXPECT_EQ(bits & 0x7f80, 0x7f80);
  EXPECT_NE(bits & 0x7f, 0);
}

TEST(NegativeControlTest, AControlThatDoesNotFailMakesTheRunWorthless) {
  EXPECT_TRUE(CheckNegativeControls({{"zeroed", 4.46}, {"another node's", 0.84}}).ok());
  const absl::Status status = CheckNegativeControls({{"zeroed", 4.46}, {"another node's", 0.0017}});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'another node's' has KL 0.0017"));
  EXPECT_TRUE(CheckNegativeControls({{"another node's", 0.0017}}, 0.001).ok());
}

TEST(NegativeControlTest, NoControlAndNoFigureAreNoPass) {
  EXPECT_EQ(CheckNegativeControls({}).code(), absl::StatusCode::kFailedPrecondition);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(CheckNegativeControls({{"zeroed", nan}}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace quicksave::metrics
