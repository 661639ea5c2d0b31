#include "server/sidecar/training/sidecar_trainer.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <random>
#include <sstream>

namespace quicksave::server {
namespace {

using compressor::Architecture;

// Components that are a few hidden numbers, mixed: 12 and 8 of 3.
TrainingSet MixedSet(uint64_t seed, int runs) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  TrainingSet set{.groups = std::vector<std::vector<float>>(2)};
  for (int r = 0; r < runs; ++r) set.first_positions.push_back(4 + 128 * r);
  for (int64_t t = 0; t < set.tokens(); ++t) {
    const float hidden[3] = {3 * normal(random), 2 * normal(random), normal(random)};
    for (size_t g = 0; g < 2; ++g) {
      for (int k = 0; k < (g == 0 ? 12 : 8); ++k) {
        set.groups[g].push_back(hidden[k % 3] + 0.5f * hidden[(k + 1) % 3] + 0.1f * normal(random));
      }
    }
  }
  return set;
}

class SidecarTrainerTest : public testing::TestWithParam<Architecture> {
 protected:
  SidecarTrainerTest() { at::set_num_threads(1); }

  static TrainingOptions Options() {
    return {.shape = {.architecture = GetParam(), .hidden = 16, .latent_share = 0.5, .heads = 2},
            .learning_rate = 5e-3,
            .batch_tokens = 124,
            .epochs = 6,
            .patience = 0,
            .evaluations = 6};
  }

  std::string Trained(const TrainingOptions& options) const {
    SidecarTrainer trainer(train_, watch_, options);
    while (!trainer.done()) EXPECT_TRUE(trainer.Step().ok());
    std::ostringstream state;
    trainer.Save(state);
    return state.str();
  }

  const TrainingSet train_ = MixedSet(1, 6);
  const TrainingSet watch_ = MixedSet(2, 2);
};

INSTANTIATE_TEST_SUITE_P(Architectures, SidecarTrainerTest,
                         testing::Values(Architecture::kGrouped, Architecture::kConv, Architecture::kUnified,
                                         Architecture::kRecurrent),
                         [](const auto& one) { return std::string(NameOf(one.param)); });

TEST_P(SidecarTrainerTest, TrainingLowersTheLossOnTokensThatItDoesNotSee) {
  SidecarTrainer trainer(train_, watch_, Options());
  while (!trainer.done()) ASSERT_TRUE(trainer.Step().ok());
  const std::vector<TrainingRow>& history = trainer.history();
  ASSERT_GE(history.size(), 6u);
  EXPECT_LT(history.back().loss, 0.7 * history.front().loss);
  EXPECT_LT(history.back().relative_error, 0.7 * history.front().relative_error);
}

TEST_P(SidecarTrainerTest, EqualSeedsGiveEqualBitsAndOthersDoNot) {
  TrainingOptions options = Options();
  options.epochs = 1;
  const std::string first = Trained(options);
  EXPECT_EQ(Trained(options), first);
  options.seed = 2;
  EXPECT_NE(Trained(options), first);
}

TEST_P(SidecarTrainerTest, AResumedTrainingGivesTheSameBits) {
  TrainingOptions options = Options();
  options.epochs = 2;
  const std::string whole = Trained(options);
  std::string kept;
  int sessions = 0;
  for (bool done = false; !done; ++sessions) {
    SidecarTrainer trainer(train_, watch_, options);
    if (!kept.empty()) {
      std::istringstream stream(kept);
      ASSERT_TRUE(trainer.Load(stream).ok());
    }
    for (int steps = 0; steps < 5 && !trainer.done(); ++steps) ASSERT_TRUE(trainer.Step().ok());
    done = trainer.done();
    std::ostringstream stream;
    trainer.Save(stream);
    kept = stream.str();
  }
  EXPECT_GT(sessions, 1);
  EXPECT_EQ(kept, whole);
}

TEST_P(SidecarTrainerTest, DamagedCheckpointsAreRefused) {
  TrainingOptions options = Options();
  options.epochs = 1;
  const std::string kept = Trained(options);
  // Steps, what is worse since, rows, the best loss, rows, and tensors.
  for (const size_t place : {size_t{0}, size_t{3}, size_t{8}, size_t{16}, size_t{24}, size_t{31}, size_t{40},
                             kept.size() / 2, kept.size() - 1}) {
    std::string damaged = kept;
    damaged[place] = static_cast<char>(damaged[place] ^ 0x40);
    SidecarTrainer trainer(train_, watch_, options);
    std::istringstream stream(damaged);
    EXPECT_EQ(trainer.Load(stream).code(), absl::StatusCode::kDataLoss) << place;
  }
}

TEST_P(SidecarTrainerTest, ItStopsWhenItGetsNoBetter) {
  TrainingOptions options = Options();
  options.learning_rate = 1e-12;
  options.epochs = 50;
  options.evaluations = 100;
  options.patience = 2;
  SidecarTrainer trainer(train_, watch_, options);
  while (!trainer.done()) ASSERT_TRUE(trainer.Step().ok());
  EXPECT_LT(trainer.steps_done(), trainer.steps_wanted() / 2);
}

TEST_P(SidecarTrainerTest, AProgressiveTrainingGetsThere) {
  TrainingOptions options = Options();
  options.progressive = true;
  options.cosine_weight = 0.1;
  options.epochs = 10;
  SidecarTrainer trainer(train_, watch_, options);
  while (!trainer.done()) ASSERT_TRUE(trainer.Step().ok());
  EXPECT_LT(trainer.history().back().loss, 0.7 * trainer.history().front().loss);
}

TEST_P(SidecarTrainerTest, TheVariationalRateTrains) {
  TrainingOptions options = Options();
  options.rate = RateModel::kKl;
  SidecarTrainer trainer(train_, watch_, options);
  while (!trainer.done()) ASSERT_TRUE(trainer.Step().ok());
  EXPECT_LT(trainer.history().back().loss, 0.7 * trainer.history().front().loss);
}

TEST_P(SidecarTrainerTest, ALossThatIsNoNumberIsAnError) {
  TrainingOptions options = Options();
  options.learning_rate = 1e30;
  SidecarTrainer trainer(train_, watch_, options);
  absl::Status status;
  while (status.ok() && !trainer.done()) status = trainer.Step();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace quicksave::server
