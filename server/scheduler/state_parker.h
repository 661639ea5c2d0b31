#ifndef QUICKSAVE_SERVER_SCHEDULER_STATE_PARKER_H_
#define QUICKSAVE_SERVER_SCHEDULER_STATE_PARKER_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/engine/page_pool.h"
#include "server/scheduler/session_state.h"

namespace quicksave::server {

// What parking takes out of memory.
struct ParkedState {
  engine::Sequence sequence;
  engine::Taps taps;
};

// Where the K, V, logits and hidden states of idle sessions go when memory is short. Thread-safe; methods block.
class StateParker {
 public:
  virtual ~StateParker() = default;
  // Stores sequence and hidden states of a state that has tokens and next-token logits, and names it.
  virtual absl::StatusOr<std::string> Park(const SessionState& state) = 0;
  // Brings them back, bit for bit, the sequence into pages taken from `pages`. They stay parked.
  virtual absl::StatusOr<ParkedState> Unpark(const std::string& name, engine::PageReservation& pages) = 0;
  // Forgets a parked state.
  virtual void Drop(const std::string& name) = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_STATE_PARKER_H_
