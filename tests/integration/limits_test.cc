// Memory, sessions and leases are budgets: what does not fit is refused, and fits again when something ends.

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quicksave/errors.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr int kMaxSessions = 8;
// 24 MiB hold 1,092 tokens of 23,040 bytes.
constexpr int kPromptTokens = 300;

SharedServer* const kServer =
    SharedServer::Register({"--kv-memory=24MiB", "--kv-wait=100ms", "--max-sessions=8", "--default-lease=5m"});
const client::Client& Client() { return kServer->client(); }

class LimitsTest : public ::testing::Test {
 protected:
  void TearDown() override {
    ASSERT_TRUE(DeleteAllSessions(Client()).ok());
    ExpectNothingHeld(Client());
  }

  // Ids of ordinary tokens; another seed gives others from the first on.
  static std::vector<int32_t> Prompt(int seed, int tokens = kPromptTokens) {
    std::vector<int32_t> ids;
    for (int i = 0; i < tokens; i++) ids.push_back(1000 + (seed * 7919 + i * 31) % 40000);
    return ids;
  }
};

void ExpectMemoryRefusal(const absl::Status& refused) {
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(client::ErrorReason(refused), Not(IsEmpty()));
  EXPECT_TRUE(client::ErrorRetryDelay(refused).has_value());
  EXPECT_THAT(std::string(refused.message()), HasSubstr("kv_memory"));
}

// A generation that holds most of the memory while it lives.
class Hog {
 public:
  Hog() : thread_([this] { Run(); }) { started_.WaitForNotification(); }
  ~Hog() {
    stop_.store(true);
    thread_.join();
  }

 private:
  void Run() {
    const auto until_stopped = [this](const client::GenerateEvent&) {
      if (!started_.HasBeenNotified()) started_.Notify();
      return !stop_.load();
    };
    const client::GenerateRequest request{.input = std::string("Once"),
                                          .stop = {.max_tokens = 900, .ignore_eos = true}};
    EXPECT_TRUE(absl::IsCancelled(Client().Generate(request, until_stopped).status()));
    if (!started_.HasBeenNotified()) started_.Notify();
  }

  std::atomic<bool> stop_{false};
  absl::Notification started_;
  std::thread thread_;
};

TEST_F(LimitsTest, MemoryThatRunningCallsHoldIsRefusedAndRecovers) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation saved,
      Generate(Client(), {.input = Prompt(50), .stop = {.max_tokens = 0}, .save = client::SaveOptions{}}));
  const std::string node = saved.saved.at(0).node.name;
  {
    const Hog hog;
    ExpectMemoryRefusal(NewSession(Client(), Prompt(1)).status());
    ExpectMemoryRefusal(ErrorOf(Client().Restore({.node = node})));
    ExpectMemoryRefusal(ErrorOf(GoOn(Client(), client::FromNode{.name = node}, 1)));
    EXPECT_THAT(Client().ListSessions()->sessions, SizeIs(1)) << "a refused call leaves no session";
    EXPECT_GT(Client().GetStatus()->engine.memory_refusals, 0);
    // What is small fits beside it.
    EXPECT_TRUE(NewSession(Client(), Prompt(2, 20)).ok());
  }
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, Client().Restore({.node = node}));
  EXPECT_EQ(restored.proof.check.outcome, client::CheckOutcome::kIdentical);
}

TEST_F(LimitsTest, IdleSessionsMakeRoom) {
  std::vector<std::string> sessions;
  for (int i = 0; i < kMaxSessions; i++) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prompt(i)));
    sessions.push_back(session);
  }
  const client::EngineInfo engine = Client().GetStatus()->engine;
  EXPECT_GE(engine.parked_sessions, kMaxSessions - 3) << "3 * 300 tokens fit, 4 * 300 do not";
  int parked = 0;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ListSessionsResponse listed, Client().ListSessions());
  for (const client::Session& session : listed.sessions) parked += session.parked ? 1 : 0;
  EXPECT_EQ(parked, engine.parked_sessions);
  for (const std::string& session : sessions) {
    EXPECT_TRUE(GoOn(Client(), client::FromSession{session}, 2).ok()) << session;
  }
  EXPECT_GT(Client().GetStatus()->engine.unparkings, 0);
}

TEST_F(LimitsTest, PromptBeyondTheWholeMemoryIsRefusedAtOnce) {
  int events = 0;
  const auto count = [&](const client::GenerateEvent&) { return ++events > 0; };
  const absl::Status refused = ErrorOf(Client().Generate({.input = Prompt(1, 1200), .keep_session = true}, count));
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(events, 0) << "what is refused does not start";
  EXPECT_THAT(Client().ListSessions()->sessions, IsEmpty());
  EXPECT_THAT(std::string(refused.message()), HasSubstr("kv_memory"));
}

TEST_F(LimitsTest, BranchesOfALargeStateFit) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prompt(3, 900)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched,
                                 Client().Branch({.start = client::FromSession{session}, .count = kMaxSessions - 1}));
  for (const client::Session& branch : branched.sessions) {
    EXPECT_TRUE(GoOn(Client(), client::FromSession{branch.name}, 1).ok());
  }
}

TEST_F(LimitsTest, SessionsBeyondTheLimitAreRefused) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prompt(4, 3)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched,
                                 Client().Branch({.start = client::FromSession{session}, .count = kMaxSessions - 1}));
  for (const absl::Status& refused : {ErrorOf(NewSession(Client(), Prompt(5, 3))),
                                      ErrorOf(Client().Branch({.start = client::FromSession{session}}))}) {
    EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("8"));
    EXPECT_THAT(client::ErrorReason(refused), Not(IsEmpty()));
  }
  ASSERT_TRUE(Client().DeleteSession({.name = branched.sessions[0].name}).ok());
  EXPECT_TRUE(NewSession(Client(), Prompt(5, 3)).ok());
}

TEST_F(LimitsTest, EndOfTheLeaseFreesThePages) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prompt(6, 100)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::BranchResponse branched,
      Client().Branch({.start = client::FromSession{session}, .count = 2, .lease = absl::Milliseconds(500)}));
  const Generation leased =
      Generate(
          Client(),
          {.input = Prompt(7, 100), .stop = {.max_tokens = 0}, .keep_session = true, .lease = absl::Milliseconds(500)})
          .value();
  ASSERT_TRUE(Client().DeleteSession({.name = session}).ok());
  ExpectNothingHeld(Client());
  for (const std::string& gone : {branched.sessions[0].name, leased.finished.session}) {
    const absl::Status status = ErrorOf(Client().GetSession({.name = gone}));
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
  }
}

TEST_F(LimitsTest, EachCallRenewsTheLease) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prompt(8, 3)));
  const client::Session before = Client().GetSession({.name = session}).value();
  EXPECT_GT(before.expire_time - before.create_time, absl::Minutes(4));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation more, GoOn(Client(), client::FromSession{session}, 1));
  EXPECT_GT(Client().GetSession({.name = session})->expire_time, before.expire_time);
}

TEST_F(LimitsTest, SaysItsLimits) {
  const client::ServerStatus status = Client().GetStatus().value();
  EXPECT_EQ(status.limits.max_sessions, kMaxSessions);
  EXPECT_EQ(status.limits.default_lease, absl::Minutes(5));
  EXPECT_EQ(status.model.kv_bytes_per_token, 23040);
  EXPECT_EQ(status.model.layers, 30);
  EXPECT_EQ(status.model.vocab_size, 49152);
  EXPECT_EQ(status.engine.page_bytes, status.engine.page_tokens * status.model.kv_bytes_per_token);
  EXPECT_LE(status.engine.pages_total * status.engine.page_bytes, 24 << 20);
  EXPECT_GT(status.engine.pages_total * status.engine.page_tokens, 3 * kPromptTokens);
}

}  // namespace
}  // namespace quicksave::integration
