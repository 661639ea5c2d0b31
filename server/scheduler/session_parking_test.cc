// Idle and ended sessions when memory is short.

#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/session_table.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

constexpr absl::Duration kLease = absl::Minutes(1);

// Keeps parked sequences by value, as a store would.
class MemoryParker : public StateParker {
 public:
  absl::StatusOr<std::string> Park(const SessionState& state) override {
    absl::MutexLock lock(&mutex_);
    ++attempts;
    if (fail) return absl::ResourceExhaustedError("the disk is full");
    const std::string name = std::to_string(++last_);
    Parked parked{state.sequence.tokens(), *state.sequence.next_logits(), {}, state.taps};
    for (const engine::PageRef& page : state.sequence.pages()) {
      parked.pages.emplace_back(reinterpret_cast<const char*>(page.data()), page.size());
    }
    parked_.emplace(name, std::move(parked));
    return name;
  }
  absl::StatusOr<ParkedState> Unpark(const std::string& name, engine::PageReservation& pages) override {
    absl::MutexLock lock(&mutex_);
    const auto it = parked_.find(name);
    if (it == parked_.end()) return absl::NotFoundError(name);
    std::vector<engine::PageRef> taken;
    for (const std::string& bytes : it->second.pages) {
      taken.push_back(pages.Take());
      std::memcpy(taken.back().data(), bytes.data(), bytes.size());
    }
    return ParkedState{engine::Sequence(it->second.tokens, std::move(taken),
                                        std::make_shared<const engine::Logits>(it->second.logits)),
                       it->second.taps};
  }
  void Drop(const std::string& name) override {
    absl::MutexLock lock(&mutex_);
    EXPECT_EQ(parked_.erase(name), 1u);
  }
  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return parked_.size();
  }

  bool fail = false;
  int attempts = 0;

 private:
  struct Parked {
    std::vector<int32_t> tokens;
    engine::Logits logits;
    std::vector<std::string> pages;
    engine::Taps taps;
  };
  mutable absl::Mutex mutex_;
  int last_ = 0;
  std::map<std::string, Parked> parked_;
};

// A pool of 40 pages; sessions of 25 tokens have two each.
class ParkingTest : public testing::Test {
 protected:
  ParkingTest() {
    environment_.broker->set_make_room([this](int) { return table_.MakeRoom(); });
  }
  SessionState NewState(uint64_t seed) {
    return environment_.Generate({.sampling = {.temperature = 1, .seed = seed}}, Options(TextTokens(20, seed), 5))
        .state;
  }
  std::string AddOne(SessionState state) {
    std::vector<SessionState> states;
    states.push_back(std::move(state));
    return table_.Add(std::move(states), kLease).value().front().id;
  }
  // Generates in a session; waits for memory if need be.
  std::vector<int32_t> Generate(const std::string& id, int max_tokens) {
    absl::StatusOr<TakenSession> taken =
        table_.Take(id, std::nullopt, {}, [&](int length) { return PagesToGrow(length, max_tokens); });
    EXPECT_TRUE(taken.ok()) << taken.status();
    if (!taken.ok()) return {};
    const auto listener = std::make_shared<RecordingListener>();
    const auto job = environment_.NewJob(std::move(taken->state), Options({}, max_tokens), listener);
    job->reservation = std::move(taken->pages);
    table_.SetJob(id, job);
    EXPECT_TRUE(environment_.scheduler->Submit(job, job->max_appended()).ok());
    RecordingListener::Outcome outcome = listener->Await();
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    table_.GiveBack(id, outcome.state);
    return outcome.ids();
  }

  SchedulerEnvironment environment_{40};
  MemoryParker parker_;
  SessionTable table_{{.max_sessions = 100}, environment_.scheduler.get(), environment_.broker.get(), &parker_};
};

TEST_F(ParkingTest, ManySessionsWorkInLittleMemoryWithTheSameResults) {
  std::vector<std::string> ids;
  std::vector<std::vector<int32_t>> expected;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const SessionState state = NewState(seed);
    expected.push_back(environment_.Generate(state, Options({}, 8)).ids());
    ids.push_back(AddOne(state));
    if (environment_.pool->free_pages() < 8) table_.MakeRoom();
  }
  EXPECT_GT(table_.counters().parked, 40);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = t; i < ids.size(); i += 4) EXPECT_EQ(Generate(ids[i], 8), expected[i]) << i;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(parker_.size(), size_t(table_.counters().parked));
  for (const std::string& id : ids) EXPECT_TRUE(table_.Delete(id).ok());
  EXPECT_EQ(parker_.size(), 0u);
  EXPECT_EQ(table_.counters().parked, 0);
}

TEST_F(ParkingTest, AParkedSessionIsDescribedAndCapturedAsIfItWereNot) {
  const SessionState state = NewState(1);
  const std::string id = AddOne(state);
  const int free_before = environment_.pool->free_pages();
  ASSERT_TRUE(table_.MakeRoom());
  EXPECT_FALSE(table_.MakeRoom()) << "there is no other";
  EXPECT_EQ(environment_.pool->free_pages(), free_before) << "the state of the test has the pages";
  const SessionInfo info = *table_.Info(id);
  EXPECT_TRUE(info.parked);
  EXPECT_EQ(info.token_count, 25);
  EXPECT_EQ(info.pages, 0);
  const TakenSession captured = table_.Capture(id, {}, [](int) { return 3; }).value();
  EXPECT_TRUE(SameSequence(captured.state.sequence, state.sequence));
  EXPECT_EQ(captured.pages.pages(), 3);
  EXPECT_FALSE(table_.Info(id)->parked);
  EXPECT_EQ(parker_.size(), 0u);
}

TEST_F(ParkingTest, HiddenStatesArePartOfWhatIsParked) {
  SessionState state = NewState(1);
  state.taps = engine::Taps({.layers = {1}, .all_tokens = true}, environment_.decoder->config().hidden_size);
  state = environment_.Generate(state, Options(TextTokens(10, 3), 5)).state;
  const engine::TapExtent extent = state.taps.extent();
  ASSERT_EQ(extent.token_count, 15);
  const std::string id = AddOne(state);
  EXPECT_EQ(table_.Info(id)->taps, extent);
  EXPECT_EQ(table_.counters().tap_bytes, extent.bytes());
  ASSERT_TRUE(table_.MakeRoom());
  EXPECT_EQ(table_.Info(id)->taps, extent);
  EXPECT_EQ(table_.counters().tap_bytes, 0);
  const TakenSession captured = table_.Capture(id, {}, [](int) { return 0; }).value();
  for (int token = 25; token < 40; ++token) EXPECT_TRUE(engine::SameTaps(captured.state.taps, state.taps, token));
  // While it generates it is described as far as it has come.
  TakenSession taken = table_.Take(id, std::nullopt, {}, [](int length) { return PagesToGrow(length, 5); }).value();
  const auto listener = std::make_shared<RecordingListener>();
  const EngineHold hold(environment_.scheduler.get());
  const auto job = environment_.NewJob(std::move(taken.state), Options({}, 5), listener);
  table_.SetJob(id, job);
  EXPECT_EQ(table_.Info(id)->taps, extent);
}

TEST_F(ParkingTest, TheSessionThatWasLeftAloneForLongestGoesFirst) {
  const std::string first = AddOne(NewState(1));
  const std::string second = AddOne(NewState(2));
  ASSERT_TRUE(table_.Capture(first, {}, [](int) { return 0; }).ok());
  ASSERT_TRUE(table_.MakeRoom());
  EXPECT_TRUE(table_.Info(second)->parked);
  EXPECT_FALSE(table_.Info(first)->parked);
}

TEST_F(ParkingTest, WhatCannotBeParkedStaysInMemory) {
  const SessionState state = NewState(1);
  const std::string id = AddOne(state);
  parker_.fail = true;
  EXPECT_FALSE(table_.MakeRoom());
  EXPECT_FALSE(table_.Info(id)->parked);
  EXPECT_EQ(environment_.broker->Reserve(environment_.broker->most_pages(), {}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(parker_.attempts, 1) << "it is not tried again at once";
  EXPECT_TRUE(SameSequence(table_.Capture(id, {}, [](int) { return 0; })->state.sequence, state.sequence));
}

TEST_F(ParkingTest, DeletedAndExpiredSessionsAreDropped) {
  const std::string deleted = AddOne(NewState(1));
  AddOne(NewState(2));
  while (table_.MakeRoom()) {
  }
  EXPECT_EQ(parker_.size(), 2u);
  EXPECT_TRUE(table_.Delete(deleted).ok());
  EXPECT_EQ(parker_.size(), 1u);
  EXPECT_EQ(table_.RemoveExpired(absl::Now() + 2 * kLease), 1);
  EXPECT_EQ(parker_.size(), 0u);
}

TEST_F(ParkingTest, EndedSessionsGoBeforeIdleOnes) {
  const std::string ended = AddOne(NewState(1));
  const std::string idle = AddOne(NewState(2));
  table_.End(ended);
  EXPECT_FALSE(table_.Info(ended).ok());
  ASSERT_TRUE(table_.MakeRoom());
  EXPECT_FALSE(table_.Info(idle)->parked);
  ASSERT_TRUE(table_.MakeRoom());
  EXPECT_TRUE(table_.Info(idle)->parked);
  EXPECT_FALSE(table_.MakeRoom());
  EXPECT_EQ(environment_.pool->free_pages(), environment_.pool->total_pages());
}

TEST_F(ParkingTest, SharesTheLongestPrefix) {
  const SessionState state = NewState(1);
  const std::vector<int32_t> tokens = state.sequence.tokens();
  AddOne(NewState(2));
  table_.End(AddOne(state));
  // Up to its end, with its logits.
  const engine::Sequence whole = table_.SharedPrefix(tokens);
  EXPECT_TRUE(SameSequence(whole, state.sequence));
  std::vector<int32_t> other(tokens.begin(), tokens.begin() + 21);
  other.push_back(tokens[21] + 1);
  const engine::Sequence part = table_.SharedPrefix(other);
  EXPECT_EQ(part.tokens(), std::vector<int32_t>(tokens.begin(), tokens.begin() + 21));
  EXPECT_EQ(part.next_logits(), nullptr);
  // Less than a page is not worth it.
  EXPECT_EQ(table_.SharedPrefix(absl::MakeConstSpan(tokens).first(15)).length(), 0);
  EXPECT_EQ(table_.SharedPrefix(TextTokens(30, 9)).length(), 0);
}

}  // namespace
}  // namespace quicksave::server
