// Hidden states that generations capture.
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/scheduler/generate_job.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

using Outcome = RecordingListener::Outcome;

class GenerateTapsTest : public testing::Test {
 protected:
  engine::Taps NewTaps(bool all_tokens) {
    return {{.layers = engine::AllTapLayers(environment_.decoder->config()), .all_tokens = all_tokens},
            environment_.decoder->config().hidden_size};
  }
  SessionState Tapped(SessionState state, bool all_tokens) {
    state.taps = NewTaps(all_tokens);
    return state;
  }
  // Whether a state has the hidden states of exactly its tokens from `first` on, bit for bit.
  testing::AssertionResult HasTapsFrom(const SessionState& state, int first) {
    const std::vector<int32_t>& tokens = state.sequence.tokens();
    const engine::TapExtent extent = state.taps.extent();
    const int end = extent.first_token + extent.token_count;
    if (extent.first_token != first || end != static_cast<int>(tokens.size())) {
      return testing::AssertionFailure() << "tokens " << extent.first_token << " to " << end << " of " << tokens.size();
    }
    engine::Taps expected;
    environment_.scheduler->AtStepBoundary([&] {
      expected = engine::CaptureTaps(*environment_.decoder, *environment_.pool, tokens, state.taps.layers());
    });
    for (int token = first; token < end; ++token) {
      if (!engine::SameTaps(state.taps, expected, token)) return testing::AssertionFailure() << "token " << token;
    }
    return testing::AssertionSuccess();
  }

  SchedulerEnvironment environment_;
  // Random, so that the text varies.
  const SessionState start_{.sampling = {.temperature = 0.8F, .seed = 3}};
};

TEST_F(GenerateTapsTest, AllHasInputAndGeneratedTokens) {
  const Outcome outcome = environment_.Generate(Tapped(start_, true), Options(TextTokens(200, 1), 30));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(HasTapsFrom(outcome.state, 0));
  const Outcome plain = environment_.Generate(start_, Options(TextTokens(200, 1), 30));
  EXPECT_EQ(outcome.text, plain.text);
  EXPECT_TRUE(SameSequence(outcome.state.sequence, plain.state.sequence)) << "capturing changes nothing else";
  EXPECT_FALSE(plain.state.taps.on());
}

TEST_F(GenerateTapsTest, LastHasTheLastTokenWhateverTheLength) {
  for (const int count : {0, 1, 17}) {
    const Outcome outcome = environment_.Generate(Tapped(start_, false), Options(TextTokens(150, 1), count));
    EXPECT_TRUE(HasTapsFrom(outcome.state, 150 + count - 1)) << count;
  }
}

TEST_F(GenerateTapsTest, GoingOnAddsToWhatIsThere) {
  Outcome outcome = environment_.Generate(Tapped(start_, true), Options(TextTokens(20, 1), 5));
  const SessionState before = outcome.state;
  outcome = environment_.Generate(before, Options({}, 30));
  EXPECT_TRUE(HasTapsFrom(outcome.state, 0));
  const Outcome other = environment_.Generate(before, Options(TextTokens(30, 9), 3));
  EXPECT_TRUE(HasTapsFrom(other.state, 0));
  EXPECT_TRUE(HasTapsFrom(before, 0)) << "the state that was given is left alone";
}

TEST_F(GenerateTapsTest, TapsThatAreSetLaterBeginThere) {
  const SessionState state = environment_.Generate(start_, Options(TextTokens(20, 1), 5)).state;
  const Outcome input = environment_.Generate(Tapped(state, true), Options(TextTokens(10, 2), 5));
  EXPECT_TRUE(HasTapsFrom(input.state, 25));
  // Without input the last token is evaluated once more, also when nothing is generated.
  for (const bool all : {false, true}) {
    EXPECT_TRUE(HasTapsFrom(environment_.Generate(Tapped(state, all), Options({}, 0)).state, 24));
  }
  EXPECT_TRUE(HasTapsFrom(environment_.Generate(Tapped(state, true), Options({}, 4)).state, 24));
}

TEST_F(GenerateTapsTest, ARewoundStateHasTapsToItsEnd) {
  SessionState state = environment_.Generate(Tapped(start_, true), Options(TextTokens(20, 1), 30)).state;
  const std::vector<int32_t> all = state.sequence.tokens();
  state.text = {.detokenizer = {35, 35, 0}};
  state.sequence.Truncate(35);
  state.taps.Truncate(35);
  EXPECT_TRUE(HasTapsFrom(state, 0));
  const Outcome outcome = environment_.Generate(state, Options({}, 15));
  EXPECT_EQ(outcome.state.sequence.tokens(), all);
  EXPECT_TRUE(HasTapsFrom(outcome.state, 0));
}

TEST_F(GenerateTapsTest, AJobSaysWhatItsStateHas) {
  SessionState rewound = environment_.Generate(Tapped(start_, true), Options(TextTokens(20, 1), 30)).state;
  rewound.text = {.detokenizer = {35, 35, 0}};
  rewound.sequence.Truncate(35);
  rewound.taps.Truncate(35);
  const SessionState plain = environment_.Generate(start_, Options(TextTokens(20, 1), 5)).state;
  const SessionState last = environment_.Generate(Tapped(start_, false), Options(TextTokens(20, 1), 5)).state;
  struct Case {
    SessionState state;
    std::vector<int32_t> input;
    int first;  // in the end
  };
  for (const Case& given : std::vector<Case>{{rewound, {}, 0},
                                             {rewound, TextTokens(3, 2), 0},
                                             {Tapped(plain, true), {}, 24},
                                             {Tapped(plain, true), TextTokens(3, 2), 25},
                                             {Tapped(plain, false), {}, -1},
                                             {last, TextTokens(3, 2), -1}}) {
    const auto listener = std::make_shared<RecordingListener>();
    const auto job = environment_.NewJob(given.state, Options(given.input, 2), listener);
    EXPECT_EQ(job->tap_extent(), given.state.taps.extent()) << "nothing was evaluated yet";
    ASSERT_TRUE(environment_.scheduler->Submit(job, job->max_appended()).ok());
    const Outcome outcome = listener->Await();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(job->tap_extent(), outcome.state.taps.extent());
    const int first = given.first < 0 ? outcome.state.sequence.length() - 1 : given.first;
    EXPECT_TRUE(HasTapsFrom(outcome.state, first));
  }
}

TEST_F(GenerateTapsTest, CheckpointsAndCapturesHaveThoseOfTheirTokens) {
  GenerateOptions options = Options(TextTokens(20, 1), 30);
  options.checkpoint_tokens = 7;
  const Outcome outcome = environment_.Generate(Tapped(start_, true), options);
  ASSERT_EQ(outcome.checkpoints.size(), 4u);
  for (const SessionState& checkpoint : outcome.checkpoints) EXPECT_TRUE(HasTapsFrom(checkpoint, 0));
}

TEST_F(GenerateTapsTest, ManyJobsAtOnceHaveTheirOwn) {
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  for (int i = 0; i < 12; ++i) {
    listeners.push_back(std::make_shared<RecordingListener>());
    const SessionState state = i % 3 == 2 ? start_ : Tapped(start_, i % 3 == 0);
    const auto job = environment_.NewJob(state, Options(TextTokens(5 + 20 * i, i), 20), listeners.back());
    ASSERT_TRUE(environment_.scheduler->Submit(job, job->max_appended()).ok());
  }
  for (int i = 0; i < 12; ++i) {
    const Outcome outcome = listeners[i]->Await();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    if (i % 3 == 2) {
      EXPECT_FALSE(outcome.state.taps.on());
    } else {
      EXPECT_TRUE(HasTapsFrom(outcome.state, i % 3 == 0 ? 0 : outcome.state.sequence.length() - 1)) << i;
    }
  }
}

TEST_F(GenerateTapsTest, AJobThatIsCancelledBeforeItBeginsLeavesEverythingAsItWas) {
  const SessionState state = environment_.Generate(Tapped(start_, true), Options(TextTokens(20, 1), 5)).state;
  const auto listener = std::make_shared<RecordingListener>();
  {
    const EngineHold hold(environment_.scheduler.get());
    const auto job = environment_.NewJob(Tapped(state, false), Options({}, 5), listener);
    ASSERT_TRUE(environment_.scheduler->Submit(job, job->max_appended()).ok());
    EXPECT_EQ(job->Capture().sequence.tokens(), state.sequence.tokens());
    job->Cancel();
  }
  const Outcome cancelled = listener->Await();
  EXPECT_EQ(cancelled.status.code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(SameSequence(cancelled.state.sequence, state.sequence));
  EXPECT_EQ(cancelled.state.taps.extent().token_count, 0);
}

// To have its hidden states a token is fed again, between the pieces of a text; the text stays what it is.
TEST_F(GenerateTapsTest, TextInPiecesWithNewTapsEachIsThatOfAnUninterruptedRun) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  for (int round = 0; round < 30; ++round) {
    const SessionState start{.sampling = {.temperature = 0.8F, .seed = random()}};
    GenerateOptions options = Options(TextTokens(1 + static_cast<int>(random() % 40), random()), 40);
    options.stop_strings = {"ab!", "xyz", "  "};
    const Outcome whole = environment_.Generate(start, options);
    SessionState state = start;
    std::string text;
    Outcome piece;
    int left = 40;
    do {
      options.max_tokens = options.max_appended = std::min<int>(left, static_cast<int>(random() % 10));
      state = Tapped(std::move(state), random() % 2 == 0);
      piece = environment_.Generate(state, options);
      ASSERT_TRUE(piece.status.ok()) << piece.status;
      text += piece.text;
      left -= piece.result.generated_tokens;
      state = piece.state;
      options.input.clear();
    } while (left > 0 && piece.result.reason == FinishReason::kMaxTokens);
    EXPECT_EQ(text, whole.text);
    EXPECT_EQ(piece.result.pending_text, whole.result.pending_text);
    EXPECT_EQ(state.text.held_text, whole.state.text.held_text);
    EXPECT_TRUE(SameSequence(state.sequence, whole.state.sequence));
    ASSERT_TRUE(state.taps.Has(state.sequence.length() - 1));
  }
}

}  // namespace
}  // namespace quicksave::server
