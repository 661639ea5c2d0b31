#ifndef QUICKSAVE_SERVER_ARCHIVE_STOPWATCH_H_
#define QUICKSAVE_SERVER_ARCHIVE_STOPWATCH_H_

#include <chrono>

#include "absl/time/time.h"

namespace quicksave::server {

// Measures consecutive stages of work. One thread.
class Stopwatch {
 public:
  // Time since construction or the last call, which ever was later.
  absl::Duration Lap() {
    const auto now = std::chrono::steady_clock::now();
    const absl::Duration lap = absl::FromChrono(now - last_);
    last_ = now;
    return lap;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_STOPWATCH_H_
