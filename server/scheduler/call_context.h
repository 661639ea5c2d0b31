#ifndef QUICKSAVE_SERVER_SCHEDULER_CALL_CONTEXT_H_
#define QUICKSAVE_SERVER_SCHEDULER_CALL_CONTEXT_H_

#include <functional>
#include <string>

#include "absl/time/time.h"

namespace quicksave::server {

// Whose a call is, and how long its caller waits for it.
struct CallContext {
  // The connection it came on; calls of one client share what the client gets of the engine.
  std::string client;
  absl::Time deadline = absl::InfiniteFuture();
  // Whether the caller has given up. Any thread.
  std::function<bool()> cancelled = [] { return false; };
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_CALL_CONTEXT_H_
