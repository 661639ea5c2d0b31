// Many scored positions made into the few figures that are reported.
//
//   DivergenceRows rows;
//   for (...) { absl::Status status = rows.Add(live_logits, restored_logits, next_token); ... }
//   absl::StatusOr<DivergenceSummary> summary = rows.Summarize();

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_DIVERGENCE_SUMMARY_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_DIVERGENCE_SUMMARY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quicksave::metrics {

// Mean, percentiles and maximum of values of one unit. Percentiles interpolate linearly between the two nearest ranks
// (numpy's default): p99 of fewer than 100 values lies between the two largest.
struct Aggregate {
  size_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p95 = 0;
  double p99 = 0;
  double max = 0;
};

// INVALID_ARGUMENT for no values, NaN or infinity. Cost: one sort.
absl::StatusOr<Aggregate> AggregateOf(absl::Span<const double> values);

struct DivergenceSummary {
  Aggregate kl;                // KL(live || restored) of each position, nats
  double top_1_agreement = 0;  // share of the positions, in [0, 1]
  double top_k_agreement = 0;  // mean over the positions, see TopKAgreement
  size_t top_k = 0;
  // Of the positions that were added with their next token; none if there was none.
  std::optional<double> perplexity_ratio;
};

// Collects positions, 24 bytes each. Owned by one thread; for several, have one in each and append them.
class DivergenceRows {
 public:
  explicit DivergenceRows(size_t top_k = 10) : top_k_(top_k) {}

  // Adds a position: the logits of the live and of the restored state, and the token that the text goes on with.
  // INVALID_ARGUMENT as the functions of divergence.h; the position is not added then.
  absl::Status Add(absl::Span<const float> reference, absl::Span<const float> candidate,
                   std::optional<int32_t> next_token = std::nullopt);

  // Adds all positions of another. INVALID_ARGUMENT if its k is another.
  absl::Status Append(const DivergenceRows& other);

  // FAILED_PRECONDITION if no position was added.
  absl::StatusOr<DivergenceSummary> Summarize() const;

  // Positions added.
  size_t size() const { return kl_.size(); }

 private:
  size_t top_k_;
  std::vector<double> kl_;
  double top_1_sum_ = 0;
  double top_k_sum_ = 0;
  // Negative log-likelihoods of the next tokens.
  std::vector<double> reference_nll_;
  std::vector<double> candidate_nll_;
};

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_DIVERGENCE_SUMMARY_H_
