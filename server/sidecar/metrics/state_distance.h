// How far a decoded state is from the one that was encoded: errors of K, V and hidden states as matrices.
//
//   const Rows live{.values = keys, .width = 64};
//   absl::StatusOr<double> error = RelativeMse(live.values, decoded);
//
// All sums are in double. Every function returns INVALID_ARGUMENT for empty input, for two different sizes and for
// values that are NaN or infinite (it names the first), so a poisoned value cannot become a figure. Any thread.
// docs/metrics.md says what each is good for; none of them says that a state is usable, only divergence.h does.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_STATE_DISTANCE_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_STATE_DISTANCE_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quicksave::metrics {

// A matrix [rows, width], row after row; a row is a token. The values are not owned. One whose size is no multiple of
// its width is INVALID_ARGUMENT wherever it is passed.
struct Rows {
  absl::Span<const float> values;
  size_t width = 0;

  size_t count() const { return width == 0 ? 0 : values.size() / width; }
};

// Mean of (x - y)^2 over all values, in the square of their unit.
absl::StatusOr<double> MeanSquaredError(absl::Span<const float> reference, absl::Span<const float> candidate);

// |x - y|^2 / |x|^2 over all values: what quantisation papers report as relative error or NMSE. 0 is equal, 1 is what a
// candidate of zeros has. INVALID_ARGUMENT if the reference is all zero.
absl::StatusOr<double> RelativeMse(absl::Span<const float> reference, absl::Span<const float> candidate);

// |x - y|^2 / |x - m|^2, m the mean of each of the reference's columns: 1 is what a candidate of the mean row has.
// Equals 1 - R^2 with the columns weighted by their variance. The stricter one where columns have a large mean, as keys
// do. INVALID_ARGUMENT if all rows of the reference are equal.
absl::StatusOr<double> FractionOfVarianceUnexplained(const Rows& reference, const Rows& candidate);

// Mean over the rows of x.y / (|x| |y|), in [-1, 1]. A pair of zero rows counts as 1, a zero row beside another as 0.
absl::StatusOr<double> CosineSimilarity(const Rows& reference, const Rows& candidate);

// Linear centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414), |Y'X|^2 / (|X'X| |Y'Y|) in Frobenius norms
// with centred columns, in [0, 1]. Unchanged by rotating, reflecting, shifting or scaling either. The widths may
// differ, the rows are the same tokens. This is the biased estimate: with fewer rows than columns it is near 1 for
// anything, so have several times as many rows. INVALID_ARGUMENT for fewer than two rows, or if all rows of one are
// equal. Cost: the lesser of rows * widths^2 and rows^2 * widths multiplications; memory: one copy of both in double.
absl::StatusOr<double> LinearCka(const Rows& reference, const Rows& candidate);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_STATE_DISTANCE_H_
