// The main story: chat, save, kill the server, start it again, restore with proof, and go on as if nothing had
// happened.

#include <csignal>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kTokens = 20;

// A conversation, and all that an uninterrupted run says after the point where it was saved.
struct Story {
  std::string name;
  client::SamplingParameters sampling;
  std::string session;
  client::Session state;
  client::SavedNode saved;
  client::ScoreResponse scores;
  Generation rest;
  Generation reply;
};

// Continuations to score: the logits behind 1,000 probabilities at each token leave no room for a state that differs.
client::ScoreRequest ScoreFrom(const client::Start& start) {
  return {
      .start = start, .continuations = {std::string(" and then the"), std::vector<int32_t>{504, 260}}, .top_k = 1000};
}

// Continues the state at `session`, first by itself and then with a message of the user.
void Continue(const client::Client& client, const std::string& session, Story* story) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(story->scores, client.Score(ScoreFrom(client::FromSession{session})));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(story->rest, GoOn(client, client::FromSession{session}, kTokens));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      story->reply,
      Generate(client, {.start = client::FromSession{session},
                        .input = std::vector<client::ChatMessage>{{"user", "Now say it in one sentence."}},
                        .stop = {.max_tokens = kTokens, .ignore_eos = true},
                        .top_logprobs = 20}));
}

void Tell(const client::Client& client, Story* story) {
  const std::vector<client::ChatMessage> messages = {
      {"system", "You are a patient narrator. " + Prose(8)},
      {"user", "What did the captain do? Tell me a long story."},
  };
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation beginning,
                                 Generate(client, {.input = messages,
                                                   .sampling = story->sampling,
                                                   .stop = {.max_tokens = kTokens, .ignore_eos = true},
                                                   .keep_session = true}));
  ASSERT_EQ(beginning.tokens.size(), size_t{kTokens});
  story->session = beginning.finished.session;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(story->saved, client.Snapshot({.session = story->session}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(story->state,
                                 client.GetSession({.name = story->session, .view = client::View::kFull}));
  Continue(client, story->session, story);
}

void ExpectSame(const Generation& left, const Generation& right) {
  EXPECT_EQ(left.text, right.text);
  EXPECT_EQ(Ids(left.tokens), Ids(right.tokens));
  EXPECT_TRUE(left.tokens == right.tokens) << "log-probabilities differ";
}

void ExpectProven(const client::Proof& proof, const Story& story, int32_t vocabulary) {
  EXPECT_EQ(proof.tokens_reused, story.state.token_count);
  EXPECT_EQ(proof.tokens_recomputed, 0);
  EXPECT_EQ(proof.bytes_restored, story.saved.node.storage.raw_bytes);
  EXPECT_GE(proof.bytes_read, story.saved.node.storage.stored_bytes);
  EXPECT_EQ(proof.codec, story.saved.node.storage.codec);
  EXPECT_EQ(proof.check.outcome, client::CheckOutcome::kIdentical);
  EXPECT_EQ(proof.check.logits_compared, vocabulary);
  EXPECT_EQ(proof.check.max_abs_difference, 0);
  EXPECT_EQ(proof.check.kl_divergence, 0);
  EXPECT_GT(proof.timing.total, absl::ZeroDuration());
}

void ExpectRestored(const client::Client& client, const Story& story) {
  SCOPED_TRACE(story.name);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ServerStatus status, client.GetStatus());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored,
                                 client.Restore({.node = story.saved.node.name}));
  ExpectProven(restored.proof, story, status.model.vocab_size);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Session session,
                                 client.GetSession({.name = restored.session.name, .view = client::View::kFull}));
  EXPECT_EQ(session.token_ids, story.state.token_ids);
  EXPECT_EQ(session.text, story.state.text);
  EXPECT_EQ(session.sampling, story.state.sampling);
  EXPECT_EQ(session.node, story.saved.node.name);
  EXPECT_EQ(session.node_token_count, story.state.token_count);
  Story again;
  Continue(client, session.name, &again);
  EXPECT_TRUE(again.scores == story.scores) << "scores differ";
  ExpectSame(again.rest, story.rest);
  ExpectSame(again.reply, story.reply);
}

// The same through the calls that restore on the way.
void ExpectContinuedFromNode(const client::Client& client, const Story& story) {
  SCOPED_TRACE(story.name);
  const client::FromNode node{.name = story.saved.node.name};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ScoreResponse scores, client.Score(ScoreFrom(node)));
  EXPECT_TRUE(scores.scores == story.scores.scores);
  ASSERT_TRUE(scores.proof.has_value());
  EXPECT_EQ(scores.proof->tokens_recomputed, 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest, GoOn(client, node, kTokens));
  ExpectSame(rest, story.rest);
  EXPECT_EQ(rest.started.reused_tokens, story.state.token_count);
  ASSERT_TRUE(rest.started.proof.has_value());
  EXPECT_EQ(rest.started.proof->check.outcome, client::CheckOutcome::kIdentical);
  EXPECT_THAT(rest.finished.session, IsEmpty());
}

TEST(StoryTest, GoesOnBitForBitAfterTheServerWasKilled) {
  const TemporaryDirectory directory;
  const ServerOptions options = {.data_dir = directory / "data"};
  std::vector<Story> stories(2);
  stories[0].name = "greedy";
  stories[1].name = "sampled";
  stories[1].sampling = {
      .temperature = 0.9, .top_k = 200, .top_p = 0.95, .min_p = 0.01, .repetition_penalty = 1.1, .seed = 20261122};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  for (Story& story : stories) ASSERT_NO_FATAL_FAILURE(Tell(server->client(), &story));
  EXPECT_NE(Ids(stories[0].rest.tokens), Ids(stories[1].rest.tokens)) << "sampling changes nothing";
  server->Kill();

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  EXPECT_TRUE(absl::IsNotFound(server->client().GetSession({.name = stories[0].session}).status()));
  for (const Story& story : stories) {
    ExpectRestored(server->client(), story);
    ExpectContinuedFromNode(server->client(), story);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse verified,
                                   server->client().VerifyNode({.name = story.saved.node.name, .replay = true}));
    EXPECT_EQ(verified.tokens_replayed, story.state.token_count);
    EXPECT_EQ(verified.blocks_checked, story.saved.node.storage.blocks);
  }
  EXPECT_THAT(server->Log(), testing::Not(HasSubstr("captain"))) << "prompts are not logged";
}

}  // namespace
}  // namespace quicksave::integration
