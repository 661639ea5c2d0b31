#include "server/archive/restore_plan.h"

#include <limits>
#include <memory>

#include "compressor/replay_codec.h"
#include "gtest/gtest.h"
#include "server/archive/restore_costs.h"

namespace quicksave::server {
namespace {

constexpr int kLayers = 30;

// A node that was saved and has an encoding that is computed again; a machine that takes times of its own.
class RestorePlanTest : public testing::Test {
 protected:
  RestorePlanTest() {
    storage::v1::NodeContents& contents = *record_.mutable_contents();
    storage::v1::Encoding& replay = *contents.add_encodings();
    replay.set_codec(compressor::kReplayCodec);
    for (int first = 0; first < kTokens; first += 128) {
      storage::BlockRef& saved = *contents.add_blocks();
      saved.set_first_token(first);
      saved.set_token_count(128);
      saved.set_codec("exact");
      *replay.add_blocks() = saved;
      replay.mutable_blocks()->rbegin()->set_codec("replay-1");
    }
  }

  RestoreSource Choose(int tokens = kTokens) const {
    const auto source = ChooseSource(record_, tokens, kLayers, {}, profiles_, costs_);
    EXPECT_TRUE(source.ok()) << source.status();
    return *source;
  }
  bool ChoosesSaved(int tokens = kTokens) const { return Choose(tokens).encoding == nullptr; }
  // Restores what is chosen, `slower` than the machine does when nothing else runs.
  void Restore(double slower = 1, int tokens = kTokens) {
    now_ += absl::Milliseconds(100);
    const RestoreSource source = Choose(tokens);
    if (source.replay_end == 0) {
      costs_.NoteRead(source, tokens, (read_constant_ + tokens * read_token_) * slower);
    } else {
      costs_.NoteReplay(source.replay_end, source.layers_share(kLayers), tokens * replayed_token_ * slower);
      costs_.NoteRead(source, tokens, tokens * absl::Microseconds(10) * slower);
    }
  }

  static constexpr int kTokens = 1024;
  storage::NodeRecord record_;
  const LatentProfiles profiles_{nullptr, "", {}, 0};
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  RestoreCosts costs_{std::numeric_limits<double>::infinity(), [this] { return now_; }};
  absl::Duration read_constant_ = absl::Milliseconds(1);
  absl::Duration read_token_ = absl::Microseconds(30);
  absl::Duration replayed_token_ = absl::Microseconds(300);
};

TEST_F(RestorePlanTest, WhatIsSavedIsReadWhereThatIsSooner) {
  for (int i = 0; i < 10; ++i) Restore();
  EXPECT_TRUE(ChoosesSaved());
  EXPECT_NEAR(absl::ToDoubleMilliseconds(Choose().estimate), 1 + 1024 * 0.03, 3);
}

TEST_F(RestorePlanTest, AConstantMakesSmallRestoresSlow) {
  read_constant_ = absl::Milliseconds(80);
  for (int i = 0; i < 20; ++i) Restore(1, i % 2 == 0 ? 128 : 1024);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(Choose(128).estimate), 84, 12);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(Choose(1024).estimate), 111, 16);
}

// Of times of a tenth of the length.
TEST(RestoreCostsTest, RecomputingIsEstimatedWithItsAttention) {
  constexpr double kParity = 3000;
  absl::Time now = absl::FromUnixSeconds(1'000'000);
  RestoreCosts costs(kParity, [&now] { return now; });
  const auto time_of = [](int tokens) {
    return absl::Milliseconds(25) + absl::Microseconds(900) * tokens * (1 + tokens / 2.0 / kParity);
  };
  for (int i = 0; i < 30; ++i) {
    now += absl::Milliseconds(100);
    const int tokens = 100 + i * 100 % 700;
    costs.NoteReplay(tokens, 1, time_of(tokens));
  }
  const RestoreSource source{.replay_end = 7000};
  const double expected = absl::ToDoubleSeconds(time_of(7000));
  EXPECT_NEAR(absl::ToDoubleSeconds(costs.Estimate(source, 7000, 1)), expected, 0.1 * expected);
}

TEST_F(RestorePlanTest, OneSlowRestoreDoesNotChangeThePlan) {
  for (int i = 0; i < 10; ++i) Restore();
  Restore(50);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(ChoosesSaved()) << i;
    Restore();
  }
}

TEST_F(RestorePlanTest, ABusyMachineIsForgotten) {
  for (int i = 0; i < 10; ++i) Restore();
  // All that is read meanwhile is slow, until computing seems sooner.
  for (int i = 0; i < 30 && ChoosesSaved(); ++i) Restore(100);
  ASSERT_FALSE(ChoosesSaved());
  int replays = 0;
  for (; !ChoosesSaved() && replays < 1000; ++replays) {
    now_ += absl::Seconds(10);
    Restore();
  }
  EXPECT_LT(replays, 120) << "20 minutes";
  for (int i = 0; i < 10; ++i) {
    Restore();
    EXPECT_TRUE(ChoosesSaved()) << i;
  }
}

TEST_F(RestorePlanTest, CostsThatChangeForGoodChangeThePlanForGood) {
  for (int i = 0; i < 10; ++i) Restore();
  read_token_ = absl::Milliseconds(3);
  int slow = 0;
  for (; ChoosesSaved() && slow < 100; ++slow) Restore();
  EXPECT_LE(slow, 10);
  // It is tried again now and then, and no more often than that.
  int tried = 0;
  for (int i = 0; i < 600; ++i) {
    now_ += absl::Seconds(6);
    tried += ChoosesSaved() ? 1 : 0;
    Restore();
  }
  EXPECT_LE(tried, 30) << "in an hour";
}

}  // namespace
}  // namespace quicksave::server
