#include "server/service/scheduler_replayer.h"

#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

using testing::HasSubstr;

constexpr int kPages = 100;
// Computed by all layers, as an encoding that keeps its first tokens exact wants it.
constexpr int kFirst = 4;

class SchedulerReplayerTest : public testing::Test {
 protected:
  const engine::ModelConfig& config() const { return environment_.decoder->config(); }
  SchedulerReplayer NewReplayer(CallContext call = {}) const {
    return {environment_.scheduler.get(), config(), std::move(call)};
  }
  engine::Sequence Whole(const std::vector<int32_t>& tokens) {
    engine::Sequence sequence;
    environment_.scheduler->AtStepBoundary([&] {
      engine::FeedTokens(*environment_.decoder, *environment_.pool, sequence, tokens, engine::LogitsWanted::kNone);
    });
    return sequence;
  }
  int FreePages() {
    // The engine thread lets go of a job after its caller has heard of its end.
    environment_.scheduler->AtStepBoundary([] {});
    return environment_.pool->free_pages();
  }

  SchedulerEnvironment environment_{kPages, {.prefill_rows = 50}};
};

TEST_F(SchedulerReplayerTest, FirstTokensAndASplitGiveTheirLayersAndTheHiddenStatesBetween) {
  const std::vector<int32_t> tokens = TextTokens(200, 1);
  const auto span = absl::MakeConstSpan(tokens);
  const engine::Sequence whole = Whole(tokens);
  engine::Taps expected;
  environment_.scheduler->AtStepBoundary([&] {
    expected = engine::CaptureTaps(*environment_.decoder, *environment_.pool, tokens, engine::AllTapLayers(config()));
  });
  for (int split = 0; split < config().layers; ++split) {
    SchedulerReplayer replayer = NewReplayer();
    engine::Sequence sequence;
    engine::PageReservation pages = environment_.pool->Reserve(engine::PagesFor(200) + 1).value();
    const auto none = replayer.Replay(span.subspan(0, kFirst), {}, sequence, pages);
    ASSERT_TRUE(none.ok()) << none.status();
    EXPECT_FALSE(none->on());
    const auto taps = replayer.Replay(span.subspan(kFirst), {split}, sequence, pages);
    ASSERT_TRUE(taps.ok()) << taps.status();
    EXPECT_EQ(sequence.tokens(), tokens);
    EXPECT_EQ(engine::KeyValueBits(sequence, 0, split + 1), engine::KeyValueBits(whole, 0, split + 1));
    for (int token = 0; token < kFirst; ++token) EXPECT_TRUE(engine::SameKeyValues(sequence, whole, token));
    EXPECT_EQ(taps->extent().first_token, kFirst);
    for (int token = kFirst; token < 200; ++token) {
      ASSERT_TRUE(engine::SameBits(taps->Row(0, token), expected.Row(split, token))) << token;
    }
  }
}

TEST_F(SchedulerReplayerTest, PagesThatWereNotTakenStayReserved) {
  SchedulerReplayer replayer = NewReplayer();
  const std::vector<int32_t> tokens = TextTokens(100, 2);
  engine::Sequence sequence;
  engine::PageReservation pages = environment_.pool->Reserve(20).value();
  const std::byte* first_page = nullptr;
  for (const int begin : {0, 50}) {
    ASSERT_TRUE(replayer.Replay(absl::MakeConstSpan(tokens).subspan(begin, 50), {1}, sequence, pages).ok());
    if (begin == 0) first_page = sequence.pages().front().data();
  }
  EXPECT_EQ(sequence.pages().size(), 7u);
  EXPECT_EQ(sequence.pages().front().data(), first_page);
  EXPECT_EQ(pages.pages(), 13) << "the page in the middle was copied";
  sequence = {};
  pages = {};
  EXPECT_EQ(FreePages(), kPages);
}

TEST_F(SchedulerReplayerTest, EndsWithItsCallAndGivesBackWhatItWasGiven) {
  int steps = 0;
  CallContext gives_up{.cancelled = [&steps] { return ++steps > 2; }};
  const CallContext late{.deadline = absl::Now() - absl::Seconds(1)};
  const std::vector<int32_t> tokens = TextTokens(400, 3);
  engine::Sequence sequence;
  engine::PageReservation pages = environment_.pool->Reserve(60).value();
  const auto cancelled = NewReplayer(gives_up).Replay(tokens, {1}, sequence, pages);
  EXPECT_EQ(cancelled.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sequence.length(), 100);
  EXPECT_EQ(sequence.pages().size() + pages.pages(), 60u);
  const auto ended = NewReplayer(late).Replay(absl::MakeConstSpan(tokens).subspan(100), {1}, sequence, pages);
  EXPECT_EQ(ended.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sequence.length(), 100);

  environment_.scheduler->Shutdown();
  const auto refused = NewReplayer().Replay(absl::MakeConstSpan(tokens).subspan(100), {1}, sequence, pages);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sequence.length(), 100) << "a refused job's sequence was lost";
  EXPECT_EQ(sequence.pages().size() + pages.pages(), 60u);
}

TEST_F(SchedulerReplayerTest, WhatTheModelCannotComputeIsRefused) {
  SchedulerReplayer replayer = NewReplayer();
  engine::Sequence sequence;
  engine::PageReservation pages = environment_.pool->Reserve(50).value();
  const auto refusal = [&](const std::vector<int32_t>& tokens, const std::vector<int>& splits) {
    const absl::Status status = replayer.Replay(tokens, splits, sequence, pages).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_EQ(sequence.length(), 0);
    EXPECT_EQ(pages.pages(), 50);
    return std::string(status.message());
  };
  const std::vector<int32_t> tokens = TextTokens(10, 4);
  EXPECT_THAT(refusal(tokens, {config().layers}), HasSubstr("layer 2 of a model with 2 layers"));
  EXPECT_THAT(refusal(tokens, {-1}), HasSubstr("layer -1"));
  EXPECT_THAT(refusal({5, config().vocab_size}, {0}), HasSubstr("token id 300"));
  EXPECT_THAT(refusal({-1}, {}), HasSubstr("token id -1"));
  EXPECT_THAT(refusal(TextTokens(config().context_length + 1, 5), {1}), HasSubstr("exceeds the context length"));
}

TEST_F(SchedulerReplayerTest, NoTokensAreNothingToDo) {
  engine::Sequence sequence = Whole(TextTokens(20, 6));
  engine::PageReservation pages;
  const auto taps = NewReplayer().Replay({}, {1}, sequence, pages);
  ASSERT_TRUE(taps.ok()) << taps.status();
  EXPECT_EQ(taps->extent().token_count, 0);
  EXPECT_EQ(sequence.length(), 20);
}

}  // namespace
}  // namespace quicksave::server
