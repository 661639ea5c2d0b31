#ifndef QUICKSAVE_SERVER_SERVICE_EVENT_QUEUE_H_
#define QUICKSAVE_SERVER_SERVICE_EVENT_QUEUE_H_

#include <deque>
#include <optional>
#include <utility>

#include "quicksave/v1/snapshot_service.pb.h"

namespace quicksave::server {

// Events of a generation that wait for its reader. Deltas that follow each other are joined, so a slow reader costs
// memory for tokens, not for messages. Not thread-safe.
class EventQueue {
 public:
  // Whether the generation should wait; what comes all the same is taken.
  bool Full() const {
    return events_.size() >= kMaxEvents ||
           (!events_.empty() && events_.back().delta().tokens_size() >= kMaxTokensInDelta);
  }

  void Push(v1::GenerateResponse event) {
    if (!event.has_delta() || events_.empty() || !events_.back().has_delta()) {
      events_.push_back(std::move(event));
      return;
    }
    v1::GenerateDelta* last = events_.back().mutable_delta();
    last->mutable_text()->append(event.delta().text());
    last->mutable_tokens()->MergeFrom(event.delta().tokens());
  }

  // The oldest event; nothing when none waits.
  std::optional<v1::GenerateResponse> Pop() {
    if (events_.empty()) return std::nullopt;
    v1::GenerateResponse event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  void Clear() { events_.clear(); }

 private:
  static constexpr size_t kMaxEvents = 16;
  static constexpr int kMaxTokensInDelta = 64;

  std::deque<v1::GenerateResponse> events_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_EVENT_QUEUE_H_
