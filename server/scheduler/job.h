#ifndef QUICKSAVE_SERVER_SCHEDULER_JOB_H_
#define QUICKSAVE_SERVER_SCHEDULER_JOB_H_

#include <atomic>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/engine/model/decoder.h"
#include "server/engine/page_pool.h"
#include "server/engine/sequence.h"
#include "server/engine/taps.h"

namespace quicksave::server {

// Work for the engine: feeds tokens to a sequence, looks at logits, and decides what to feed next. The scheduler runs
// many at once.
//
// The scheduler calls, on the engine thread: Next, then (when it returned tokens) OnFed, a forward pass and Consume,
// and so on until Next returns nothing; and last, exactly once, Finish. When there is no memory for the tokens, it may
// wait after Next, and Finish may follow. Cancel may be called from any thread.
class Job {
 public:
  struct Feed {
    absl::Span<const int32_t> tokens;  // valid until Consume
    engine::LogitsWanted logits = engine::LogitsWanted::kNone;
  };

  virtual ~Job() = default;

  // The sequence that is fed.
  virtual engine::Sequence& sequence() = 0;
  // Where hidden states of what is fed go; null when none are captured.
  virtual engine::Taps* taps() { return nullptr; }
  // Set for a job whose tokens go through the first layers only, as engine::Slice::split says, and which asks for no
  // logits. The same throughout.
  virtual std::optional<int> split() const { return std::nullopt; }
  // Tokens that are waiting to be fed: 1 while decoding. Jobs with one come before those with many.
  virtual int backlog() const = 0;
  // Whether to leave the job out of this step, because its reader is slow.
  virtual bool paused() const { return false; }
  // Tokens to feed now, at most `budget`; none when the job is done.
  virtual Feed Next(int budget) = 0;
  // What Next returned has its pages and is appended to the sequence next: now it may be given out.
  virtual void OnFed() {}
  // Takes the logits of the rows that Next asked for: [rows, vocabulary], valid during the call.
  virtual void Consume(absl::Span<const float> logits) = 0;
  // The end: OK when done, else CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED (pages) or UNAVAILABLE (shutdown).
  // The sequence is whole: it has exactly the tokens that were fed. What is reserved still is not needed any more, and
  // must go before the pool does.
  virtual void Finish(const absl::Status& status) = 0;

  // Makes the job end with CANCELLED before its next step. `why`, a literal, is what its caller is told.
  void Cancel(const char* why = kCallerCancelled) { why_cancelled_.store(why, std::memory_order_relaxed); }
  virtual bool cancelled() const { return why_cancelled_.load(std::memory_order_relaxed) != nullptr; }
  const char* why_cancelled() const {
    const char* why = why_cancelled_.load(std::memory_order_relaxed);
    return why == nullptr ? kCallerCancelled : why;
  }

  // As in CallContext.
  std::string client;
  // After this time the job ends with DEADLINE_EXCEEDED; before it when what waits to be fed cannot be fed by then.
  absl::Time deadline = absl::InfiniteFuture();
  // Pages that the job's appends take from.
  engine::PageReservation reservation;
  // The scheduler's: what waits for a page, and since when.
  std::optional<Feed> starved_feed;
  absl::Time starved_since = absl::InfiniteFuture();
  // The scheduler's: the step that last fed it; 0 before the first.
  int64_t last_step = 0;

 private:
  static constexpr char kCallerCancelled[] = "the caller cancelled the call";

  std::atomic<const char*> why_cancelled_{nullptr};
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_JOB_H_
