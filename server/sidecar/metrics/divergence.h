// How far the next-token distributions and the tokens of a restored state are from those of the live one: what a
// program that goes on from the state notices. See docs/metrics.md.
//
// Logit rows hold one value for each token of the vocabulary, unnormalised. All sums are in double. Every function that
// returns a status returns INVALID_ARGUMENT for empty input, for two different sizes and for values that are NaN or
// infinite. Any thread.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_DIVERGENCE_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_DIVERGENCE_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quicksave::metrics {

// KL(p || q) in nats of the softmaxes of two logit rows, p the live state's. At least 0: what rounding makes negative
// (1e-16 or so) is 0.
absl::StatusOr<double> KlDivergence(absl::Span<const float> reference, absl::Span<const float> candidate);

// The share of the reference's k likeliest tokens that are among the candidate's k likeliest, in [0, 1]; order does not
// count. Ties go to the lower id, as in the sampler, so that k = 1 says whether greedy decoding takes the same token.
// INVALID_ARGUMENT unless k is in [1, vocabulary].
absl::StatusOr<double> TopKAgreement(absl::Span<const float> reference, absl::Span<const float> candidate, size_t k);

// -log of the probability that the row gives `token`, in nats. INVALID_ARGUMENT for a token outside of it.
absl::StatusOr<double> NegativeLogLikelihood(absl::Span<const float> logits, int32_t token);

// exp(mean of candidate - mean of reference), of negative log-likelihoods in nats of the same tokens: above 1 the
// restored state predicts the text worse. Infinite where a double cannot hold it (a difference of 709 nats a token).
absl::StatusOr<double> PerplexityRatio(absl::Span<const double> reference, absl::Span<const double> candidate);

// The index of the first token that differs, none if the sequences are equal. Where one is the beginning of the other,
// that is the shorter one's length: ending earlier is going on differently.
std::optional<size_t> FirstDivergence(absl::Span<const int32_t> reference, absl::Span<const int32_t> candidate);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_DIVERGENCE_H_
