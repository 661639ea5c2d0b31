// Every model family through the real server: a state that was saved, whose server was killed, goes on as if nothing
// had happened, in every bit. The models are the tiny ones of tests/reference/families, and Gemma 3 270M.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/recorded_family.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

// How many tokens: before the save, and after it.
struct Lengths {
  int generated = 40;
  int rest = 30;
};

// Saves a state behind `prompt`, kills the server, restores the state and a prefix of it in another one, and compares
// the 20 most likely tokens at every position with those of an uninterrupted run.
void ExpectExactRestore(const std::string& model_dir, const std::vector<int32_t>& prompt, const Lengths& lengths = {}) {
  const TemporaryDirectory directory;
  const ServerOptions options = {.data_dir = directory / "data", .model_dir = model_dir};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(server->client(), prompt));
  const client::FromSession running = {.name = session};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, GoOn(server->client(), running, lengths.generated));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, server->client().Snapshot({.session = session}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation uninterrupted, GoOn(server->client(), running, lengths.rest));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse verified,
                                 server->client().VerifyNode({.name = saved.node.name, .replay = true}));
  EXPECT_EQ(verified.tokens_replayed, static_cast<int>(prompt.size()) + lengths.generated);
  server->Kill();

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation restored,
                                 GoOn(server->client(), client::FromNode{.name = saved.node.name}, lengths.rest));
  ASSERT_EQ(restored.tokens.size(), static_cast<size_t>(lengths.rest));
  EXPECT_EQ(restored.tokens, uninterrupted.tokens);
  // Back to the end of the prompt: what was generated then is generated again.
  const client::FromNode rewound = {.name = saved.node.name, .at_token = static_cast<int32_t>(prompt.size())};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation again, GoOn(server->client(), rewound, lengths.generated));
  EXPECT_EQ(again.tokens, first.tokens);
}

class FamiliesTest : public ::testing::TestWithParam<std::string> {};

TEST_P(FamiliesTest, RestoredStateGoesOnWithTheSameBits) {
  const engine::RecordedFamily family(GetParam());
  // Longer than the windows of 24 tokens.
  ExpectExactRestore(family.dir(), engine::RandomTokens(37, family.vocab_size(), 3));
}

INSTANTIATE_TEST_SUITE_P(All, FamiliesTest, ::testing::ValuesIn(engine::RecordedFamily::Names()),
                         [](const auto& tested) { return tested.param; });

class Gemma3Test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(std::filesystem::path(kModel) / "config.json")) {
      GTEST_SKIP() << "there is no " << kModel << "; scripts/fetch_model.sh gemma3-270m makes it";
    }
  }

  static nlohmann::json Reference(const std::string& name) {
    std::ifstream file(QUICKSAVE_SOURCE_DIR "/tests/reference/" + name);
    return nlohmann::json::parse(file);
  }

  static constexpr char kModel[] = QUICKSAVE_GEMMA_DIR;
};

TEST_F(Gemma3Test, TokenizesAsLlamaCppDoes) {
  const nlohmann::json recorded = Reference("gemma3_tokens.json");
  const TemporaryDirectory directory;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ServerProcess> server,
                                 ServerProcess::Start({.data_dir = directory / "data", .model_dir = kModel}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::vector<int32_t> ids,
                                 TokenIds(server->client(), recorded["text"].get<std::string>()));
  ASSERT_FALSE(ids.empty());
  EXPECT_EQ(ids.front(), 2) << "<bos>, which the tokenizer adds";
  ids.erase(ids.begin());
  EXPECT_EQ(ids, recorded["token_ids"].get<std::vector<int32_t>>());
}

TEST_F(Gemma3Test, WritesWhatTransformersWrites) {
  const nlohmann::json chat = Reference("gemma3_270m_logits.json")["chat"];
  const auto& expected = chat["continuation"]["float32"];
  const TemporaryDirectory directory;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Start({.data_dir = directory / "data", .model_dir = kModel, .flags = {"--threads=2"}}));
  const client::Client& client = server->client();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> ids, TokenIds(client, chat["text"].get<std::string>()));
  EXPECT_EQ(ids, chat["token_ids"].get<std::vector<int32_t>>()) << "the first is <bos>, which the tokenizer adds";
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(client, ids));
  const int count = static_cast<int>(expected["token_ids"].size());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation generation,
                                 GoOn(client, client::FromSession{.name = session}, count));
  std::cout << "text:" << generation.text << "\n";
  // Up to the first choice that rounding to bf16 may decide.
  for (int i = 0; i < count && expected["margins"][i] > 0.2; ++i) {
    EXPECT_EQ(generation.tokens[i].id, expected["token_ids"][i]) << i;
  }
  EXPECT_THAT(generation.text, ::testing::HasSubstr(" country of France. It is the largest city in"));

  const absl::Time start = absl::Now();
  constexpr int kMore = 64;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation more, GoOn(client, client::FromSession{.name = session}, kMore));
  std::cout << kMore / absl::ToDoubleSeconds(absl::Now() - start) << " tokens/s with 20 alternatives each\n";
}

TEST_F(Gemma3Test, RestoredStateGoesOnWithTheSameBits) {
  // Longer than the windows of 512 tokens.
  ExpectExactRestore(kModel, engine::RandomTokens(600, 262144, 5), {.generated = 12, .rest = 8});
}

}  // namespace
}  // namespace quicksave::integration
