// What every metric asks of its input before it computes: values that are numbers, and sizes that fit.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_METRIC_INPUT_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_METRIC_INPUT_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quicksave::metrics {

// INVALID_ARGUMENT that says `name` and the first index, if a value is NaN or infinite, or if there is no value.
absl::Status CheckNumbers(absl::string_view name, absl::Span<const float> values);
absl::Status CheckNumbers(absl::string_view name, absl::Span<const double> values);

// INVALID_ARGUMENT with both figures unless they are equal; `what` is what they count.
absl::Status CheckSameCount(absl::string_view what, size_t reference, size_t candidate);

// The three checks of a pair: both hold numbers, and equally many.
absl::Status CheckPair(absl::Span<const float> reference, absl::Span<const float> candidate);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_METRIC_INPUT_H_
