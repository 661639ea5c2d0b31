// The limits that one call runs under, resolved from CallOptions and ClientOptions.

#ifndef QUICKSAVE_CLIENT_SRC_CALL_LIMITS_H_
#define QUICKSAVE_CLIENT_SRC_CALL_LIMITS_H_

#include <optional>

#include "absl/time/time.h"
#include "quicksave/call_options.h"

namespace quicksave::client {

// How long a call that waits takes to notice its CancellationToken.
inline constexpr absl::Duration kCancellationPoll = absl::Milliseconds(20);

struct CallLimits {
  // When the call ends at the latest, retries included.
  absl::Time deadline = absl::InfiniteFuture();
  // Cancels it.
  std::optional<CancellationToken> cancellation;

  bool cancelled() const { return cancellation.has_value() && cancellation->cancelled(); }
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_CALL_LIMITS_H_
