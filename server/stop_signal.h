#ifndef QUICKSAVE_SERVER_STOP_SIGNAL_H_
#define QUICKSAVE_SERVER_STOP_SIGNAL_H_

#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"

namespace quicksave::server {

// Waits for SIGTERM and SIGINT on a thread of its own, so that nothing has to be safe inside a signal handler. The
// second signal ends the process at once, with exit code 128 plus its number. Make it before any other thread, which
// then inherits that the signals are blocked. One at a time.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Whether one came.
  bool requested() const { return requested_.HasBeenNotified(); }
  // Waits for one.
  void Wait() const { requested_.WaitForNotification(); }

 private:
  void Run();

  absl::Notification requested_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_STOP_SIGNAL_H_
