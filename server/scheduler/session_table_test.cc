#include "server/scheduler/session_table.h"

#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

constexpr absl::Duration kLease = absl::Minutes(1);

class SessionTableTest : public testing::Test {
 protected:
  // A state of 20 tokens and 5 generated ones.
  SessionState NewState(uint64_t seed = 1) {
    return environment_.Generate({.sampling = {.seed = seed}}, Options(TextTokens(20, seed), 5)).state;
  }
  std::string AddOne(SessionState state, absl::Duration lease = kLease) {
    std::vector<SessionState> states;
    states.push_back(std::move(state));
    return table_.Add(std::move(states), lease).value().front().id;
  }
  absl::StatusOr<SessionState> Take(const std::string& id, std::optional<absl::Duration> lease = std::nullopt) {
    absl::StatusOr<TakenSession> taken = table_.Take(id, lease, {}, [](int) { return 0; });
    if (!taken.ok()) return taken.status();
    return std::move(taken->state);
  }
  absl::StatusOr<SessionState> Capture(const std::string& id) {
    absl::StatusOr<TakenSession> taken = table_.Capture(id, {}, [](int) { return 0; });
    if (!taken.ok()) return taken.status();
    return std::move(taken->state);
  }
  // Starts a generation in a session, as a service does.
  std::shared_ptr<GenerateJob> Start(const std::string& id, int max_tokens,
                                     const std::shared_ptr<RecordingListener>& listener) {
    SessionState state = Take(id).value();
    auto job = environment_.NewJob(std::move(state), Options({}, max_tokens), listener);
    table_.SetJob(id, job);
    EXPECT_TRUE(environment_.scheduler->Submit(job, job->max_appended()).ok());
    return job;
  }

  SchedulerEnvironment environment_;
  SessionTable table_{{.max_sessions = 4, .default_lease = absl::Minutes(10), .max_lease = absl::Hours(1)},
                      environment_.scheduler.get(),
                      environment_.broker.get()};
};

TEST_F(SessionTableTest, ChecksLeases) {
  EXPECT_EQ(*table_.CheckLease(absl::ZeroDuration()), absl::Minutes(10));
  EXPECT_EQ(*table_.CheckLease(absl::Hours(1)), absl::Hours(1));
  for (const absl::Duration bad :
       {-absl::Seconds(1), absl::Hours(1) + absl::Nanoseconds(1), absl::InfiniteDuration()}) {
    const absl::Status status = table_.CheckLease(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("max_lease"));
  }
}

TEST_F(SessionTableTest, DescribesASession) {
  SessionState state = NewState();
  state.sampling.top_k = 5;
  state.origin = std::make_shared<Origin>(Origin{.node_id = "n1", .node_token_count = 30});
  state.origin_tokens = 12;
  const absl::Time before = absl::Now();
  const SessionInfo info = *table_.Info(AddOne(std::move(state)));
  EXPECT_EQ(info.id.size(), 12u);
  EXPECT_EQ(info.token_count, 25);
  EXPECT_EQ(info.pages, 2);
  EXPECT_EQ(info.node_id, "n1");
  EXPECT_EQ(info.node_tokens, 12);
  EXPECT_EQ(info.sampling.top_k, 5);
  EXPECT_GE(info.create_time, before);
  EXPECT_GE(info.expire_time, before + kLease);
  EXPECT_LE(info.expire_time, absl::Now() + kLease);
}

TEST_F(SessionTableTest, PromptsShareWithSessionsButNotWhatWasDecodedThere) {
  const auto shared = [&](const std::vector<int32_t>& tokens) { return table_.SharedPrefix(tokens).length(); };
  const SessionState state = NewState();
  const std::vector<int32_t> tokens = state.sequence.tokens();
  EXPECT_EQ(shared(tokens), 0);
  SessionState lossy = state;
  lossy.sequence.set_lossy_tokens(1);
  const std::string decoded = AddOne(lossy);
  EXPECT_EQ(shared(tokens), 0);
  table_.End(decoded);
  EXPECT_EQ(shared(tokens), 0);
  const std::string own = AddOne(state);
  EXPECT_EQ(shared(tokens), 25);
  table_.End(own);
  EXPECT_EQ(shared(tokens), 25);
}

TEST_F(SessionTableTest, RefusesMoreThanItsLimitAllOrNone) {
  const SessionState state = NewState();
  ASSERT_TRUE(table_.Add({state, state, state}, kLease).ok());
  const absl::Status status = table_.Add({state, state}, kLease).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("max_sessions"));
  EXPECT_EQ(table_.size(), 3);
  EXPECT_TRUE(table_.Add({state}, kLease).ok());
  EXPECT_FALSE(table_.Add({state}, kLease).ok());
}

TEST_F(SessionTableTest, EverythingAboutAnUnknownSessionIsNotFound) {
  EXPECT_EQ(table_.Info("x").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Capture("x").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Take("x").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table_.Delete("x").code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(table_.Delete("x").message()), testing::HasSubstr("sessions/x"));
  table_.GiveBack("x", {});
  table_.SetOrigin("x", nullptr, 3);
  EXPECT_EQ(table_.size(), 0);
}

TEST_F(SessionTableTest, ListsInOrderOfCreationPageByPage) {
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(AddOne({}));
  ASSERT_TRUE(table_.Delete(ids[1]).ok());
  uint64_t last = 0;
  std::vector<SessionInfo> page = table_.List(0, 2, last);
  ASSERT_EQ(page.size(), 2u);
  EXPECT_EQ(page[0].id, ids[0]);
  EXPECT_EQ(page[1].id, ids[2]);
  ASSERT_NE(last, 0u);
  // The one that the page ended with may go; the next page begins after it all the same.
  ASSERT_TRUE(table_.Delete(ids[2]).ok());
  page = table_.List(last, 2, last);
  ASSERT_EQ(page.size(), 1u);
  EXPECT_EQ(page[0].id, ids[3]);
  EXPECT_EQ(last, 0u);
  // A page that ends with the last session knows that it does.
  EXPECT_EQ(table_.List(0, 2, last).size(), 2u);
  EXPECT_EQ(last, 0u);
}

TEST_F(SessionTableTest, RemovesIdleSessionsWhoseLeaseHasEnded) {
  const absl::Time start = absl::Now();
  const std::string brief = AddOne({}, absl::Seconds(10));
  const std::string lasting = AddOne({}, absl::Minutes(5));
  EXPECT_EQ(table_.RemoveExpired(start + absl::Seconds(9)), 0);
  EXPECT_EQ(table_.RemoveExpired(start + absl::Seconds(30)), 1);
  EXPECT_EQ(table_.Info(brief).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(table_.Info(lasting).ok());
  uint64_t last = 0;
  EXPECT_EQ(table_.List(0, 10, last).size(), 1u);
}

TEST_F(SessionTableTest, UseRenewsALease) {
  const std::string id = AddOne(NewState());
  const absl::Time created = table_.Info(id)->expire_time;
  ASSERT_TRUE(Capture(id).ok());
  const absl::Time captured = table_.Info(id)->expire_time;
  EXPECT_GT(captured, created);
  SessionState state = Take(id).value();
  const absl::Time taken = table_.Info(id)->expire_time;
  EXPECT_GT(taken, captured);
  table_.GiveBack(id, std::move(state));
  EXPECT_GT(table_.Info(id)->expire_time, taken);
  // Looking at it does not.
  const absl::Time given_back = table_.Info(id)->expire_time;
  EXPECT_EQ(table_.Info(id)->expire_time, given_back);
}

TEST_F(SessionTableTest, TakingItMayChangeItsLease) {
  const std::string id = AddOne(NewState());
  const absl::Time before = absl::Now();
  SessionState state = Take(id, absl::Minutes(30)).value();
  EXPECT_GE(table_.Info(id)->expire_time, before + absl::Minutes(30));
  EXPECT_FALSE(Take(id, absl::Minutes(50)).ok());
  table_.GiveBack(id, std::move(state));
  EXPECT_LE(table_.Info(id)->expire_time, absl::Now() + absl::Minutes(30));
  EXPECT_GE(table_.Info(id)->expire_time, before + absl::Minutes(30)) << "it stays for later renewals";
}

TEST_F(SessionTableTest, ARunningSessionOutlivesItsLease) {
  const std::string id = AddOne(NewState(), absl::Seconds(1));
  SessionState state = Take(id).value();
  EXPECT_EQ(table_.RemoveExpired(absl::Now() + absl::Hours(1)), 0);
  table_.GiveBack(id, std::move(state));
  EXPECT_EQ(table_.RemoveExpired(absl::Now() + absl::Hours(1)), 1);
  EXPECT_EQ(environment_.pool->used_pages(), 0);
}

TEST_F(SessionTableTest, OnlyOneMayTakeASession) {
  const std::string id = AddOne(NewState());
  SessionState state = Take(id).value();
  const absl::Status status = Take(id).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("sessions/" + id));
  // What the job changed comes back; the origin is the table's.
  state.sampling.seed = 77;
  state.origin = std::make_shared<Origin>(Origin{.node_id = "old"});
  table_.SetOrigin(id, std::make_shared<Origin>(Origin{.node_id = "new"}), 9);
  table_.GiveBack(id, std::move(state));
  const SessionState back = Take(id).value();
  EXPECT_EQ(back.sampling.seed, 77u);
  EXPECT_EQ(back.sequence.length(), 25);
  EXPECT_EQ(back.origin->node_id, "new");
  EXPECT_EQ(back.origin_tokens, 9);
}

TEST_F(SessionTableTest, CaptureOfAnIdleSessionSharesItsPages) {
  const std::string id = AddOne(NewState());
  const int used = environment_.pool->used_pages();
  const SessionState copy = Capture(id).value();
  EXPECT_EQ(environment_.pool->used_pages(), used);
  const RecordingListener::Outcome original = environment_.Generate(Take(id).value(), Options({}, 10));
  const RecordingListener::Outcome branch = environment_.Generate(copy, Options({}, 10));
  EXPECT_TRUE(SameSequence(original.state.sequence, branch.state.sequence));
}

TEST_F(SessionTableTest, CaptureOfARunningSessionIsAWholeState) {
  const SessionState start = NewState();
  const RecordingListener::Outcome expected = environment_.Generate(start, Options({}, 200));
  const std::string id = AddOne(start);
  const auto origin = std::make_shared<Origin>(Origin{.node_id = "n"});
  const auto listener = std::make_shared<RecordingListener>();
  listener->on_token = [&](int count) { listener->SetFull(count % 50 == 0 && count < 200); };
  Start(id, 200, listener);
  std::vector<SessionState> captures;
  for (int tokens = 50; tokens < 200; tokens += 50) {
    listener->AwaitTokens(tokens);
    table_.SetOrigin(id, origin, 20);
    captures.push_back(Capture(id).value());
    listener->SetFull(false);
  }
  EXPECT_TRUE(SameSequence(listener->Await().state.sequence, expected.state.sequence))
      << "captures must not disturb the session";
  for (const SessionState& captured : captures) {
    EXPECT_EQ(captured.origin, origin);
    EXPECT_EQ(captured.origin_tokens, 20);
    const int length = captured.sequence.length();
    EXPECT_GE(length, 25 + 49);
    EXPECT_LE(length, 25 + 150);
    const RecordingListener::Outcome rest = environment_.Generate(captured, Options({}, 225 - length));
    ASSERT_TRUE(rest.status.ok()) << rest.status;
    EXPECT_TRUE(SameSequence(rest.state.sequence, expected.state.sequence));
  }
}

TEST_F(SessionTableTest, CaptureBetweenTakeAndSetJobAsksToTryAgain) {
  const std::string id = AddOne(NewState());
  SessionState state = Take(id).value();
  const absl::Status status = Capture(id).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("try again"));
  table_.GiveBack(id, std::move(state));
  EXPECT_TRUE(Capture(id).ok());
}

TEST_F(SessionTableTest, InfoOfARunningSessionCountsItsTokens) {
  const std::string id = AddOne(NewState());
  const auto listener = std::make_shared<RecordingListener>();
  listener->on_token = [&](int count) {
    if (count == 12) listener->SetFull(true);
  };
  const auto job = Start(id, 200, listener);
  listener->AwaitTokens(12);
  environment_.scheduler->AtStepBoundary([] {});
  EXPECT_EQ(table_.Info(id)->token_count, 25 + 12);
  EXPECT_EQ(table_.Info(id)->pages, 3);
  job->Cancel();
  listener->Await();
}

TEST_F(SessionTableTest, DeletingARunningSessionCancelsItAndFreesItsPages) {
  const std::string id = AddOne(NewState());
  const auto listener = std::make_shared<RecordingListener>();
  Start(id, 450, listener);
  listener->AwaitTokens(2);
  ASSERT_TRUE(table_.Delete(id).ok());
  {
    RecordingListener::Outcome outcome = listener->Await();
    EXPECT_EQ(outcome.status, absl::CancelledError("the session was deleted"));
    table_.GiveBack(id, std::move(outcome.state));  // dropped
  }
  EXPECT_EQ(table_.size(), 0);
  environment_.scheduler->AtStepBoundary([] {});
  EXPECT_EQ(environment_.pool->used_pages(), 0);
}

TEST_F(SessionTableTest, AJobOfASessionThatWasDeletedBeforeItStartedIsCancelled) {
  const std::string id = AddOne(NewState());
  const auto listener = std::make_shared<RecordingListener>();
  const auto job = environment_.NewJob(Take(id).value(), Options({}, 100), listener);
  ASSERT_TRUE(table_.Delete(id).ok());
  table_.SetJob(id, job);
  EXPECT_TRUE(job->cancelled());
  EXPECT_STREQ(job->why_cancelled(), "the session was deleted");
}

TEST_F(SessionTableTest, ManyThreadsMayUseItAtOnce) {
  std::vector<SessionState> states;
  for (int i = 0; i < 3; ++i) states.push_back(NewState(i));
  std::atomic<int> generated{0};
  const auto user = [&](int thread) {
    for (int round = 0; round < 15; ++round) {
      const auto added = table_.Add({states[thread]}, kLease);
      if (!added.ok()) continue;
      const std::string id = added->front().id;
      uint64_t last = 0;
      for (const SessionInfo& other : table_.List(0, 10, last)) {
        if (round % 3 == 0) {
          (void)Capture(other.id);
        } else {
          (void)table_.Info(other.id);
        }
      }
      const auto listener = std::make_shared<RecordingListener>();
      absl::StatusOr<SessionState> state = Take(id);
      if (!state.ok()) continue;
      const auto job = environment_.NewJob(*std::move(state), Options({}, 5), listener);
      table_.SetJob(id, job);
      if (!environment_.scheduler->Submit(job, 5).ok()) continue;
      const bool early = round % 4 == 0;
      EXPECT_TRUE(!early || table_.Delete(id).ok());
      RecordingListener::Outcome outcome = listener->Await();
      table_.GiveBack(id, std::move(outcome.state));
      generated += outcome.result.generated_tokens;
      (void)table_.Delete(id);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(user, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(generated.load(), 0);
  EXPECT_EQ(table_.size(), 0);
  states.clear();
  environment_.scheduler->AtStepBoundary([] {});
  EXPECT_EQ(environment_.pool->used_pages(), 0);
}

}  // namespace
}  // namespace quicksave::server
