#include "server/service/scheduler_replayer.h"

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/scheduler/evaluate_job.h"

namespace quicksave::server {

absl::StatusOr<engine::Taps> SchedulerReplayer::Replay(absl::Span<const int32_t> tokens, const std::vector<int>& splits,
                                                       engine::Sequence& sequence, engine::PageReservation& pages) {
  if (absl::Status status = Check(tokens, splits, sequence.length()); !status.ok()) return status;
  // Moved, not copied: a last page that two sequences share would be copied.
  const auto job = std::make_shared<EvaluateJob>(std::exchange(sequence, engine::Sequence()),
                                                 std::vector<int32_t>(tokens.begin(), tokens.end()),
                                                 engine::LogitsWanted::kNone, EvaluateJob::Consumer());
  job->client = call_.client;
  job->deadline = call_.deadline;
  job->set_cancelled(call_.cancelled);
  if (!splits.empty()) {
    job->set_split(splits.back());
    job->set_taps(engine::Taps({.layers = splits, .all_tokens = true}, config_.hidden_size));
  }
  job->reservation = std::move(pages);
  const absl::Status status = scheduler_->Run(job, job->count());
  sequence = std::exchange(job->sequence(), engine::Sequence());
  pages = std::move(job->reservation);
  if (!status.ok()) return status;
  return job->captured();
}

absl::Status SchedulerReplayer::Check(absl::Span<const int32_t> tokens, const std::vector<int>& splits,
                                      int first_position) const {
  for (size_t i = 0; i < splits.size(); ++i) {
    if (splits[i] < 0 || splits[i] >= config_.layers || (i > 0 && splits[i] <= splits[i - 1])) {
      return absl::InvalidArgumentError(
          absl::StrCat("a split replay of layer ", splits[i], " of a model with ", config_.layers, " layers"));
    }
  }
  if (tokens.size() + first_position > static_cast<size_t>(config_.context_length)) {
    return absl::InvalidArgumentError(absl::StrCat("a replay of ", tokens.size(), " tokens after ", first_position,
                                                   " exceeds the context length, ", config_.context_length));
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= config_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("a replay of token id ", token, ", which is not in the vocabulary of ", config_.vocab_size));
    }
  }
  return absl::OkStatus();
}

}  // namespace quicksave::server
