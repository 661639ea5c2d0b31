// What Generate promises about starts, inputs, streams and ends.

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

SharedServer* const kServer = SharedServer::Register();

const client::Client& Client() { return kServer->client(); }

client::Session FullSession(const std::string& name) {
  return Client().GetSession({.name = name, .view = client::View::kFull}).value();
}

// A state that every combination can start from, saved once.
class GenerateTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    absl::StatusOr<std::string> session = NewSession(Client(), Prose(3));
    ASSERT_TRUE(session.ok()) << session.status();
    absl::StatusOr<client::SavedNode> saved = Client().Snapshot({.session = *session});
    ASSERT_TRUE(saved.ok()) << saved.status();
    node_ = new client::Node(saved->node);
  }

  static client::FromNode Base() { return client::FromNode{.name = node_->name}; }
  // A new session with the tokens of the node.
  static std::string BaseSession() { return Client().Restore({.node = node_->name}).value().session.name; }

  static const client::Node* node_;
};

const client::Node* GenerateTest::node_ = nullptr;

TEST_F(GenerateTest, TakesEveryInputAfterEveryStart) {
  const std::vector<int32_t> base = Client().GetNode({.name = node_->name, .view = client::View::kFull})->token_ids;
  const std::vector<client::Input> inputs = {std::monostate{}, std::string("Therefore"),
                                             std::vector<client::ChatMessage>{{"user", "Why?"}},
                                             std::vector<int32_t>{504, 3575}};
  for (size_t i = 0; i < inputs.size(); i++) {
    SCOPED_TRACE(i);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation from_node,
                                   Generate(Client(), {.start = Base(),
                                                       .input = inputs[i],
                                                       .stop = {.max_tokens = 3, .ignore_eos = true},
                                                       .top_logprobs = 5,
                                                       .keep_session = true}));
    const std::string session = BaseSession();
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation from_session,
                                   Generate(Client(), {.start = client::FromSession{session},
                                                       .input = inputs[i],
                                                       .stop = {.max_tokens = 3, .ignore_eos = true},
                                                       .top_logprobs = 5}));
    EXPECT_TRUE(from_node.tokens == from_session.tokens) << from_node << " / " << from_session;
    EXPECT_EQ(from_node.started.reused_tokens, node_->token_count);
    EXPECT_EQ(from_session.started.reused_tokens, node_->token_count);
    EXPECT_EQ(from_session.started.session, session);
    EXPECT_EQ(from_session.finished.session, session) << "a session that existed stays";
    EXPECT_TRUE(from_node.started.proof.has_value());
    EXPECT_FALSE(from_session.started.proof.has_value());
    // A new session of the same tokens says the same.
    std::vector<int32_t> ids = FullSession(from_node.finished.session).token_ids;
    EXPECT_EQ(ids, FullSession(session).token_ids);
    ASSERT_EQ(ids.size(), base.size() + from_node.started.input_tokens + 3);
    EXPECT_TRUE(std::equal(base.begin(), base.end(), ids.begin()));
    ids.resize(ids.size() - 3);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const Generation fresh,
        Generate(Client(), {.input = ids, .stop = {.max_tokens = 3, .ignore_eos = true}, .top_logprobs = 5}));
    EXPECT_TRUE(fresh.tokens == from_node.tokens) << fresh;
    EXPECT_EQ(fresh.started.reused_tokens, 0);
    EXPECT_EQ(fresh.started.input_tokens, static_cast<int32_t>(ids.size()));
    EXPECT_THAT(fresh.finished.session, IsEmpty()) << "a session of the call ends with it";
    EXPECT_TRUE(absl::IsNotFound(Client().GetSession({.name = fresh.started.session}).status()));
  }
}

TEST_F(GenerateTest, NewSessionNeedsInput) {
  const absl::Status status = ErrorOf(Generate(Client(), {.stop = {.max_tokens = 1}}));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  for (const client::Input& input :
       std::vector<client::Input>{std::string(), std::vector<client::ChatMessage>{}, std::vector<int32_t>{}}) {
    const absl::Status empty = ErrorOf(Generate(Client(), {.input = input, .stop = {.max_tokens = 1}}));
    EXPECT_EQ(empty.code(), absl::StatusCode::kInvalidArgument) << empty;
  }
}

TEST_F(GenerateTest, ChatGivesTheReferenceAnswer) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation answer,
      Generate(Client(), {.input = std::vector<client::ChatMessage>{
                              {"user", "What is the capital of France? Answer in one sentence."}}}));
  EXPECT_EQ(answer.text, "The capital of France is Paris.");
  EXPECT_EQ(answer.finished.reason, client::FinishReason::kEndOfTurn);
}

TEST_F(GenerateTest, TextPiecesAreTheDecodedTokens) {
  const std::string session = BaseSession();
  const std::string before = FullSession(session).text;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation generation, GoOn(Client(), client::FromSession{session}, 24));
  const client::Session after = FullSession(session);
  EXPECT_EQ(before + generation.text + generation.finished.pending_text, after.text);
  EXPECT_EQ(generation.tokens.size(), 24u);
  EXPECT_EQ(generation.finished.generated_tokens, 24);
  EXPECT_EQ(generation.finished.token_count, after.token_count);
  EXPECT_EQ(after.token_count, node_->token_count + 24);
  EXPECT_GE(generation.deltas, 12) << "they come as they are made, not at the end";
  const std::vector<int32_t> ids = Ids(generation.tokens);
  EXPECT_TRUE(std::equal(ids.rbegin(), ids.rend(), after.token_ids.rbegin()));
  for (const client::Token& token : generation.tokens) {
    ASSERT_EQ(token.top.size(), 20u);
    EXPECT_EQ(token.top[0].id, token.id) << "greedy takes the most likely";
    EXPECT_EQ(token.top[0].logprob, token.logprob);
    for (size_t i = 1; i < token.top.size(); i++) EXPECT_GE(token.top[i - 1].logprob, token.top[i].logprob);
  }
}

TEST_F(GenerateTest, LogprobsComeOnlyWhenAskedFor) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation none,
                                 Generate(Client(), {.start = Base(), .stop = {.max_tokens = 2}}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation own,
                                 Generate(Client(), {.start = Base(), .stop = {.max_tokens = 2}, .top_logprobs = 0}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation most,
                                 Generate(Client(), {.start = Base(), .stop = {.max_tokens = 2}, .top_logprobs = 100}));
  ASSERT_EQ(none.tokens.size(), 2u);
  for (size_t i = 0; i < 2; i++) {
    EXPECT_FALSE(none.tokens[i].logprob.has_value());
    EXPECT_TRUE(own.tokens[i].logprob.has_value());
    EXPECT_THAT(own.tokens[i].top, IsEmpty());
    EXPECT_EQ(most.tokens[i].top.size(), 100u);
    EXPECT_EQ(most.tokens[i].logprob, own.tokens[i].logprob);
  }
}

TEST_F(GenerateTest, ZeroAndOneToken) {
  const std::string session = BaseSession();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation none, GoOn(Client(), client::FromSession{session}, 0));
  EXPECT_EQ(none.finished.reason, client::FinishReason::kMaxTokens);
  EXPECT_EQ(none.finished.generated_tokens, 0);
  EXPECT_EQ(none.finished.token_count, node_->token_count);
  EXPECT_THAT(none.text, IsEmpty());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation one, GoOn(Client(), client::FromSession{session}, 1));
  EXPECT_EQ(one.finished.reason, client::FinishReason::kMaxTokens);
  EXPECT_EQ(one.finished.token_count, node_->token_count + 1);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation two, GoOn(Client(), Base(), 2));
  EXPECT_TRUE(two.tokens[0] == one.tokens[0]);
}

TEST_F(GenerateTest, EndOfTurnIsNotPartOfTheState) {
  const std::vector<client::ChatMessage> question = {
      {"user", "What is the capital of France? Answer in one sentence."}};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation ended, Generate(Client(), {.input = question, .keep_session = true}));
  const client::Session state = FullSession(ended.finished.session);
  EXPECT_EQ(state.token_count, ended.started.input_tokens + ended.finished.generated_tokens);
  EXPECT_THAT(state.text, testing::EndsWith("Paris."));
  // The same without heeding the end: the end-of-turn token and more.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation ignored,
      Generate(Client(), {.input = question, .stop = {.max_tokens = 16, .ignore_eos = true}}));
  EXPECT_EQ(ignored.finished.reason, client::FinishReason::kMaxTokens);
  ASSERT_EQ(ignored.tokens.size(), 16u);
  EXPECT_EQ(ignored.tokens[ended.finished.generated_tokens].id, 2);
}

TEST_F(GenerateTest, StopTokenEndsAndIsNotPartOfTheState) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation free, GoOn(Client(), Base(), 8));
  const int32_t stop = free.tokens[5].id;
  size_t first = 0;
  while (free.tokens[first].id != stop) first++;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation stopped,
                                 Generate(Client(), {.start = Base(),
                                                     .stop = {.max_tokens = 8, .token_ids = {stop}, .ignore_eos = true},
                                                     .keep_session = true}));
  EXPECT_EQ(stopped.finished.reason, client::FinishReason::kStop);
  EXPECT_THAT(stopped.finished.stop, Not(IsEmpty()));
  EXPECT_EQ(stopped.finished.token_count, node_->token_count + static_cast<int32_t>(first));
  const client::Session state = FullSession(stopped.finished.session);
  EXPECT_EQ(state.token_count, stopped.finished.token_count);
  // Going on without the stop token takes it.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest, GoOn(Client(), client::FromSession{state.name}, 1));
  EXPECT_EQ(rest.tokens[0].id, stop);
}

// Text that greedy decoding from the base gives, for tests that put stop strings into it.
TEST_F(GenerateTest, StopStringAcrossTokensIsCutFromTheText) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation free, GoOn(Client(), Base(), 16));
  ASSERT_GT(free.text.size(), 30u) << free;
  // Every way that a stop string can lie over the tokens: start and length vary.
  for (const auto& [at, length] : std::vector<std::pair<size_t, size_t>>{{9, 1}, {11, 7}, {20, 10}}) {
    const std::string stop = free.text.substr(at, length);
    SCOPED_TRACE(stop);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const Generation stopped,
        Generate(Client(), {.start = Base(),
                            .stop = {.max_tokens = 16, .strings = {"never seen", stop}, .ignore_eos = true},
                            .keep_session = true}));
    EXPECT_EQ(stopped.finished.reason, client::FinishReason::kStop) << stopped;
    EXPECT_EQ(stopped.finished.stop, stop);
    EXPECT_EQ(stopped.text, free.text.substr(0, free.text.find(stop)));
    // The tokens of the stop string are part of the state.
    EXPECT_THAT(FullSession(stopped.finished.session).text, HasSubstr(stop));
    EXPECT_EQ(stopped.finished.token_count, node_->token_count + stopped.finished.generated_tokens);
    EXPECT_TRUE(std::equal(stopped.tokens.begin(), stopped.tokens.end(), Ids(free.tokens).begin(),
                           [](const client::Token& token, int32_t id) { return token.id == id; }));
  }
}

// The last three characters of a text that may become a stop string are held back, saved, and delivered when they did
// not.
TEST_F(GenerateTest, StopStringAcrossASave) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation free, GoOn(Client(), Base(), 16));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation half, GoOn(Client(), Base(), 8));
  ASSERT_THAT(free.text, StartsWith(half.text));
  const size_t cut = half.text.size();
  ASSERT_LT(cut + 3, free.text.size());
  const std::string stop = free.text.substr(cut - 3, 6);
  ASSERT_EQ(free.text.find(stop), cut - 3) << "the text repeats itself, take another";
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation begun,
                                 Generate(Client(), {.start = Base(),
                                                     .stop = {.max_tokens = 8, .strings = {stop}, .ignore_eos = true},
                                                     .save = client::SaveOptions{}}));
  EXPECT_EQ(begun.text, free.text.substr(0, cut - 3));
  EXPECT_EQ(begun.finished.pending_text, stop.substr(0, 3));
  ASSERT_EQ(begun.saved.size(), 1u);
  const client::FromNode saved{.name = begun.saved[0].node.name};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation stopped,
      Generate(Client(), {.start = saved, .stop = {.max_tokens = 8, .strings = {stop}, .ignore_eos = true}}));
  EXPECT_EQ(stopped.finished.reason, client::FinishReason::kStop) << stopped;
  EXPECT_EQ(stopped.finished.stop, stop);
  EXPECT_THAT(stopped.text, IsEmpty());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation other, GoOn(Client(), saved, 8));
  EXPECT_EQ(begun.text + other.text, free.text) << "without stop strings what was held back is delivered";
}

TEST_F(GenerateTest, CharactersCutByMaxTokensAreDeliveredWhole) {
  const std::string prompt = "🦜🎉🦜🎉🦜🎉🦜🎉🦜🎉🦜🎉🦜🎉🦜🎉";
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation whole,
                                 Generate(Client(), {.input = prompt, .stop = {.max_tokens = 12, .ignore_eos = true}}));
  ASSERT_THAT(whole.text, HasSubstr("🎉")) << "the model did not go on with the pattern: " << whole;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::string state, NewSession(Client(), prompt));
  std::string text;
  std::vector<int32_t> ids;
  int pending = 0;
  // One token a call, and each call in a session restored from what the call before saved.
  for (int i = 0; i < 12; i++) {
    const client::GenerateStart start = i == 0 ? client::GenerateStart(client::FromSession{state})
                                               : client::GenerateStart(client::FromNode{.name = state});
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const Generation step,
        Generate(Client(),
                 {.start = start, .stop = {.max_tokens = 1, .ignore_eos = true}, .save = client::SaveOptions{}}));
    text += step.text;
    ids.push_back(step.tokens.at(0).id);
    if (!step.finished.pending_text.empty()) pending++;
    EXPECT_THAT(step.text, Not(HasSubstr("\uFFFD")));
    state = step.saved.at(0).node.name;
  }
  EXPECT_EQ(ids, Ids(whole.tokens));
  EXPECT_EQ(text, whole.text);
  EXPECT_GT(pending, 0) << "no character was cut, the test proves nothing";
}

TEST_F(GenerateTest, SavesOnTheWay) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation generation,
                                 Generate(Client(), {.start = Base(),
                                                     .stop = {.max_tokens = 10, .ignore_eos = true},
                                                     .top_logprobs = 20,
                                                     .save = client::SaveOptions{.labels = {{"run", "7"}}, .note = "n"},
                                                     .save_every_tokens = 4}));
  ASSERT_EQ(generation.saved.size(), 3u);
  std::string parent = node_->name;
  for (int i = 0; i < 3; i++) {
    const client::Node& node = generation.saved[i].node;
    const int32_t generated = std::vector<int>{4, 8, 10}[i];
    EXPECT_EQ(node.token_count, node_->token_count + generated);
    EXPECT_EQ(node.labels, (std::map<std::string, std::string>{{"run", "7"}}));
    EXPECT_EQ(node.note, "n");
    ASSERT_EQ(node.parents.size(), 1u);
    EXPECT_EQ(node.parents[0].parent, parent);
    EXPECT_EQ(node.parents[0].type, client::EdgeType::kContinuation);
    parent = node.name;
    if (generated == 10) continue;
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest,
                                   GoOn(Client(), client::FromNode{.name = node.name}, 10 - generated));
    const std::vector<client::Token> expected(generation.tokens.begin() + generated, generation.tokens.end());
    EXPECT_TRUE(rest.tokens == expected) << rest;
  }
}

TEST_F(GenerateTest, SeedFixesTheDraw) {
  const auto draw = [](uint64_t seed) {
    return Generate(Client(), {.start = Base(),
                               .sampling = {.temperature = 1.5, .seed = seed},
                               .stop = {.max_tokens = 8, .ignore_eos = true}});
  };
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, draw(1));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation again, draw(1));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation other, draw(2));
  EXPECT_EQ(Ids(first.tokens), Ids(again.tokens));
  EXPECT_NE(Ids(first.tokens), Ids(other.tokens));
}

TEST_F(GenerateTest, CancellingKeepsWhatWasComputed) {
  const std::string session = BaseSession();
  const client::CancellationToken token;
  int tokens = 0;
  const auto cancel_after_two = [&](const client::GenerateEvent& event) {
    if (const auto* delta = std::get_if<client::GenerateDelta>(&event))
      tokens += static_cast<int>(delta->tokens.size());
    if (tokens >= 2) token.Cancel();
    return true;
  };
  const absl::Status cancelled = ErrorOf(
      Client().Generate({.start = client::FromSession{session}, .stop = {.max_tokens = 4000, .ignore_eos = true}},
                        cancel_after_two, {.cancellation = token}));
  EXPECT_EQ(cancelled.code(), absl::StatusCode::kCancelled) << cancelled;
  ASSERT_TRUE(Eventually([] { return Client().GetStatus()->engine.active_requests == 0; }));
  const client::Session state = FullSession(session);
  EXPECT_GE(state.token_count, node_->token_count + 2);
  EXPECT_LT(state.token_count, node_->token_count + 1000) << "it went on after the end of the call";
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest, GoOn(Client(), client::FromSession{session}, 4));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation fresh,
                                 GoOn(Client(), Base(), state.token_count - node_->token_count + 4));
  EXPECT_TRUE(std::equal(rest.tokens.rbegin(), rest.tokens.rend(), fresh.tokens.rbegin())) << rest << " / " << fresh;
}

TEST_F(GenerateTest, DeadlineEndsTheWork) {
  const absl::Status late =
      ErrorOf(Generate(Client(), {.start = Base(), .stop = {.max_tokens = 4000, .ignore_eos = true}},
                       {.timeout = absl::Milliseconds(700)}));
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded) << late;
  EXPECT_TRUE(Eventually([] { return Client().GetStatus()->engine.active_requests == 0; }));
}

}  // namespace
}  // namespace quicksave::integration
