#include "server/sidecar/metrics/divergence.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/sidecar/metrics/metric_input.h"

namespace quicksave::metrics {
namespace {

double LogSumExp(absl::Span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

// Ids of the k largest, ascending.
std::vector<size_t> LargestIds(absl::Span<const float> logits, size_t k) {
  std::vector<size_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), size_t{0});
  const auto before = [logits](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  std::nth_element(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(k) - 1, ids.end(), before);
  ids.resize(k);
  std::sort(ids.begin(), ids.end());
  return ids;
}

double Mean(absl::Span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

absl::StatusOr<double> KlDivergence(absl::Span<const float> reference, absl::Span<const float> candidate) {
  if (absl::Status status = CheckPair(reference, candidate); !status.ok()) return status;
  const double reference_sum = LogSumExp(reference);
  const double candidate_sum = LogSumExp(candidate);
  double divergence = 0;
  for (size_t id = 0; id < reference.size(); ++id) {
    const double log_p = reference[id] - reference_sum;
    divergence += std::exp(log_p) * (log_p - (candidate[id] - candidate_sum));
  }
  return std::max(0.0, divergence);
}

absl::StatusOr<double> TopKAgreement(absl::Span<const float> reference, absl::Span<const float> candidate, size_t k) {
  if (absl::Status status = CheckPair(reference, candidate); !status.ok()) return status;
  if (k < 1 || k > reference.size()) {
    return absl::InvalidArgumentError(absl::StrCat("k is ", k, ", but must be in [1, ", reference.size(), "]"));
  }
  const std::vector<size_t> of_reference = LargestIds(reference, k);
  const std::vector<size_t> of_candidate = LargestIds(candidate, k);
  std::vector<size_t> common;
  std::set_intersection(of_reference.begin(), of_reference.end(), of_candidate.begin(), of_candidate.end(),
                        std::back_inserter(common));
  return static_cast<double>(common.size()) / static_cast<double>(k);
}

absl::StatusOr<double> NegativeLogLikelihood(absl::Span<const float> logits, int32_t token) {
  if (absl::Status status = CheckNumbers("logit row", logits); !status.ok()) return status;
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) {
    return absl::InvalidArgumentError(absl::StrCat("token ", token, " is not among the ", logits.size(), " logits"));
  }
  return LogSumExp(logits) - logits[static_cast<size_t>(token)];
}

absl::StatusOr<double> PerplexityRatio(absl::Span<const double> reference, absl::Span<const double> candidate) {
  if (absl::Status status = CheckSameCount("tokens", reference.size(), candidate.size()); !status.ok()) return status;
  if (absl::Status status = CheckNumbers("reference", reference); !status.ok()) return status;
  if (absl::Status status = CheckNumbers("candidate", candidate); !status.ok()) return status;
  return std::exp(Mean(candidate) - Mean(reference));
}

std::optional<size_t> FirstDivergence(absl::Span<const int32_t> reference, absl::Span<const int32_t> candidate) {
  const auto [at, other] = std::mismatch(reference.begin(), reference.end(), candidate.begin(), candidate.end());
  if (at == reference.end() && other == candidate.end()) return std::nullopt;
  return static_cast<size_t>(at - reference.begin());
}

}  // namespace quicksave::metrics
