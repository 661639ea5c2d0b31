#ifndef QUICKSAVE_SERVER_SCHEDULER_EVALUATE_JOB_H_
#define QUICKSAVE_SERVER_SCHEDULER_EVALUATE_JOB_H_

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "server/scheduler/job.h"

namespace quicksave::server {

// Feeds known tokens to a sequence and hands out the logits: for scores, proofs, replays and calibration.
class EvaluateJob : public Job {
 public:
  // Called on the engine thread with the index (in `tokens`) of the first row and the rows' logits [rows, vocabulary].
  using Consumer = std::function<void(size_t first_token, absl::Span<const float> logits)>;

  // `consumer` may be empty when `wanted` is kNone.
  EvaluateJob(engine::Sequence sequence, std::vector<int32_t> tokens, engine::LogitsWanted wanted, Consumer consumer)
      : sequence_(std::move(sequence)), tokens_(std::move(tokens)), wanted_(wanted), consumer_(std::move(consumer)) {}

  // Captures hidden states of what is fed.
  void set_taps(engine::Taps taps) { taps_ = std::move(taps); }
  // Those, after the end.
  const engine::Taps& captured() const { return taps_; }

  // Computes the first layers only, as engine::Slice::split says, and so no logits.
  void set_split(std::optional<int> split) { split_ = split; }

  // Asked before each step whether the caller has given up, in addition to Cancel.
  void set_cancelled(std::function<bool()> cancelled) { asks_cancelled_ = std::move(cancelled); }
  bool cancelled() const override { return Job::cancelled() || (asks_cancelled_ != nullptr && asks_cancelled_()); }

  // Tokens that it appends, for Scheduler::Run.
  int count() const { return static_cast<int>(tokens_.size()); }

  engine::Sequence& sequence() override { return sequence_; }
  engine::Taps* taps() override { return taps_.on() ? &taps_ : nullptr; }
  std::optional<int> split() const override { return split_; }
  int backlog() const override { return static_cast<int>(tokens_.size() - fed_); }
  Feed Next(int budget) override {
    feeding_ = std::min<size_t>(budget, tokens_.size() - fed_);
    const bool last = fed_ + feeding_ == tokens_.size();
    const bool none = split_ || (wanted_ == engine::LogitsWanted::kLast && !last);
    return {absl::MakeConstSpan(tokens_).subspan(fed_, feeding_), none ? engine::LogitsWanted::kNone : wanted_};
  }
  void Consume(absl::Span<const float> logits) override {
    const bool all = wanted_ == engine::LogitsWanted::kAll;
    if (!logits.empty()) consumer_(all ? fed_ : fed_ + feeding_ - 1, logits);
    fed_ += feeding_;
  }
  void Finish(const absl::Status& status) override {
    status_ = status;
    finished_.Notify();
  }

  // Waits for the end and says how it was. Then the sequence, and what is left of the reservation, are the caller's.
  // Not on the engine thread.
  absl::Status Await() {
    finished_.WaitForNotification();
    return status_;
  }

 private:
  engine::Sequence sequence_;
  engine::Taps taps_;
  std::optional<int> split_;
  const std::vector<int32_t> tokens_;
  const engine::LogitsWanted wanted_;
  const Consumer consumer_;
  std::function<bool()> asks_cancelled_;
  size_t fed_ = 0;
  size_t feeding_ = 0;
  absl::Status status_;
  absl::Notification finished_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_EVALUATE_JOB_H_
