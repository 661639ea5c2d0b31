#include "client/src/retry.h"

#include <algorithm>
#include <vector>

#include "client/src/error_details.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace quicksave::client {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::Le;

class FakeClock : public RetryClock {
 public:
  absl::Time Now() override { return now; }
  void Sleep(absl::Duration duration, const CallLimits&) override {
    now += duration;
    sleeps.push_back(duration);
  }

  absl::Time now = absl::UnixEpoch();
  std::vector<absl::Duration> sleeps;
};

auto Between(absl::Duration low, absl::Duration high) { return AllOf(Ge(low), Le(high)); }

absl::Status Unavailable(int) { return absl::UnavailableError("down"); }

absl::Status FullFor(int seconds) {
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_seconds(seconds);
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  return MakeStatus(absl::StatusCode::kResourceExhausted, "full", details.SerializeAsString());
}

absl::Status AbortedFor(const std::string& reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  google::rpc::Status details;
  details.add_details()->PackFrom(info);
  return MakeStatus(absl::StatusCode::kAborted, "aborted", details.SerializeAsString());
}

TEST(RetryTest, WaitsGrowUpToTheMaximumWithJitter) {
  FakeClock clock;
  const RetryPolicy policy{
      .max_attempts = 5, .initial_backoff = absl::Seconds(1), .max_backoff = absl::Seconds(3), .backoff_multiplier = 2};
  EXPECT_EQ(RunWithRetries(policy, {}, clock, Unavailable).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(clock.sleeps, ElementsAre(Between(absl::Milliseconds(500), absl::Seconds(1)),
                                        Between(absl::Seconds(1), absl::Seconds(2)),
                                        Between(absl::Milliseconds(1500), absl::Seconds(3)),
                                        Between(absl::Milliseconds(1500), absl::Seconds(3))));
}

TEST(RetryTest, JitterDiffersBetweenCalls) {
  FakeClock clock;
  for (int call = 0; call < 20; ++call) RunWithRetries({.max_attempts = 2}, {}, clock, Unavailable).IgnoreError();
  ASSERT_EQ(clock.sleeps.size(), 20);
  EXPECT_NE(*std::min_element(clock.sleeps.begin(), clock.sleeps.end()),
            *std::max_element(clock.sleeps.begin(), clock.sleeps.end()));
}

TEST(RetryTest, AttemptsAreCountedFromOne) {
  FakeClock clock;
  std::vector<int> attempts;
  const absl::Status status = RunWithRetries({.max_attempts = 4}, {}, clock, [&attempts](int attempt) {
    attempts.push_back(attempt);
    return attempt == 3 ? absl::OkStatus() : absl::UnavailableError("down");
  });
  EXPECT_TRUE(status.ok());
  EXPECT_THAT(attempts, ElementsAre(1, 2, 3));
}

TEST(RetryTest, ErrorsThatLastAreReturnedAtOnce) {
  for (const auto code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound, absl::StatusCode::kDataLoss,
        absl::StatusCode::kFailedPrecondition, absl::StatusCode::kInternal, absl::StatusCode::kDeadlineExceeded,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kAborted}) {
    FakeClock clock;
    EXPECT_EQ(RunWithRetries({}, {}, clock, [code](int) { return absl::Status(code, ""); }).code(), code);
    EXPECT_TRUE(clock.sleeps.empty()) << code;
  }
}

TEST(RetryTest, RepeatWaitsForTheFirstAttemptToEnd) {
  FakeClock clock;
  const absl::Status status = RunWithRetries({}, {}, clock, [](int attempt) {
    if (attempt == 1) return absl::UnavailableError("connection lost");
    return attempt == 2 ? AbortedFor("REQUEST_IN_PROGRESS") : absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(clock.sleeps.size(), 2);
}

TEST(RetryTest, OtherLostRacesAreReturnedAtOnce) {
  FakeClock clock;
  EXPECT_EQ(RunWithRetries({}, {}, clock, [](int) { return AbortedFor("ETAG_MISMATCH"); }).code(),
            absl::StatusCode::kAborted);
  EXPECT_TRUE(clock.sleeps.empty());
}

TEST(RetryTest, ServersDelayIsKept) {
  FakeClock clock;
  EXPECT_EQ(RunWithRetries({.max_attempts = 2}, {}, clock, [](int) { return FullFor(7); }).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(clock.sleeps, ElementsAre(absl::Seconds(7)));
}

TEST(RetryTest, NoWaitReachesTheDeadline) {
  FakeClock clock;
  const CallLimits limits{.deadline = clock.now + absl::Seconds(7)};
  EXPECT_EQ(RunWithRetries({}, limits, clock, [](int) { return FullFor(4); }).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(clock.sleeps, ElementsAre(absl::Seconds(4)));
}

TEST(RetryTest, CancellationStopsFurtherAttempts) {
  FakeClock clock;
  const CancellationToken token;
  int attempts = 0;
  const absl::Status status = RunWithRetries({}, {.cancellation = token}, clock, [&](int) {
    ++attempts;
    token.Cancel();
    return absl::UnavailableError("down");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(attempts, 1);
}

}  // namespace
}  // namespace quicksave::client
