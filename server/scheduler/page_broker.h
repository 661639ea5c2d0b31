#ifndef QUICKSAVE_SERVER_SCHEDULER_PAGE_BROKER_H_
#define QUICKSAVE_SERVER_SCHEDULER_PAGE_BROKER_H_

#include <cstdint>
#include <deque>
#include <functional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/page_pool.h"
#include "server/scheduler/call_context.h"

namespace quicksave::server {

// Gets pages for calls when the pool has none to spare: it has idle memory given back first, then waits until running
// calls end. First come, first served. Thread-safe; never on the engine thread.
//
// So that calls do not wait for each other in a circle, whoever waits here holds no pages. Pages that a call needs
// besides those it holds come from ReserveFew, which has a few pages of its own.
class PageBroker {
 public:
  struct Counters {
    int64_t waited = 0;   // reservations that were not granted at once
    int64_t refused = 0;  // and those never granted
  };

  // Waits at most `longest_wait`, or until the caller's deadline. `pool` must outlive the broker.
  PageBroker(engine::PagePool* pool, absl::Duration longest_wait);

  // Tries to have at least `pages` more pages free; returns whether any were freed. Set before use.
  void set_make_room(std::function<bool(int pages)> make_room) { make_room_ = std::move(make_room); }

  // RESOURCE_EXHAUSTED when there are not so many pages in all, or when they were not free in time; the caller's
  // DEADLINE_EXCEEDED or CANCELLED.
  absl::StatusOr<engine::PageReservation> Reserve(int pages, const CallContext& call);

  // Pages that Reserve leaves alone, for work that holds pages already and ends without waiting for anybody.
  absl::StatusOr<engine::PageReservation> ReserveFew(int pages, const CallContext& call);

  // The most that one Reserve can be granted.
  int most_pages() const { return pool_->total_pages() - headroom_; }
  Counters counters() const;

 private:
  // Reserves when `spare` pages stay free besides.
  absl::StatusOr<engine::PageReservation> TryReserve(int pages, int spare);
  // Tries until it is granted or `end`; notes whether it was not granted at once.
  absl::StatusOr<engine::PageReservation> Insist(int pages, int spare, const CallContext& call, absl::Time end,
                                                 bool& waited);

  engine::PagePool* const pool_;
  const absl::Duration longest_wait_;
  const int headroom_;
  std::function<bool(int)> make_room_ = [](int) { return false; };
  mutable absl::Mutex mutex_;
  std::deque<uint64_t> line_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  Counters counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_PAGE_BROKER_H_
