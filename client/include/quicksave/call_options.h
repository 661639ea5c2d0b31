// What a caller may set for one call: its time limit and a way to cancel it.

#ifndef QUICKSAVE_CALL_OPTIONS_H_
#define QUICKSAVE_CALL_OPTIONS_H_

#include <atomic>
#include <memory>
#include <optional>

#include "absl/time/time.h"

namespace quicksave::client {

// A handle that cancels the calls it was given to. Copies share one state; it is one-way and cannot be reset.
// Thread-safe. A call notices within about 20 ms, stops the server's work and returns CANCELLED.
//   CancellationToken token;
//   std::thread other([token] { token.Cancel(); });
//   client.Generate(request, callback, {.cancellation = token});
class CancellationToken {
 public:
  CancellationToken() : cancelled_(std::make_shared<std::atomic<bool>>(false)) {}

  // Cancels. Async-signal-safe: it only stores a lock-free flag.
  void Cancel() const noexcept { cancelled_->store(true, std::memory_order_release); }
  bool cancelled() const noexcept { return cancelled_->load(std::memory_order_acquire); }

 private:
  static_assert(std::atomic<bool>::is_always_lock_free);
  std::shared_ptr<std::atomic<bool>> cancelled_;
};

// Settings of one call; what is unset comes from ClientOptions.
struct CallOptions {
  // Longest time for the call, all its attempts and the waits between them. DEADLINE_EXCEEDED when it is over.
  std::optional<absl::Duration> timeout;
  // Cancels the call.
  std::optional<CancellationToken> cancellation;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_CALL_OPTIONS_H_
