#include "server/sidecar/training/bridge.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "server/sidecar/metrics/state_distance.h"

namespace quicksave::server {
namespace {

constexpr int kWidth = 24;

// Rows that three numbers say, around a mean, and some noise.
std::vector<float> LowRankRows(int count, float noise, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> rows;
  for (int r = 0; r < count; ++r) {
    const float hidden[3] = {4 * normal(random), 2 * normal(random), normal(random)};
    for (int i = 0; i < kWidth; ++i) {
      const int period = i / 3;
      rows.push_back(2 + hidden[i % 3] * static_cast<float>(1 + period) * 0.3f + noise * normal(random));
    }
  }
  return rows;
}

double Error(const Bridge& bridge, const std::vector<float>& rows) {
  return metrics::RelativeMse(rows, bridge.Restore(rows)).value();
}

class BridgeTest : public testing::Test {
 protected:
  BridgeTest() { at::set_num_threads(1); }

  const std::vector<float> train_ = LowRankRows(800, 0.1f, 1);
  const std::vector<float> held_out_ = LowRankRows(200, 0.1f, 2);
};

TEST_F(BridgeTest, PrincipalComponentsRestoreWhatIsOfTheirRank) {
  const std::vector<float> rows = LowRankRows(100, 0, 3);
  EXPECT_LT(Error(PrincipalBridge(rows, kWidth, 3), rows), 1e-9);
  EXPECT_GT(Error(PrincipalBridge(rows, kWidth, 2), rows), 1e-3);
}

TEST_F(BridgeTest, TrainingGetsNearPrincipalComponentsAndNotBelowThem) {
  const double least = Error(PrincipalBridge(train_, kWidth, 3), train_);
  BridgeOptions options{.rank = 3, .epochs = 60, .batch = 64, .learning_rate = 1e-2};
  for (const BridgeLoss loss : {BridgeLoss::kSquared, BridgeLoss::kSquaredAndCosine, BridgeLoss::kProgressive}) {
    options.loss = loss;
    const Bridge bridge = TrainBridge(train_, kWidth, options);
    EXPECT_GE(Error(bridge, train_), least);
    EXPECT_LT(Error(bridge, held_out_), 3 * least) << NameOf(loss);
  }
}

TEST_F(BridgeTest, MoreTrainingHasALowerError) {
  BridgeOptions options{.rank = 3, .epochs = 1, .batch = 64};
  const double little = Error(TrainBridge(train_, kWidth, options), held_out_);
  options.epochs = 20;
  EXPECT_LT(Error(TrainBridge(train_, kWidth, options), held_out_), 0.7 * little);
}

TEST_F(BridgeTest, EqualSeedsGiveEqualBridgesAndOthersDoNot) {
  BridgeOptions options{.rank = 3, .epochs = 2};
  const Bridge first = TrainBridge(train_, kWidth, options);
  EXPECT_EQ(TrainBridge(train_, kWidth, options).up, first.up);
  options.seed = 2;
  EXPECT_NE(TrainBridge(train_, kWidth, options).up, first.up);
}

}  // namespace
}  // namespace quicksave::server
