#ifndef QUICKSAVE_SERVER_SCHEDULER_CALL_CONTEXT_H_
#define QUICKSAVE_SERVER_SCHEDULER_CALL_CONTEXT_H_

#include <functional>

#include "absl/time/time.h"

namespace quicksave::server {

// How long a call's caller waits for it.
struct CallContext {
  absl::Time deadline = absl::InfiniteFuture();
  // Whether the caller has given up. Any thread.
  std::function<bool()> cancelled = [] { return false; };
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_CALL_CONTEXT_H_
