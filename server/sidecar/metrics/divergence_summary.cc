#include "server/sidecar/metrics/divergence_summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "server/sidecar/metrics/divergence.h"
#include "server/sidecar/metrics/metric_input.h"

namespace quicksave::metrics {
namespace {

double Percentile(absl::Span<const double> sorted, double share) {
  const double rank = share * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

absl::StatusOr<Aggregate> AggregateOf(absl::Span<const double> values) {
  if (absl::Status status = CheckNumbers("list", values); !status.ok()) return status;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double sum = std::accumulate(sorted.begin(), sorted.end(), 0.0);
  return Aggregate{.count = sorted.size(),
                   .mean = sum / static_cast<double>(sorted.size()),
                   .p50 = Percentile(sorted, 0.5),
                   .p95 = Percentile(sorted, 0.95),
                   .p99 = Percentile(sorted, 0.99),
                   .max = sorted.back()};
}

absl::Status DivergenceRows::Add(absl::Span<const float> reference, absl::Span<const float> candidate,
                                 std::optional<int32_t> next_token) {
  const absl::StatusOr<double> kl = KlDivergence(reference, candidate);
  if (!kl.ok()) return kl.status();
  const absl::StatusOr<double> top_1 = TopKAgreement(reference, candidate, 1);
  if (!top_1.ok()) return top_1.status();
  const absl::StatusOr<double> top_k = TopKAgreement(reference, candidate, top_k_);
  if (!top_k.ok()) return top_k.status();
  if (next_token.has_value()) {
    const absl::StatusOr<double> of_reference = NegativeLogLikelihood(reference, *next_token);
    if (!of_reference.ok()) return of_reference.status();
    const absl::StatusOr<double> of_candidate = NegativeLogLikelihood(candidate, *next_token);
    if (!of_candidate.ok()) return of_candidate.status();
    reference_nll_.push_back(*of_reference);
    candidate_nll_.push_back(*of_candidate);
  }
  kl_.push_back(*kl);
  top_1_sum_ += *top_1;
  top_k_sum_ += *top_k;
  return absl::OkStatus();
}

absl::Status DivergenceRows::Append(const DivergenceRows& other) {
  if (top_k_ != other.top_k_) {
    return absl::InvalidArgumentError(
        absl::StrCat("agreement of the top ", other.top_k_, " cannot be added to that of the top ", top_k_));
  }
  const std::vector<double> kl = other.kl_;  // `other` may be this
  kl_.insert(kl_.end(), kl.begin(), kl.end());
  const std::vector<double> reference_nll = other.reference_nll_;
  reference_nll_.insert(reference_nll_.end(), reference_nll.begin(), reference_nll.end());
  const std::vector<double> candidate_nll = other.candidate_nll_;
  candidate_nll_.insert(candidate_nll_.end(), candidate_nll.begin(), candidate_nll.end());
  top_1_sum_ += other.top_1_sum_;
  top_k_sum_ += other.top_k_sum_;
  return absl::OkStatus();
}

absl::StatusOr<DivergenceSummary> DivergenceRows::Summarize() const {
  if (kl_.empty()) return absl::FailedPreconditionError("no position was scored, so there is nothing to summarise");
  const absl::StatusOr<Aggregate> kl = AggregateOf(kl_);
  if (!kl.ok()) return kl.status();
  const double count = static_cast<double>(kl_.size());
  DivergenceSummary summary{
      .kl = *kl, .top_1_agreement = top_1_sum_ / count, .top_k_agreement = top_k_sum_ / count, .top_k = top_k_};
  if (!reference_nll_.empty()) {
    const absl::StatusOr<double> ratio = PerplexityRatio(reference_nll_, candidate_nll_);
    if (!ratio.ok()) return ratio.status();
    summary.perplexity_ratio = *ratio;
  }
  return summary;
}

}  // namespace quicksave::metrics
