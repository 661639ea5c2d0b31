#include "server/stop_signal.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

StopSignal::StopSignal() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this] { Run(); });
}

StopSignal::~StopSignal() {
  ending_ = true;
  // Blocked in every thread, so it only wakes the one that waits for it.
  kill(getpid(), SIGTERM);
  thread_.join();
}

void StopSignal::Run() {
  const sigset_t signals = StopSignals();
  for (;;) {
    int number = 0;
    sigwait(&signals, &number);
    if (ending_) return;
    if (requested()) {
      LogEvent(spdlog::level::warn, "second signal: ending at once", {{"signal", int64_t{number}}});
      _exit(128 + number);
    }
    LogEvent(spdlog::level::info, "stopping", {{"signal", int64_t{number}}});
    requested_.Notify();
  }
}

}  // namespace quicksave::server
