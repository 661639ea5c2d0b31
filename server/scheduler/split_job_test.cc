// Jobs that compute the first layers only, beside others.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/evaluate_job.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

using engine::LogitsWanted;
using Outcome = RecordingListener::Outcome;

constexpr int kPages = 900;

class SplitJobTest : public testing::Test {
 protected:
  std::shared_ptr<EvaluateJob> NewJob(std::vector<int32_t> tokens, int split, engine::Sequence sequence = {}) const {
    auto job = std::make_shared<EvaluateJob>(std::move(sequence), std::move(tokens), LogitsWanted::kNone, nullptr);
    job->set_split(split);
    job->set_taps(engine::Taps({.layers = {split}, .all_tokens = true}, environment_.decoder->config().hidden_size));
    return job;
  }

  // What a whole forward pass gives.
  struct Whole {
    engine::Sequence sequence;
    std::vector<float> logits;
    engine::Taps taps;
  };
  Whole Compute(const std::vector<int32_t>& tokens) {
    Whole whole;
    environment_.scheduler->AtStepBoundary([&] {
      engine::Decoder& decoder = *environment_.decoder;
      engine::PagePool& pool = *environment_.pool;
      whole.logits = engine::FeedTokens(decoder, pool, whole.sequence, tokens, LogitsWanted::kAll, 1000);
      whole.taps = engine::CaptureTaps(decoder, pool, tokens, engine::AllTapLayers(decoder.config()));
    });
    return whole;
  }

  void ExpectReplayed(EvaluateJob& job, const std::vector<int32_t>& tokens, int split) {
    const Whole whole = Compute(tokens);
    EXPECT_EQ(job.sequence().tokens(), tokens);
    EXPECT_EQ(engine::KeyValueBits(job.sequence(), 0, split + 1), engine::KeyValueBits(whole.sequence, 0, split + 1));
    EXPECT_TRUE(engine::SameBits(engine::TapRows(job.captured(), 0), engine::TapRows(whole.taps, split)));
    // The pool fills new pages with ones.
    const std::vector<uint16_t> rest =
        engine::KeyValueBits(job.sequence(), split + 1, environment_.decoder->config().layers);
    EXPECT_THAT(rest, testing::Each(0xffff)) << "layers after the split were computed";
  }

  SchedulerEnvironment environment_{kPages, {.prefill_rows = 50, .mixed_prefill_rows = 24}};
};

TEST_F(SplitJobTest, JobsOfAllKindsSideBySideGiveWhatTheyGiveAlone) {
  const std::vector<GenerateOptions> generations = {Options(TextTokens(5, 1), 60), Options(TextTokens(130, 2), 40)};
  std::vector<Outcome> alone;
  for (const GenerateOptions& options : generations) {
    alone.push_back(environment_.Generate({.sampling = {.temperature = 0.9F, .seed = 7}}, options));
    ASSERT_TRUE(alone.back().status.ok()) << alone.back().status;
  }
  const std::vector<int32_t> scored_tokens = TextTokens(170, 3);
  std::vector<float> scored;
  const auto score = std::make_shared<EvaluateJob>(
      engine::Sequence(), scored_tokens, LogitsWanted::kAll,
      [&](size_t, absl::Span<const float> rows) { scored.insert(scored.end(), rows.begin(), rows.end()); });
  std::vector<std::shared_ptr<EvaluateJob>> replays;
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  {
    const EngineHold hold(environment_.scheduler.get());
    // Clients of their own, so that all take part in the same steps.
    const auto submit = [&](const std::shared_ptr<Job>& job, int tokens) {
      job->client = std::to_string(replays.size() + listeners.size());
      ASSERT_TRUE(environment_.scheduler->Submit(job, tokens).ok());
    };
    for (int i = 0; i < 6; ++i) {
      // Some end with a single token, which comes among those of decode.
      replays.push_back(NewJob(TextTokens(97 + 24 * i, 10 + i), i % 2));
      submit(replays.back(), replays.back()->count());
    }
    submit(score, score->count());
    for (const GenerateOptions& options : generations) {
      listeners.push_back(std::make_shared<RecordingListener>());
      const auto job = environment_.NewJob({.sampling = {.temperature = 0.9F, .seed = 7}}, options, listeners.back());
      submit(job, job->max_appended());
    }
  }
  for (size_t i = 0; i < generations.size(); ++i) {
    const Outcome together = listeners[i]->Await();
    EXPECT_EQ(together.ids(), alone[i].ids());
    EXPECT_TRUE(SameSequence(together.state.sequence, alone[i].state.sequence));
  }
  ASSERT_TRUE(score->Await().ok());
  EXPECT_TRUE(engine::SameBits(scored, Compute(scored_tokens).logits));
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(replays[i]->Await().ok());
    ExpectReplayed(*replays[i], TextTokens(97 + 24 * i, 10 + i), i % 2);
  }
}

TEST_F(SplitJobTest, GoesOnFromTokensThatAreThere) {
  const std::vector<int32_t> tokens = TextTokens(120, 4);
  const std::vector<int32_t> first(tokens.begin(), tokens.begin() + 4);
  const std::vector<int32_t> rest(tokens.begin() + 4, tokens.end());
  const auto begin = std::make_shared<EvaluateJob>(engine::Sequence(), first, LogitsWanted::kNone, nullptr);
  ASSERT_TRUE(environment_.scheduler->Run(begin, 4).ok());
  for (const int split : {0, 1}) {
    const auto job = NewJob(rest, split, begin->sequence());
    ASSERT_TRUE(environment_.scheduler->Run(job, job->count()).ok());
    const Whole whole = Compute(tokens);
    EXPECT_EQ(engine::KeyValueBits(job->sequence(), 0, split + 1), engine::KeyValueBits(whole.sequence, 0, split + 1));
    EXPECT_EQ(job->captured().extent().first_token, 4);
    for (int token = 4; token < 120; ++token) {
      EXPECT_TRUE(engine::SameBits(job->captured().Row(0, token), whole.taps.Row(split, token))) << token;
    }
  }
}

TEST_F(SplitJobTest, NeverHasLogitsWhateverWasWanted) {
  const auto consumer = [](size_t, absl::Span<const float>) { ADD_FAILURE() << "logits of a split job"; };
  for (const LogitsWanted wanted : {LogitsWanted::kLast, LogitsWanted::kAll}) {
    const auto job = std::make_shared<EvaluateJob>(engine::Sequence(), TextTokens(60, 5), wanted, consumer);
    job->set_split(1);
    EXPECT_TRUE(environment_.scheduler->Run(job, job->count()).ok());
    EXPECT_EQ(job->sequence().length(), 60);
  }
}

TEST_F(SplitJobTest, EndsAsOthersDoWhenItsCallerGivesUp) {
  const auto cancelled = NewJob(TextTokens(400, 6), 1);
  cancelled->set_cancelled([steps = 0]() mutable { return ++steps > 2; });
  EXPECT_EQ(environment_.scheduler->Run(cancelled, 400).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(cancelled->sequence().length(), 100);
  EXPECT_EQ(cancelled->captured().extent().token_count, 100);
  const auto late = NewJob(TextTokens(400, 6), 1);
  late->deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(environment_.scheduler->Run(late, 400).code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace quicksave::server
