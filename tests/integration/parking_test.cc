// Sessions that outlive memory: many more than fit are live, and all go on exactly as if they were alone.

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

constexpr int kSessions = 200;
constexpr int kTokens = 1000;
constexpr int kCallers = 32;
constexpr int kGenerated = 4;

// 1,000 tokens have 63 pages of 360 KiB: 20 sessions and a little.
SharedServer* const kServer =
    SharedServer::Register({"--kv-memory=480MiB", "--durability=process", "--max-sessions=300", "--kv-wait=5m"});
const client::Client& Client() { return kServer->client(); }

// Calls work(i) for each session, from many threads.
template <class Work>
void ForEachSession(const Work& work) {
  std::atomic<int> next{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < kCallers; t++) {
    callers.emplace_back([&] {
      for (int i = next.fetch_add(1); i < kSessions; i = next.fetch_add(1)) work(i);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(ParkingTest, TwoHundredSessionsWorkInMemoryForTwenty) {
  std::string text;
  for (int i = 0; i < 30; i++) text += Prose(6, i);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::vector<int32_t> prompt, TokenIds(Client(), text));
  ASSERT_GE(prompt.size(), size_t{kTokens});
  prompt.resize(kTokens);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation saved,
      Generate(Client(), {.input = prompt, .stop = {.max_tokens = 0}, .save = client::SaveOptions{}}));
  const std::string node = saved.saved.at(0).node.name;
  const auto sampling = [](int i) { return client::SamplingParameters{.temperature = 1.0F, .seed = uint64_t(i)}; };
  std::vector<std::string> sessions(kSessions);
  // Restored apart, so that they share no page.
  ForEachSession([&](int i) {
    const auto restored = Client().Restore({.node = node, .sampling = sampling(i), .skip_check = true});
    ASSERT_TRUE(restored.ok()) << restored.status();
    sessions[i] = restored->session.name;
  });
  EXPECT_GE(Client().GetStatus()->engine.parked_sessions, kSessions - 25);
  std::vector<std::vector<int32_t>> tokens(kSessions);
  for (int round = 0; round < 2; round++) {
    ForEachSession([&](int i) {
      const auto more = GoOn(Client(), client::FromSession{sessions[i]}, kGenerated);
      ASSERT_TRUE(more.ok()) << more.status();
      for (const int32_t id : Ids(more->tokens)) tokens[i].push_back(id);
    });
  }
  const client::EngineInfo engine = Client().GetStatus()->engine;
  EXPECT_GE(engine.unparkings, 2 * (kSessions - 25));
  EXPECT_EQ(engine.memory_refusals, 0);
  EXPECT_EQ(Client().GetStatus()->store.nodes, 1) << "parked sessions are no nodes";
  for (const int i : {0, 1, 77, 199}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation alone,
                                   Generate(Client(), {.start = client::FromNode{.name = node},
                                                       .sampling = sampling(i),
                                                       .stop = {.max_tokens = 2 * kGenerated, .ignore_eos = true}}));
    EXPECT_EQ(tokens[i], Ids(alone.tokens)) << i;
  }
  ASSERT_TRUE(DeleteAllSessions(Client()).ok());
  EXPECT_EQ(Client().GetStatus()->engine.parked_sessions, 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ListNodesResponse nodes, Client().ListNodes());
  EXPECT_EQ(nodes.nodes.size(), 1u);
}

}  // namespace
}  // namespace quicksave::integration
