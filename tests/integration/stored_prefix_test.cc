// Prompts that begin like a stored node or a parked session: what is stored is restored where that is faster, and
// nothing else can be seen of it.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/shared_server.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Computes all of every prompt.
SharedServer* const kPlain = SharedServer::Register();

client::GenerateRequest Request(const std::vector<int32_t>& prompt, uint64_t seed) {
  return {.input = prompt,
          .sampling = {.temperature = 0.9F, .seed = seed},
          .stop = {.max_tokens = 12, .ignore_eos = true},
          .top_logprobs = 2};
}

std::vector<int32_t> First(const std::vector<int32_t>& tokens, size_t count) {
  return {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count)};
}

std::vector<int32_t> Then(std::vector<int32_t> tokens, const std::vector<int32_t>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

// `count` token ids, English but for the first, which is `seed`'s own.
std::vector<int32_t> Words(size_t count, int seed) {
  static const auto* const kEnglish = new std::vector<int32_t>([] {
    std::string text;
    for (int i = 0; i < 32; i++) text += Prose(6, i);
    return TokenIds(kPlain->client(), text).value();
  }());
  EXPECT_GE(kEnglish->size(), count);
  return Then({10000 + seed}, First(*kEnglish, count - 1));
}

// `tokens`, and `count` others that nothing else goes on with.
std::vector<int32_t> GoingOn(const std::vector<int32_t>& tokens, size_t count, int seed) {
  return Then(tokens, Words(count, seed));
}

// A server that begins prompts with what it knows, and can be started again to know only what is stored.
class StoredPrefixTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(); }

  void Start() {
    server_.reset();
    auto server = ServerProcess::Start(options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void Stop() {
    server_->Signal(SIGTERM);
    ASSERT_EQ(server_->WaitForEnd()->exit_code, 0);
  }
  void Restart() {
    Stop();
    Start();
  }

  const client::Client& Client() const { return server_->client(); }

  // Saves a node of exactly these tokens.
  std::string Save(const std::vector<int32_t>& tokens) {
    const absl::StatusOr<Generation> saved =
        Generate(Client(), {.input = tokens, .stop = {.max_tokens = 0}, .save = client::SaveOptions{}});
    EXPECT_TRUE(saved.ok()) << saved.status();
    return saved.ok() ? saved->saved.at(0).node.name : "";
  }

  // Runs a request here and on the plain server, which must answer the same to the last bit, and returns how it began.
  client::GenerateStarted Started(const client::GenerateRequest& request) {
    const absl::StatusOr<Generation> here = Generate(Client(), request);
    const absl::StatusOr<Generation> plain = Generate(kPlain->client(), request);
    EXPECT_TRUE(here.ok() && plain.ok()) << here.status() << plain.status();
    if (!here.ok() || !plain.ok()) return {};
    EXPECT_EQ(here->text, plain->text);
    EXPECT_EQ(here->tokens, plain->tokens);
    EXPECT_EQ(here->started.input_tokens, plain->started.input_tokens);
    EXPECT_EQ(here->started.reused_tokens, 0);
    EXPECT_EQ(plain->started.restored_tokens, 0);
    EXPECT_EQ(here->started.restored_node.empty(), parked_ || here->started.restored_tokens == 0);
    return here->started;
  }
  int32_t RestoredTokens(const std::vector<int32_t>& prompt, uint64_t seed = 1) {
    return Started(Request(prompt, seed)).restored_tokens;
  }

  TemporaryDirectory directory_;
  ServerOptions options_ = {.data_dir = directory_ / "data", .flags = {"!--no-prefix-cache"}};
  std::unique_ptr<ServerProcess> server_;
  bool parked_ = false;  // whether what is restored comes from parked sessions
};

TEST_F(StoredPrefixTest, APromptThatBeginsLikeANodeGoesOnFromItsBlocks) {
  const std::vector<int32_t> tokens = Words(1000, 1);
  const std::string node = Save(tokens);
  Restart();
  const client::GenerateStarted started = Started(Request(GoingOn(tokens, 60, 100), 1));
  EXPECT_EQ(started.restored_tokens, 1000);
  EXPECT_EQ(started.restored_node, node);
  EXPECT_EQ(started.shared_tokens, 0);
  EXPECT_EQ(started.input_tokens, 1060);
  // What was restored is in memory now.
  const client::GenerateStarted again = Started(Request(GoingOn(tokens, 60, 200), 2));
  EXPECT_EQ(again.restored_tokens, 0);
  EXPECT_EQ(again.shared_tokens, 1000);
  const client::EngineInfo engine = Client().GetStatus()->engine;
  EXPECT_EQ(engine.restored_prefix_tokens, 1000);
  EXPECT_EQ(engine.shared_prefix_tokens, 1000);
  EXPECT_EQ(engine.failed_prefix_restores, 0);
  EXPECT_LT(engine.prefilled_tokens, 200) << "1,000 of them were not computed";
}

TEST_F(StoredPrefixTest, AsManyTokensAreRestoredAsAreTheSame) {
  const std::vector<int32_t> tokens = Words(600, 2);
  Save(tokens);
  for (const size_t same : {128, 300, 384, 385, 599}) {
    Restart();
    EXPECT_EQ(RestoredTokens(GoingOn(First(tokens, same), 100, 300), same), static_cast<int32_t>(same));
  }
  // The node is longer than the prompt, or just as long.
  for (const size_t length : {200, 600}) {
    Restart();
    EXPECT_EQ(RestoredTokens(First(tokens, length), length), static_cast<int32_t>(length));
  }
  Restart();
  EXPECT_EQ(RestoredTokens(GoingOn(First(tokens, 127), 100, 300)), 0) << "too short";
}

// Time until the first token of a prompt comes.
absl::Duration TimeToFirstToken(const client::Client& client, const std::vector<int32_t>& prompt) {
  const absl::Time start = absl::Now();
  absl::Time first = absl::InfiniteFuture();
  const auto finished =
      client.Generate({.input = prompt, .stop = {.max_tokens = 1, .ignore_eos = true}}, [&](const auto& event) {
        if (std::holds_alternative<client::GenerateDelta>(event)) first = std::min(first, absl::Now());
        return true;
      });
  EXPECT_TRUE(finished.ok()) << finished.status();
  return first - start;
}

TEST_F(StoredPrefixTest, RestoringIsChosenWhereItIsSooner) {
  const std::vector<int> lengths = {256, 1000, 2000};
  for (const int length : lengths) Save(Words(length, length));
  Restart();
  std::cout << "tokens stored, and 20 more: time to first token, restored and computed\n";
  for (const int length : lengths) {
    const std::vector<int32_t> prompt = GoingOn(Words(length, length), 20, 900);
    const absl::Duration restored = TimeToFirstToken(Client(), prompt);
    const absl::Duration computed = TimeToFirstToken(kPlain->client(), prompt);
    std::cout << length << ": " << restored << ", " << computed << "\n";
  }
  EXPECT_EQ(Client().GetStatus()->engine.restored_prefix_tokens, 256 + 1000 + 2000);
}

TEST_F(StoredPrefixTest, MemoryIsPreferredToTheStore) {
  const std::vector<int32_t> tokens = Words(700, 3);
  Save(tokens);
  Restart();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation part,
                                 Generate(Client(), {.input = First(tokens, 695), .stop = {.max_tokens = 0}}));
  ASSERT_EQ(part.started.restored_tokens, 695);
  const client::GenerateStarted started = Started(Request(GoingOn(tokens, 20, 400), 2));
  EXPECT_EQ(started.shared_tokens, 695) << "the store has 5 more, which are computed sooner";
  EXPECT_EQ(started.restored_tokens, 0);
}

TEST_F(StoredPrefixTest, TheNewSessionDoesNotDependOnTheNode) {
  const std::vector<int32_t> tokens = Words(500, 4);
  const std::string node = Save(tokens);
  Restart();
  client::GenerateRequest request = Request(GoingOn(tokens, 30, 500), 1);
  request.save = client::SaveOptions{};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation made, Generate(Client(), request));
  ASSERT_EQ(made.started.restored_tokens, 500);
  EXPECT_THAT(made.saved.at(0).node.parents, IsEmpty());
  ASSERT_TRUE(Client().DeleteNode({.name = node}).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse verified,
                                 Client().VerifyNode({.name = made.saved[0].node.name, .replay = true}));
  EXPECT_EQ(verified.tokens_replayed, 542);
  // What it restored is found with the new node.
  Restart();
  const client::GenerateStarted started = Started(Request(GoingOn(tokens, 30, 600), 1));
  EXPECT_EQ(started.restored_tokens, 500);
  EXPECT_EQ(started.restored_node, made.saved[0].node.name);
}

TEST_F(StoredPrefixTest, ADeletedNodeIsNotFound) {
  const std::vector<int32_t> tokens = Words(500, 5);
  const std::string node = Save(tokens);
  Restart();
  ASSERT_TRUE(Client().DeleteNode({.name = node}).ok());
  EXPECT_EQ(RestoredTokens(tokens), 0);
  EXPECT_EQ(Client().GetStatus()->engine.failed_prefix_restores, 0);
}

TEST_F(StoredPrefixTest, ADamagedBlockIsComputedAgain) {
  const std::vector<int32_t> tokens = Words(500, 6);
  const std::string node = Save(tokens);
  Stop();
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(options_.data_dir)) {
    if (entry.path().extension() != ".blob") continue;
    files++;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(entry.path()) / 2));
    file.write("damage", 6);
    ASSERT_TRUE(file.good());
  }
  ASSERT_GT(files, 0) << "the store keeps its blocks elsewhere";
  Start();
  EXPECT_EQ(RestoredTokens(GoingOn(tokens, 30, 700)), 0);
  EXPECT_EQ(Client().GetStatus()->engine.failed_prefix_restores, 1);
  EXPECT_THAT(server_->Log(), HasSubstr("a stored prefix cannot be restored and is computed"));
  EXPECT_THAT(server_->Log(), HasSubstr(node));
}

TEST_F(StoredPrefixTest, WithoutTheCacheEverythingIsComputed) {
  const std::vector<int32_t> tokens = Words(300, 7);
  Save(tokens);
  options_.flags = {};
  Restart();
  EXPECT_EQ(RestoredTokens(tokens), 0);
}

TEST_F(StoredPrefixTest, WhatCapturesAllTokensComputesThem) {
  const std::vector<int32_t> tokens = Words(300, 8);
  Save(tokens);
  Restart();
  client::GenerateRequest request = Request(tokens, 1);
  request.taps = client::TapSpec{.layers = {10}, .all_tokens = true};
  EXPECT_EQ(Started(request).restored_tokens, 0);
  Restart();
  request.taps->all_tokens = false;
  EXPECT_EQ(Started(request).restored_tokens, 300);
}

// Room for two sessions of 800 tokens, and some pages.
class ParkedPrefixTest : public StoredPrefixTest {
 protected:
  ParkedPrefixTest() {
    options_.flags.emplace_back("--kv-memory=44MiB");
    parked_ = true;
  }
};

TEST_F(ParkedPrefixTest, APromptThatBeginsLikeAParkedSessionGoesOnFromItsBlocks) {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::string> sessions;
  for (int i = 0; i < 3; i++) {
    tokens.push_back(Words(800, 10 + 100 * i));
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(sessions.emplace_back(), NewSession(Client(), tokens[i]));
  }
  ASSERT_GT(Client().GetStatus()->engine.parked_sessions, 0);
  // The first was left alone for longest.
  EXPECT_EQ(RestoredTokens(GoingOn(tokens[0], 20, 800)), 800);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Session first, Client().GetSession({.name = sessions[0]}));
  EXPECT_TRUE(first.parked) << "it stays where it is";
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string plain, NewSession(kPlain->client(), tokens[0]));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation a, GoOn(Client(), client::FromSession{sessions[0]}, 8));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation b, GoOn(kPlain->client(), client::FromSession{plain}, 8));
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_TRUE(DeleteAllSessions(Client()).ok());
  EXPECT_EQ(Client().GetStatus()->store.blocks, 0) << "nothing of parked sessions is left";
}

// Each prompt begins like a session that is parked, brought back and deleted at the same time. Whatever it finds, its
// tokens are the same.
TEST_F(ParkedPrefixTest, SessionsMayComeBackOrEndMeanwhile) {
  constexpr int kSessions = 3;
  std::vector<std::vector<int32_t>> tokens;
  for (int i = 0; i < kSessions; i++) tokens.push_back(Words(600, 20 + 100 * i));
  std::vector<std::vector<client::Token>> expected;
  for (int i = 0; i < kSessions; i++) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation plain, Generate(kPlain->client(), Request(tokens[i], i)));
    expected.push_back(plain.tokens);
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < kSessions; i++) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 2; round++) {
        const absl::StatusOr<std::string> session = NewSession(Client(), tokens[i]);
        ASSERT_TRUE(session.ok()) << session.status();
        EXPECT_TRUE(GoOn(Client(), client::FromSession{*session}, 2).ok());
        EXPECT_TRUE(Client().DeleteSession({.name = *session}).ok());
      }
    });
    threads.emplace_back([&, i] {
      for (int round = 0; round < 4; round++) {
        const absl::StatusOr<Generation> here = Generate(Client(), Request(tokens[i], i));
        ASSERT_TRUE(here.ok()) << here.status();
        EXPECT_EQ(here->tokens, expected[i]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Client().GetStatus()->engine.memory_refusals, 0);
  EXPECT_EQ(Client().GetStatus()->store.blocks, 0) << "nothing of parked sessions is left";
}

// Equal tokens make equal blocks, whoever computes them and how: the second save adds none.
TEST(SharedBlocksTest, SessionsThatKnowNothingOfEachOtherShareTheirBlocks) {
  const client::Client& client = kPlain->client();
  const std::vector<int32_t> tokens = Words(300, 9);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string at_once, NewSession(client, tokens));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string one_by_one, NewSession(client, First(tokens, 1)));
  for (size_t i = 1; i < tokens.size(); i++) {
    const auto fed = Generate(client, {.start = client::FromSession{one_by_one},
                                       .input = std::vector<int32_t>{tokens[i]},
                                       .stop = {.max_tokens = 0}});
    ASSERT_TRUE(fed.ok()) << fed.status();
    EXPECT_EQ(fed->started.shared_tokens + fed->started.restored_tokens, 0);
  }
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode first, client.Snapshot({.session = at_once}));
  EXPECT_EQ(first.report.new_blocks, 3);
  const client::StoreInfo before = client.GetStatus()->store;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode second, client.Snapshot({.session = one_by_one}));
  EXPECT_EQ(second.report.new_blocks, 0);
  EXPECT_EQ(second.report.shared_blocks, 3);
  EXPECT_EQ(second.report.encoded_bytes, 0);
  const client::StoreInfo after = client.GetStatus()->store;
  EXPECT_EQ(after.nodes, before.nodes + 1);
  EXPECT_EQ(after.blocks, before.blocks);
  EXPECT_EQ(after.block_bytes, before.block_bytes);
  // Each is whole without the other.
  ASSERT_TRUE(client.DeleteNode({.name = first.node.name}).ok());
  EXPECT_TRUE(client.VerifyNode({.name = second.node.name, .replay = true}).ok());
}

}  // namespace
}  // namespace quicksave::integration
