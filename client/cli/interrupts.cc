#include "client/cli/interrupts.h"

#include <signal.h>

#include <atomic>
#include <deque>

namespace quicksave::cli {
namespace {

std::atomic<const client::CancellationToken*> armed{nullptr};

// Only async-signal-safe calls.
void OnSignal(int signal) {
  const client::CancellationToken* token = armed.load();
  if (token->cancelled()) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  } else {
    token->Cancel();
  }
}

}  // namespace

client::CancellationToken ArmInterrupts() {
  // A handler may be reading any token that was ever armed, so none is freed; there is one for each interrupted answer.
  static auto* tokens = new std::deque<client::CancellationToken>();
  armed = &tokens->emplace_back();
  struct sigaction action {};
  action.sa_handler = OnSignal;  // Without SA_RESTART, so that a waiting read ends.
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return tokens->back();
}

}  // namespace quicksave::cli
