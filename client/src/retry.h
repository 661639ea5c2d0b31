// Trying a call again: exponential backoff with jitter, within the call's deadline, interruptible.

#ifndef QUICKSAVE_CLIENT_SRC_RETRY_H_
#define QUICKSAVE_CLIENT_SRC_RETRY_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/src/call_limits.h"
#include "quicksave/options.h"

namespace quicksave::client {

// The time that retries see; tests give their own.
class RetryClock {
 public:
  virtual ~RetryClock() = default;
  virtual absl::Time Now() = 0;
  // Sleeps; returns early when the call is cancelled.
  virtual void Sleep(absl::Duration duration, const CallLimits& limits) = 0;
};

// Returns the clock of the process.
RetryClock& SystemRetryClock();

// Calls `attempt(number)`, number from 1, until it succeeds, fails with an error that is not worth a retry, or
// attempts, time or the caller's patience are over; returns the last result, or CANCELLED when it was cancelled while
// waiting.
absl::Status RunWithRetries(const RetryPolicy& policy, const CallLimits& limits, RetryClock& clock,
                            absl::FunctionRef<absl::Status(int)> attempt);

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_RETRY_H_
