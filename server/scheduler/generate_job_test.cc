#include "server/scheduler/generate_job.h"

#include <algorithm>
#include <iostream>
#include <random>
#include <regex>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/testing/scheduler_environment.h"
#include "server/text/test_models.h"

namespace quicksave::server {
namespace {

using Outcome = RecordingListener::Outcome;

class GenerateJobTest : public testing::Test {
 protected:
  Outcome Generate(SessionState state, GenerateOptions options) {
    return environment_.Generate(std::move(state), std::move(options));
  }
  static std::string Decode(const std::vector<int32_t>& ids) {
    return SchedulerEnvironment::Tokenizer().Decode(ids, /*skip_special=*/true).value();
  }
  // A state with random sampling, so that the text varies.
  static SessionState Sampled(uint64_t seed) { return {.sampling = {.temperature = 0.8F, .seed = seed}}; }
  // The first tokens of a state, as the archive restores them: without logits when that is not all.
  static SessionState Rewound(SessionState state, int keep) {
    state.text = {.detokenizer = {keep, keep, 0}};
    state.sequence.Truncate(keep);
    return state;
  }

  SchedulerEnvironment environment_;
};

TEST_F(GenerateJobTest, GivesOutTheTextOfItsTokensAndEndsAfterTheLast) {
  const Outcome outcome = Generate(Sampled(1), Options(TextTokens(20, 1), 30));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.result.reason, FinishReason::kMaxTokens);
  EXPECT_EQ(outcome.result.generated_tokens, 30);
  EXPECT_EQ(outcome.tokens.size(), 30u);
  EXPECT_EQ(outcome.text + outcome.result.pending_text, Decode(outcome.ids()));
  std::vector<int32_t> all = TextTokens(20, 1);
  for (const int32_t id : outcome.ids()) all.push_back(id);
  EXPECT_EQ(outcome.state.sequence.tokens(), all);
  EXPECT_NE(outcome.state.sequence.next_logits(), nullptr);
  EXPECT_GE(outcome.result.prefill_time, absl::ZeroDuration());
  EXPECT_GT(outcome.result.decode_time, absl::ZeroDuration());
}

TEST_F(GenerateJobTest, DrawsEachTokenFromTheLogitsOfTheTokensBeforeIt) {
  const Outcome outcome = Generate(Sampled(2), Options(TextTokens(20, 2), 20));
  engine::Sequence sequence;
  const std::vector<int32_t>& all = outcome.state.sequence.tokens();
  std::vector<float> logits;
  environment_.scheduler->AtStepBoundary([&] {
    logits = engine::FeedTokens(*environment_.decoder, *environment_.pool, sequence, all, engine::LogitsWanted::kAll);
  });
  for (size_t i = 20; i < all.size(); ++i) {
    const auto row = absl::MakeConstSpan(logits).subspan((i - 1) * 300, 300);
    EXPECT_EQ(all[i], engine::Sample(row, outcome.state.sampling, absl::MakeConstSpan(all).subspan(0, i)));
  }
  EXPECT_TRUE(engine::SameBits(*outcome.state.sequence.next_logits(),
                               absl::MakeConstSpan(logits).subspan((all.size() - 1) * 300)));
}

TEST_F(GenerateJobTest, NoTokensMeanOnlyTheInput) {
  const Outcome outcome = Generate({}, Options(TextTokens(20, 1), 0));
  ASSERT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.result.reason, FinishReason::kMaxTokens);
  EXPECT_EQ(outcome.result.generated_tokens, 0);
  EXPECT_EQ(outcome.text, "");
  EXPECT_EQ(outcome.state.sequence.length(), 20);
  EXPECT_NE(outcome.state.sequence.next_logits(), nullptr);
}

TEST_F(GenerateJobTest, EndsWhenTheContextIsFull) {
  GenerateOptions options = Options(TextTokens(20, 1), 100);
  options.context_length = 25;
  options.max_appended = 5;
  const Outcome outcome = Generate({}, options);
  EXPECT_EQ(outcome.result.reason, FinishReason::kContextFull);
  EXPECT_EQ(outcome.tokens.size(), 5u);
  EXPECT_EQ(outcome.state.sequence.length(), 25);
  options.input.clear();
  options.max_appended = 0;
  const Outcome again = Generate(outcome.state, options);
  EXPECT_EQ(again.result.reason, FinishReason::kContextFull);
  EXPECT_TRUE(again.tokens.empty());
}

TEST_F(GenerateJobTest, StopTokensEndItAndStayOut) {
  const std::vector<int32_t> ids = Generate(Sampled(3), Options(TextTokens(20, 3), 30)).ids();
  const size_t first = std::find(ids.begin(), ids.end(), ids[12]) - ids.begin();
  for (const bool end_of_turn : {false, true}) {
    GenerateOptions options = Options(TextTokens(20, 3), 30);
    (end_of_turn ? options.end_of_turn_ids : options.stop_token_ids) = {7, ids[12]};
    const Outcome outcome = Generate(Sampled(3), options);
    EXPECT_EQ(outcome.result.reason, end_of_turn ? FinishReason::kEndOfTurn : FinishReason::kStop);
    EXPECT_EQ(outcome.result.stop, SchedulerEnvironment::Tokenizer().TokenText(ids[12]).value());
    EXPECT_THAT(outcome.ids(), testing::ElementsAreArray(ids.begin(), ids.begin() + first));
    EXPECT_EQ(outcome.state.sequence.length(), 20 + static_cast<int>(first));
  }
  // Named by the caller and by the model: the caller's comes first.
  GenerateOptions both = Options(TextTokens(20, 3), 30);
  both.stop_token_ids = both.end_of_turn_ids = {ids[12]};
  EXPECT_EQ(Generate(Sampled(3), both).result.reason, FinishReason::kStop);
}

TEST_F(GenerateJobTest, RefusesBadStopStrings) {
  GenerateOptions options = Options(TextTokens(5, 1), 5);
  options.stop_strings = {""};
  const auto listener = std::make_shared<RecordingListener>();
  EXPECT_EQ(GenerateJob::Create({}, options, &SchedulerEnvironment::Tokenizer(), listener).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(GenerateJobTest, LogProbabilitiesAreThoseOfTheLogits) {
  GenerateOptions options = Options(TextTokens(20, 1), 10);
  EXPECT_FALSE(Generate({}, options).tokens[0].logprob.has_value());
  options.top_logprobs = 0;
  const Outcome plain = Generate(Sampled(4), options);
  options.top_logprobs = 5;
  const Outcome top = Generate(Sampled(4), options);
  ASSERT_EQ(top.tokens.size(), 10u);
  for (size_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(plain.tokens[i].logprob && top.tokens[i].logprob);
    EXPECT_EQ(*plain.tokens[i].logprob, *top.tokens[i].logprob);
    EXPECT_TRUE(plain.tokens[i].top.empty());
    ASSERT_EQ(top.tokens[i].top.size(), 5u);
    EXPECT_GE(top.tokens[i].top[0].logprob, *top.tokens[i].logprob);
  }
  const Outcome first = Generate(Sampled(4), Options(TextTokens(20, 1), 0));
  const engine::LogProbabilities expected(*first.state.sequence.next_logits());
  EXPECT_EQ(*top.tokens[0].logprob, expected.of(top.tokens[0].id));
  EXPECT_EQ(top.tokens[0].top[4].id, expected.Top(5)[4].id);
}

// A new constraint on what a state goes on with.
SessionState Under(SessionState state, text::Constraint::Kind kind, std::vector<std::string> texts) {
  state.constraint = {std::make_shared<const text::Constraint>(text::Constraint{kind, std::move(texts)}), 0};
  return state;
}

TEST_F(GenerateJobTest, ConstrainedTextMatchesAndEndsWhereNothingMayFollow) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    GenerateOptions options = Options(TextTokens(20, seed), 60);
    options.top_logprobs = 0;
    const Outcome outcome =
        Generate(Under(Sampled(seed), text::Constraint::Kind::kRegex, {"([0-9]{3}|[a-f ]+x)-(yes|no)"}), options);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    if (outcome.result.reason == FinishReason::kMaxTokens) continue;  // a long run of [a-f ]
    EXPECT_EQ(outcome.result.reason, FinishReason::kConstraintComplete);
    EXPECT_TRUE(std::regex_match(outcome.text, std::regex("([0-9]{3}|[a-f ]+x)-(yes|no)"))) << outcome.text;
    EXPECT_EQ(outcome.state.constraint.constraint, nullptr) << "it is no longer in force";
    EXPECT_EQ(outcome.state.sequence.length(), 20 + static_cast<int>(outcome.tokens.size()));
  }
}

TEST_F(GenerateJobTest, LogProbabilitiesUnderAConstraintAreTheModelsOwn) {
  GenerateOptions options = Options(TextTokens(20, 1), 1);
  options.top_logprobs = 300;
  const Outcome free = Generate({}, options);
  const Outcome held = Generate(Under({}, text::Constraint::Kind::kChoices, {"Q"}), options);
  ASSERT_THAT(held.ids(), testing::ElementsAre('Q'));
  const std::vector<engine::TokenLogprob>& top = free.tokens[0].top;
  const auto same = std::find_if(top.begin(), top.end(), [](const auto& one) { return one.id == 'Q'; });
  EXPECT_EQ(same->logprob, held.tokens[0].logprob);
  EXPECT_EQ(held.tokens[0].top[0].id, free.tokens[0].top[0].id);
}

TEST_F(GenerateJobTest, ConstrainedGenerationGoesOnAsIfNeverStopped) {
  const auto start = [] {
    return Under(Sampled(4), text::Constraint::Kind::kJsonSchema, {R"({"type":"array","items":{"type":"integer"}})"});
  };
  GenerateOptions options = Options(TextTokens(20, 4), 40);
  options.checkpoint_tokens = 1;
  const Outcome whole = Generate(start(), options);
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  const int count = static_cast<int>(whole.tokens.size());
  ASSERT_GT(count, 1);
  for (int cut = 0; cut < count; ++cut) {
    Outcome part = Generate(start(), Options(TextTokens(20, 4), cut));
    ASSERT_EQ(part.result.reason, FinishReason::kMaxTokens);
    EXPECT_EQ(part.state.constraint.tokens, cut);
    const Outcome rest = Generate(part.state, Options({}, 40 - cut));
    std::vector<int32_t> ids = part.ids();
    for (const int32_t id : rest.ids()) ids.push_back(id);
    EXPECT_EQ(ids, whole.ids()) << "cut after " << cut;
    EXPECT_EQ(rest.result.reason, whole.result.reason);
    EXPECT_TRUE(SameSequence(rest.state.sequence, whole.state.sequence));
  }
  for (size_t i = 0; i < whole.checkpoints.size(); ++i) {
    EXPECT_EQ(whole.checkpoints[i].constraint.tokens, static_cast<int>(i) + 1);
    EXPECT_EQ(Generate(whole.checkpoints[i], Options({}, 39 - static_cast<int>(i))).state.sequence.tokens(),
              whole.state.sequence.tokens());
  }
}

TEST_F(GenerateJobTest, TurnEndsUnderAConstraintOnlyWhereItsTextIsWhole) {
  for (const bool stop_token : {false, true}) {
    GenerateOptions options = Options(TextTokens(20, 1), 30);
    (stop_token ? options.stop_token_ids : options.end_of_turn_ids) = {299};
    // What the model wants most is to end at once.
    SessionState state =
        Under({.sampling = {.logit_bias = {{299, 100}}}}, text::Constraint::Kind::kRegex, {"abc[0-9]*"});
    const Outcome outcome = Generate(state, options);
    EXPECT_EQ(outcome.text, "abc");
    EXPECT_EQ(outcome.result.reason, stop_token ? FinishReason::kStop : FinishReason::kEndOfTurn);
    EXPECT_EQ(outcome.state.constraint.constraint != nullptr, stop_token) << "the end of a turn ends it";
  }
  // Without tokens that end the turn the text goes on for as long as it can.
  const Outcome outcome =
      Generate(Under({}, text::Constraint::Kind::kRegex, {"abc[0-9]*"}), Options(TextTokens(20, 1), 30));
  EXPECT_EQ(outcome.result.reason, FinishReason::kMaxTokens);
  EXPECT_TRUE(std::regex_match(outcome.text, std::regex("abc[0-9]+"))) << outcome.text;
}

TEST_F(GenerateJobTest, ConstraintThatCannotGoOnFailsTheJobAndLeavesTheStateWhole) {
  // Rules that may all be empty: what may follow takes longer than the limit.
  std::string lark = "start: a0\n";
  for (int i = 0; i < 12'000; ++i) lark += absl::StrCat("a", i, ":(a", i + 1, ")*\n");
  lark += "a12000: \"x\"\n";
  auto grammar = text::Grammar::Create(&SchedulerEnvironment::Tokenizer(), {text::Constraint::Kind::kLark, {lark}});
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  const auto listener = std::make_shared<RecordingListener>();
  const auto job =
      GenerateJob::Create({}, Options(TextTokens(20, 1), 5), &SchedulerEnvironment::Tokenizer(), listener,
                          std::make_unique<TokenConstraint>(*std::move(grammar), std::vector<int32_t>(),
                                                            &environment_.constraint_workers, absl::Milliseconds(2)));
  ASSERT_TRUE(environment_.scheduler->Submit(*job, (*job)->max_appended()).ok());
  // Others go on meanwhile.
  EXPECT_EQ(Generate(Sampled(1), Options(TextTokens(20, 1), 30)).tokens.size(), 30u);
  const Outcome outcome = listener->Await();
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kFailedPrecondition) << outcome.status;
  EXPECT_EQ(outcome.state.sequence.tokens(), TextTokens(20, 1));
  EXPECT_TRUE(outcome.tokens.empty());
  EXPECT_EQ(Generate(outcome.state, Options({}, 5)).tokens.size(), 5u);
}

TEST_F(GenerateJobTest, CheckpointsAreWholeStatesThatGoOnAlike) {
  GenerateOptions options = Options(TextTokens(20, 5), 30);
  options.checkpoint_tokens = 7;
  const Outcome whole = Generate(Sampled(5), options);
  ASSERT_EQ(whole.checkpoints.size(), 4u);
  std::string text;
  for (size_t i = 0; i < 4; ++i) {
    const SessionState& state = whole.checkpoints[i];
    const int generated = 7 * static_cast<int>(i + 1);
    ASSERT_EQ(state.sequence.length(), 20 + generated);
    const Outcome before = Generate(Sampled(5), Options(TextTokens(20, 5), generated));
    EXPECT_TRUE(SameSequence(state.sequence, before.state.sequence));
    const Outcome rest = Generate(state, Options({}, 30 - generated));
    EXPECT_TRUE(SameSequence(rest.state.sequence, whole.state.sequence));
    EXPECT_EQ(before.text + rest.text, whole.text);
  }
  // None after the last token: that is the end's state.
  options.checkpoint_tokens = 10;
  EXPECT_EQ(Generate(Sampled(5), options).checkpoints.size(), 2u);
}

TEST_F(GenerateJobTest, ARewoundStateGoesOnAsIfItHadNeverGoneFurther) {
  const Outcome whole = Generate(Sampled(6), Options(TextTokens(20, 6), 40));
  for (const int keep : {59, 48, 33, 32, 31, 21, 1}) {
    const SessionState state = Rewound(whole.state, keep);
    ASSERT_EQ(state.sequence.next_logits(), nullptr);
    const Outcome rest = Generate(state, Options({}, 60 - keep));
    ASSERT_TRUE(rest.status.ok()) << rest.status;
    EXPECT_EQ(rest.result.generated_tokens, 60 - keep);
    if (keep >= 20) {
      EXPECT_TRUE(SameSequence(rest.state.sequence, whole.state.sequence)) << keep;
    }
    EXPECT_EQ(state.sequence.length(), keep) << "the state that was given is left alone";
  }
}

TEST_F(GenerateJobTest, ARewoundStateStaysWholeWhenItsLastTokenCannotBeFedAgain) {
  SchedulerEnvironment environment(4);
  const SessionState state = Rewound(environment.Generate({}, Options(TextTokens(20, 6), 20)).state, 20);
  environment.scheduler->AtStepBoundary([] {});
  engine::PageReservation rest = environment.pool->Reserve(2).value();
  ASSERT_FALSE(environment.pool->Reserve(1).ok());
  for (const int tokens : {0, 3}) {
    const Outcome refused = environment.Generate(state, Options({}, tokens));
    EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(refused.state.sequence.tokens(), state.sequence.tokens());
  }
  rest = {};
  const auto listener = std::make_shared<RecordingListener>();
  {
    const EngineHold hold(environment.scheduler.get());
    const auto job = environment.NewJob(state, Options({}, 3), listener);
    EXPECT_EQ(job->length(), 20);
    EXPECT_EQ(job->Capture().sequence.tokens(), state.sequence.tokens());
    ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
    job->Cancel();
  }
  const Outcome cancelled = listener->Await();
  EXPECT_EQ(cancelled.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(cancelled.state.sequence.tokens(), state.sequence.tokens());
  EXPECT_EQ(environment.Generate(state, Options({}, 0)).state.sequence.length(), 20);
}

TEST_F(GenerateJobTest, PagesForARewoundStateArePromised) {
  SchedulerEnvironment environment(4);
  const SessionState state = Rewound(environment.Generate({}, Options(TextTokens(20, 6), 13)).state, 32);
  environment.scheduler->AtStepBoundary([] {});
  const auto listener = std::make_shared<RecordingListener>();
  {
    // The last page is shared with `state`, so that the token that is fed again takes a copy of it.
    const EngineHold hold(environment.scheduler.get());
    const auto job = environment.NewJob(state, Options({}, 15), listener);
    ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
    ASSERT_FALSE(environment.pool->Reserve(1).ok());
  }
  const Outcome outcome = listener->Await();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.state.sequence.length(), 47);
}

TEST_F(GenerateJobTest, TextAfterARewindIsThatOfAnUninterruptedRun) {
  int incomplete = 0;
  for (int seed = 0; seed < 30; ++seed) {
    const Outcome before = Generate(Sampled(seed), Options(TextTokens(20, 6), 5));
    const Outcome expected = Generate(before.state, Options({}, 8));
    incomplete += before.result.pending_text.empty() ? 0 : 1;
    // With the logits that a proof leaves, and without them.
    const Outcome further = Generate(before.state, Options({}, 3));
    SessionState proven = Rewound(further.state, 25);
    proven.sequence.set_next_logits(before.state.sequence.next_logits());
    for (const SessionState& rewound : {proven, Rewound(further.state, 25)}) {
      const Outcome rest = Generate(rewound, Options({}, 8));
      ASSERT_EQ(rest.ids(), expected.ids());
      EXPECT_EQ(rest.text, expected.text) << seed;
      EXPECT_EQ(rest.result.pending_text, expected.result.pending_text) << seed;
    }
  }
  EXPECT_GT(incomplete, 0) << "no character was cut";
}

TEST_F(GenerateJobTest, APromptThatEndsInAByteTokenIsNoPartOfTheText) {
  const std::unique_ptr<text::Tokenizer> tokenizer = text::LoadTokenizer(text::ByteFallbackTokenizerJson());
  constexpr int kFirstByte = 3;
  const std::vector<int32_t> prompt = {1, 262, 261, 260, kFirstByte + '\n'};
  int bytes = 0;
  for (int seed = 0; seed < 20; ++seed) {
    const auto listener = std::make_shared<RecordingListener>();
    const auto job = GenerateJob::Create(Sampled(seed), Options(prompt, 1), tokenizer.get(), listener).value();
    ASSERT_TRUE(environment_.scheduler->Submit(job, job->max_appended()).ok());
    const Outcome outcome = listener->Await();
    const int byte = outcome.ids().at(0) - kFirstByte;
    if (byte < 0 || byte > 255) continue;
    ++bytes;
    const std::string expected = byte < 128 ? std::string(1, static_cast<char>(byte)) : "\uFFFD";
    EXPECT_EQ(outcome.text + outcome.result.pending_text, expected);
  }
  EXPECT_GT(bytes, 0);
}

TEST_F(GenerateJobTest, InputIsNoPartOfTheText) {
  const Outcome first = Generate(Sampled(7), Options(TextTokens(20, 7), 10));
  const Outcome second = Generate(first.state, Options(TextTokens(15, 8), 10));
  EXPECT_EQ(second.state.sequence.length(), 55);
  EXPECT_EQ(second.text + second.result.pending_text, Decode(second.ids()));
}

TEST_F(GenerateJobTest, TextThatWasHeldForAStopStringIsDroppedByNewInput) {
  SessionState state = Generate(Sampled(7), Options(TextTokens(20, 7), 0)).state;
  state.text.held_text = "held";
  const Outcome outcome = Generate(state, Options(TextTokens(3, 1), 2));
  EXPECT_FALSE(absl::StrContains(outcome.text, "held"));
  // Without input it comes first, unless the new stop strings hold it as well.
  EXPECT_TRUE(absl::StartsWith(Generate(state, Options({}, 2)).text, "held"));
  GenerateOptions stops = Options({}, 0);
  stops.stop_strings = {"ld!"};
  const Outcome held = Generate(state, stops);
  EXPECT_EQ(held.text, "he");
  EXPECT_EQ(held.state.text.held_text, "ld");
  EXPECT_EQ(held.result.pending_text, "ld");
  // Or end at once when they are in it.
  stops.stop_strings = {"el"};
  stops.max_tokens = 5;
  const Outcome stopped = Generate(state, stops);
  EXPECT_EQ(stopped.result.reason, FinishReason::kStop);
  EXPECT_EQ(stopped.result.stop, "el");
  EXPECT_EQ(stopped.text, "h");
  EXPECT_TRUE(stopped.tokens.empty());
  EXPECT_EQ(stopped.state.text.held_text, "");
}

// Cancels its job once the job has more than `length` tokens; it is asked before every step.
class CancellingListener : public RecordingListener {
 public:
  explicit CancellingListener(int length) : length_(length) {}
  bool Full() const override {
    if (job->length() > length_) job->Cancel();
    return false;
  }
  GenerateJob* job = nullptr;

 private:
  const int length_;
};

TEST_F(GenerateJobTest, ACancelledPrefillLeavesNoInputBehindAsText) {
  SchedulerEnvironment environment(600, {.prefill_rows = 16});
  const Outcome start = environment.Generate(Sampled(8), Options(TextTokens(20, 8), 5));
  const auto listener = std::make_shared<CancellingListener>(25);
  const auto job = environment.NewJob(start.state, Options(TextTokens(100, 9), 5), listener);
  listener->job = job.get();
  ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
  const Outcome cut = listener->Await();
  EXPECT_EQ(cut.status.code(), absl::StatusCode::kCancelled);
  EXPECT_GT(cut.state.sequence.length(), 25);
  EXPECT_LT(cut.state.sequence.length(), 125);
  EXPECT_EQ(cut.result.pending_text, "");
  const Outcome rest = environment.Generate(cut.state, Options({}, 5));
  ASSERT_TRUE(rest.status.ok());
  EXPECT_EQ(rest.text + rest.result.pending_text, Decode(rest.ids()));
}

// What an uninterrupted generation with stop strings must give, from the complete text of one without.
struct Expected {
  std::string text;
  std::string stop;  // empty: none came
};
Expected CutAtStop(const std::string& text, const std::vector<std::string>& stops) {
  // The stop string that is completed first wins, the longest of those completed by the same byte.
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string found;
    for (const std::string& stop : stops) {
      if (stop.size() > found.size() && absl::EndsWith(absl::string_view(text).substr(0, end), stop)) found = stop;
    }
    if (!found.empty()) return {text.substr(0, end - found.size()), found};
  }
  return {text, ""};
}

TEST_F(GenerateJobTest, SavedAndContinuedTextIsThatOfAnUninterruptedRun) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  int stopped = 0;
  for (int round = 0; round < 40; ++round) {
    const SessionState start = Sampled(random());
    const std::vector<int32_t> prompt = TextTokens(1 + static_cast<int>(random() % 40), random());
    const int count = 1 + static_cast<int>(random() % 60);
    const Outcome plain = Generate(start, Options(prompt, count));
    // What may still become another character at the end is pending, and no stop string is looked for in it.
    const std::string& text = plain.text;
    ASSERT_EQ(text + plain.result.pending_text, Decode(plain.ids()));
    if (text.empty()) continue;
    // Pieces of the text itself, so that they occur, and others that begin alike.
    std::vector<std::string> stops;
    for (size_t i = random() % 4; i > 0; --i) {
      const size_t begin = random() % text.size();
      std::string stop = text.substr(begin, 1 + random() % 12);
      if (random() % 2 == 0) stop += "!x";
      if (text::StopMatcher::Create({stop}).ok()) stops.push_back(stop);
    }
    GenerateOptions options = Options(prompt, count);
    options.stop_strings = stops;
    const Outcome whole = Generate(start, options);
    const Expected expected = CutAtStop(text, stops);
    SCOPED_TRACE(testing::Message() << "round " << round << ", stops " << testing::PrintToString(stops) << ", text "
                                    << testing::PrintToString(text));
    const std::string pending = expected.stop.empty() ? plain.result.pending_text : "";
    EXPECT_EQ(whole.text + whole.result.pending_text, expected.text + pending);
    EXPECT_EQ(whole.result.reason, expected.stop.empty() ? FinishReason::kMaxTokens : FinishReason::kStop);
    EXPECT_EQ(whole.result.stop, expected.stop);
    stopped += expected.stop.empty() ? 0 : 1;

    // The same in pieces.
    SessionState state = start;
    options.input = prompt;
    std::string pieces;
    Outcome piece;
    int left = count;
    do {
      options.max_tokens = options.max_appended = std::min<int>(left, static_cast<int>(random() % 10));
      piece = Generate(state, options);
      ASSERT_TRUE(piece.status.ok()) << piece.status;
      pieces += piece.text;
      left -= piece.result.generated_tokens;
      state = piece.state;
      options.input.clear();
    } while (left > 0 && piece.result.reason == FinishReason::kMaxTokens);
    EXPECT_EQ(pieces, whole.text);
    EXPECT_EQ(piece.result.pending_text, whole.result.pending_text);
    EXPECT_EQ(piece.result.stop, whole.result.stop);
    EXPECT_TRUE(SameSequence(state.sequence, whole.state.sequence));
    EXPECT_EQ(state.text.held_text, whole.state.text.held_text);
  }
  EXPECT_GT(stopped, 0);
}

TEST_F(GenerateJobTest, AnIncompleteCharacterIsPendingUntilItsBytesAreThere) {
  // Prompts whose last bytes begin a character: the model's next tokens decide what comes of it.
  const std::vector<int32_t> prompt = {'a', 'b', 0xe2, 0x82};
  SessionState state = Generate({}, Options(prompt, 0)).state;
  const Outcome outcome = Generate(state, Options({}, 0));
  EXPECT_EQ(outcome.text, "");
  EXPECT_EQ(outcome.result.pending_text, "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace quicksave::server
