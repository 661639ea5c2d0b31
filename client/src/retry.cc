#include "client/src/retry.h"

#include <algorithm>
#include <cmath>

#include "absl/random/random.h"
#include "absl/time/clock.h"
#include "quicksave/errors.h"

namespace quicksave::client {
namespace {

class SystemClock : public RetryClock {
 public:
  absl::Time Now() override { return absl::Now(); }

  void Sleep(absl::Duration duration, const CallLimits& limits) override {
    const absl::Time end = Now() + duration;
    for (absl::Time now = Now(); now < end && !limits.cancelled(); now = Now()) {
      absl::SleepFor(std::min(end - now, kCancellationPoll));
    }
  }
};

// Whether the server still works on an earlier attempt, whose answer was lost.
bool IsInProgress(const absl::Status& status) {
  return absl::IsAborted(status) && ErrorReason(status) == "REQUEST_IN_PROGRESS";
}

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || IsInProgress(status) ||
         (absl::IsResourceExhausted(status) && ErrorRetryDelay(status).has_value());
}

// The wait after attempt `number`: between half of and the whole exponential step, and not less than the server asks
// for.
absl::Duration Backoff(const RetryPolicy& policy, int number, const absl::Status& status) {
  thread_local absl::BitGen random;
  const absl::Duration step =
      std::min(policy.initial_backoff * std::pow(policy.backoff_multiplier, number - 1), policy.max_backoff);
  const absl::Duration jittered = step * absl::Uniform(random, 0.5, 1.0);
  return std::max(jittered, ErrorRetryDelay(status).value_or(absl::ZeroDuration()));
}

}  // namespace

RetryClock& SystemRetryClock() {
  static SystemClock clock;
  return clock;
}

absl::Status RunWithRetries(const RetryPolicy& policy, const CallLimits& limits, RetryClock& clock,
                            absl::FunctionRef<absl::Status(int)> attempt) {
  for (int number = 1;; ++number) {
    absl::Status status = attempt(number);
    if (status.ok() || !IsTransient(status) || number >= policy.max_attempts) return status;
    const absl::Duration wait = Backoff(policy, number, status);
    if (clock.Now() + wait >= limits.deadline) return status;
    clock.Sleep(wait, limits);
    if (limits.cancelled()) return absl::CancelledError("cancelled by the caller");
  }
}

}  // namespace quicksave::client
