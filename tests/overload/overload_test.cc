// 200 callers at once, some of whom give up, have no time or read slowly: the server refuses what does not fit, in the
// documented ways, stays within its memory, and holds nothing when they are gone.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quicksave/errors.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

constexpr int kCallers = 200;
constexpr int kCallsOfEach = 3;
constexpr int64_t kKvMemory = int64_t{64} << 20;
// What a server may take besides its KV cache once it is warm: buffers of calls, blocks that are encoded, caches.
constexpr int64_t kSlack = int64_t{400} << 20;

SharedServer* const kServer =
    SharedServer::Register({"--kv-memory=64MiB", "--max-sessions=48", "--max-queued-requests=64"});
const client::Client& Client() { return kServer->client(); }

// How calls ended. Thread-safe.
class Tally {
 public:
  void Add(const absl::Status& status) {
    const absl::MutexLock lock(&mutex_);
    counts_[status.code()]++;
    if (!IsDocumented(status)) undocumented_.push_back(status.ToString());
  }
  int count(absl::StatusCode code) const {
    const absl::MutexLock lock(&mutex_);
    const auto found = counts_.find(code);
    return found == counts_.end() ? 0 : found->second;
  }
  std::vector<std::string> undocumented() const {
    const absl::MutexLock lock(&mutex_);
    return undocumented_;
  }

 private:
  // What a caller may meet that asks for nothing wrong.
  static bool IsDocumented(const absl::Status& status) {
    switch (status.code()) {
      case absl::StatusCode::kOk:
      case absl::StatusCode::kCancelled:
      case absl::StatusCode::kDeadlineExceeded:
        return true;
      case absl::StatusCode::kResourceExhausted:
        return !client::ErrorReason(status).empty() && client::ErrorRetryDelay(status).has_value();
      default:
        return false;
    }
  }

  mutable absl::Mutex mutex_;
  std::map<absl::StatusCode, int> counts_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> undocumented_ ABSL_GUARDED_BY(mutex_);
};

// The kinds of calls, all from one node.
class Caller {
 public:
  explicit Caller(std::string node) : node_{.name = std::move(node)} {}

  absl::Status Call(int kind) const {
    switch (kind % 9) {
      case 0:
        return Short();
      case 1:
        return GivenUp();
      case 2:
        return Late();
      case 3:
        return ErrorOf(Client().Score({.start = node_, .continuations = {std::string(" yes"), std::string(" no")}}));
      case 4:
        return ErrorOf(Client().ListNodes());
      case 5:
        return Saved();
      case 6:
        return RestoredAndLeft();
      case 7:
        return ErrorOf(Client().ListSessions());
      default:
        return ReadSlowly();
    }
  }

 private:
  absl::Status Short() const { return ErrorOf(Generate(Client(), {.start = node_, .stop = {.max_tokens = 3}})); }

  absl::Status GivenUp() const {
    const client::CancellationToken token;
    const auto give_up = [&](const client::GenerateEvent&) {
      token.Cancel();
      return true;
    };
    return ErrorOf(Client().Generate({.start = node_, .stop = {.max_tokens = 500, .ignore_eos = true}}, give_up,
                                     {.cancellation = token}));
  }

  absl::Status Late() const {
    return ErrorOf(Generate(Client(), {.start = node_, .stop = {.max_tokens = 500, .ignore_eos = true}},
                            {.timeout = absl::Milliseconds(15)}));
  }

  absl::Status Saved() const {
    return ErrorOf(Generate(
        Client(), {.start = node_, .stop = {.max_tokens = 2, .ignore_eos = true}, .save = client::SaveOptions{}}));
  }

  absl::Status RestoredAndLeft() const {
    return ErrorOf(Client().Restore({.node = node_.name, .lease = absl::Seconds(2)}));
  }

  // Reads more slowly than the server generates.
  absl::Status ReadSlowly() const {
    const auto read = [](const client::GenerateEvent&) {
      // Not to wait for anything: this is what makes the reader slow.
      absl::SleepFor(absl::Milliseconds(30));
      return true;
    };
    return ErrorOf(
        Client().Generate({.start = node_, .stop = {.max_tokens = 8, .ignore_eos = true}, .top_logprobs = 100}, read));
  }

  const client::FromNode node_;
};

TEST(OverloadTest, TwoHundredCallersAtOnce) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation base,
      Generate(Client(), {.input = Prose(4), .stop = {.max_tokens = 0}, .save = client::SaveOptions{}}));
  const Caller caller(base.saved.at(0).node.name);
  for (int kind = 0; kind < 9; kind++) caller.Call(kind).IgnoreError();
  const int64_t before = kServer->process().ResidentBytes();
  Tally tally;
  std::atomic<int> running{kCallers};
  std::vector<std::thread> threads;
  for (int i = 0; i < kCallers; i++) {
    threads.emplace_back([&, i] {
      for (int call = 0; call < kCallsOfEach; call++) tally.Add(caller.Call(i + call * 4));
      running--;
    });
  }
  int64_t most = before;
  while (running > 0) {
    most = std::max(most, kServer->process().ResidentBytes());
    absl::SleepFor(absl::Milliseconds(50));
  }
  for (std::thread& thread : threads) thread.join();
  std::cout << tally.count(absl::StatusCode::kOk) << " done, " << tally.count(absl::StatusCode::kResourceExhausted)
            << " refused, memory " << (before >> 20) << " to " << (most >> 20) << " MiB" << std::endl;
  EXPECT_THAT(tally.undocumented(), testing::IsEmpty());
  EXPECT_GT(tally.count(absl::StatusCode::kOk), kCallers / 4);
  EXPECT_GT(tally.count(absl::StatusCode::kResourceExhausted), 0) << "no limit was reached, the test proves little";
  EXPECT_GT(tally.count(absl::StatusCode::kDeadlineExceeded), 0);
  EXPECT_LT(most, before + kKvMemory + kSlack);
  ASSERT_TRUE(DeleteAllSessions(Client()).ok());
  ExpectNothingHeld(Client());
  // And goes on as ever.
  EXPECT_TRUE(caller.Call(0).ok());
  EXPECT_TRUE(Client().VerifyNode({.name = base.saved[0].node.name, .replay = true}).ok());
}

// One of many short calls, of which three in ten are given up and one in ten has no time.
absl::Status MixedCall(int number) {
  client::GenerateRequest request{.input = absl::StrCat("Number ", number % 1000, " of many:"),
                                  .stop = {.max_tokens = 2}};
  switch (number % 10) {
    case 0:
    case 3:
    case 6: {
      const client::CancellationToken token;
      request.stop = {.max_tokens = 200, .ignore_eos = true};
      const auto give_up = [&](const client::GenerateEvent&) {
        token.Cancel();
        return true;
      };
      return ErrorOf(Client().Generate(request, give_up, {.cancellation = token}));
    }
    case 1:
      return ErrorOf(Generate(Client(), request, {.timeout = absl::Milliseconds(2)}));
    case 2:
      return ErrorOf(Client().ListSessions());
    case 4: {
      const absl::StatusOr<std::string> session = NewSession(Client(), "Once");
      if (!session.ok()) return session.status();
      const absl::Status scored =
          ErrorOf(Client().Score({.start = client::FromSession{*session}, .continuations = {std::string(" upon")}}));
      const absl::Status deleted = Client().DeleteSession({.name = *session});
      return scored.ok() ? deleted : scored;
    }
    default:
      return ErrorOf(Generate(Client(), request));
  }
}

TEST(OverloadTest, TenThousandCallsLeaveNoMemoryBehind) {
  constexpr int kCalls = 10000;
  constexpr int kWarmUp = 2000;
  constexpr int kThreads = 24;
  constexpr int64_t kGrowth = int64_t{48} << 20;  // of the allocator's
  Tally tally;
  std::atomic<int> next{0};
  const auto call_until = [&](int end) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++) {
      threads.emplace_back([&] {
        for (int number = next++; number < end; number = next++) tally.Add(MixedCall(number));
      });
    }
    for (std::thread& thread : threads) thread.join();
    next = end;
    return kServer->process().ResidentBytes();
  };
  const int64_t before = call_until(kWarmUp);
  const int64_t after = call_until(kCalls);
  std::cout << tally.count(absl::StatusCode::kOk) << " done, " << tally.count(absl::StatusCode::kCancelled)
            << " given up, " << tally.count(absl::StatusCode::kDeadlineExceeded) << " late, "
            << tally.count(absl::StatusCode::kResourceExhausted) << " refused, memory " << (before >> 20) << " to "
            << (after >> 20) << " MiB" << std::endl;
  EXPECT_THAT(tally.undocumented(), testing::IsEmpty());
  EXPECT_GT(tally.count(absl::StatusCode::kOk), kCalls / 2);
  EXPECT_GT(tally.count(absl::StatusCode::kCancelled), kCalls / 4);
  EXPECT_GT(tally.count(absl::StatusCode::kDeadlineExceeded), 0);
  EXPECT_LT(after, before + kGrowth);
  ASSERT_TRUE(DeleteAllSessions(Client()).ok());
  ExpectNothingHeld(Client());
}

// Two calls may not extend one session at a time; both leave it usable.
TEST(OverloadTest, CallsOnOneSessionDoNotTearIt) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prose(3)));
  std::vector<absl::Status> ends(12);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ends.size(); i++) {
    threads.emplace_back([&, i] {
      if (i % 3 == 0) {
        ends[i] = ErrorOf(GoOn(Client(), client::FromSession{session}, 3));
      } else if (i % 3 == 1) {
        ends[i] = ErrorOf(Client().Snapshot({.session = session}));
      } else {
        ends[i] = ErrorOf(Client().Branch({.start = client::FromSession{session}, .count = 2}));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& end : ends) {
    EXPECT_TRUE(end.ok() || absl::IsAborted(end) || absl::IsFailedPrecondition(end) || absl::IsResourceExhausted(end))
        << end;
  }
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Session state,
                                 Client().GetSession({.name = session, .view = client::View::kFull}));
  EXPECT_EQ(state.token_ids.size(), static_cast<size_t>(state.token_count));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, Client().Snapshot({.session = session}));
  EXPECT_TRUE(Client().VerifyNode({.name = saved.node.name, .replay = true}).ok());
}

}  // namespace
}  // namespace quicksave::integration
