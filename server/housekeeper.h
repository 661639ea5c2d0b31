#ifndef QUICKSAVE_SERVER_HOUSEKEEPER_H_
#define QUICKSAVE_SERVER_HOUSEKEEPER_H_

#include <thread>

#include "absl/synchronization/notification.h"
#include "server/service/core.h"

namespace quicksave::server {

// A thread that collects garbage (once, at its start), forgets old request ids (then and every hour) and ends sessions
// whose lease is over (every second). `core` must outlive it.
class Housekeeper {
 public:
  explicit Housekeeper(Core* core) : core_(core), thread_([this] { Run(); }) {}
  ~Housekeeper() {
    stopping_.Notify();
    thread_.join();
  }
  Housekeeper(const Housekeeper&) = delete;
  Housekeeper& operator=(const Housekeeper&) = delete;

 private:
  void Run();

  Core* const core_;
  absl::Notification stopping_;
  std::thread thread_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_HOUSEKEEPER_H_
