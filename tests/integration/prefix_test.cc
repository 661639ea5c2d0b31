// Prompts that begin like something in memory: what is known is not computed again, and nothing else can be seen of it.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

SharedServer* const kSharing = SharedServer::Register({"!--no-prefix-cache", "--kv-memory=32MiB"});
SharedServer* const kPlain = SharedServer::Register();

client::GenerateRequest Request(const std::string& prompt, uint64_t seed) {
  return {.input = prompt,
          .sampling = {.temperature = 0.9F, .seed = seed},
          .stop = {.max_tokens = 12, .ignore_eos = true},
          .top_logprobs = 2};
}

// Runs a request on both servers, which must answer the same to the last bit, and returns the tokens that were shared.
int32_t SharedTokens(const client::GenerateRequest& request) {
  const absl::StatusOr<Generation> shared = Generate(kSharing->client(), request);
  const absl::StatusOr<Generation> plain = Generate(kPlain->client(), request);
  EXPECT_TRUE(shared.ok() && plain.ok()) << shared.status() << plain.status();
  if (!shared.ok() || !plain.ok()) return -1;
  EXPECT_EQ(shared->text, plain->text);
  EXPECT_EQ(shared->tokens, plain->tokens);
  EXPECT_EQ(shared->started.input_tokens, plain->started.input_tokens);
  EXPECT_EQ(shared->started.reused_tokens, 0);
  EXPECT_EQ(plain->started.shared_tokens, 0);
  return shared->started.shared_tokens;
}

TEST(PrefixTest, APromptThatBeginsLikeAnEndedSessionSharesItsPages) {
  const std::string story = Prose(20, 1);
  EXPECT_EQ(SharedTokens(Request(story, 1)), 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> tokens, TokenIds(kSharing->client(), story));
  // The same again: all is known but for the logits, which the session has gone past.
  EXPECT_EQ(SharedTokens(Request(story, 2)), static_cast<int32_t>(tokens.size()));
  EXPECT_GE(SharedTokens(Request(story + Prose(5, 2), 3)), static_cast<int32_t>(tokens.size()) - 2);
  // It goes another way in the middle.
  const int32_t half = SharedTokens(Request(story.substr(0, story.size() / 2) + " Stop!", 4));
  EXPECT_GT(half, static_cast<int32_t>(tokens.size()) / 3);
  EXPECT_LT(half, static_cast<int32_t>(tokens.size()));
  EXPECT_EQ(SharedTokens(Request("Something else", 5)), 0);
}

TEST(PrefixTest, AChatThatIsSentAgainWithItsAnswerGoesOnFromThere) {
  std::vector<client::ChatMessage> messages = {
      {.role = "user", .content = "Name a river, and say where it ends: " + Prose(4, 3)}};
  client::GenerateRequest request{
      .input = messages, .sampling = {.temperature = 0.0F}, .stop = {.max_tokens = 24, .ignore_eos = true}};
  EXPECT_EQ(SharedTokens(request), 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, Generate(kPlain->client(), request));
  messages.push_back({.role = "assistant", .content = first.text});
  messages.push_back({.role = "user", .content = "And another one?"});
  request.input = messages;
  EXPECT_GT(SharedTokens(request), first.started.input_tokens - 2);
}

TEST(PrefixTest, ALiveSessionIsSharedAndNotDisturbed) {
  const std::string story = Prose(12, 7);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(kSharing->client(), story));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string plain, NewSession(kPlain->client(), story));
  EXPECT_GT(SharedTokens(Request(story + " Then", 1)), 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation a, GoOn(kSharing->client(), client::FromSession{session}, 8));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation b, GoOn(kPlain->client(), client::FromSession{plain}, 8));
  EXPECT_EQ(a.tokens, b.tokens);
}

TEST(PrefixTest, WhatIsKeptMakesRoomForWhatIsAsked) {
  // 32 MiB hold 91 pages; each of these needs about 20 and leaves them behind.
  for (int i = 0; i < 6; i++) EXPECT_EQ(SharedTokens(Request(Prose(20, 20 + i), i)), 0) << i;
  EXPECT_EQ(kSharing->client().GetStatus()->engine.memory_refusals, 0);
}

}  // namespace
}  // namespace quicksave::integration
