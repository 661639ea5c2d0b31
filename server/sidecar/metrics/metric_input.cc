#include "server/sidecar/metrics/metric_input.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace quicksave::metrics {
namespace {

template <typename Value>
absl::Status CheckAll(absl::string_view name, absl::Span<const Value> values) {
  if (values.empty()) return absl::InvalidArgumentError(absl::StrCat("the ", name, " has no values"));
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    return absl::InvalidArgumentError(absl::StrCat("value ", i, " of the ", name, " is ", values[i],
                                                   "; metrics are computed of finite numbers only"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckNumbers(absl::string_view name, absl::Span<const float> values) { return CheckAll(name, values); }

absl::Status CheckNumbers(absl::string_view name, absl::Span<const double> values) { return CheckAll(name, values); }

absl::Status CheckSameCount(absl::string_view what, size_t reference, size_t candidate) {
  if (reference == candidate) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the reference has ", reference, " ", what, ", the candidate ", candidate));
}

absl::Status CheckPair(absl::Span<const float> reference, absl::Span<const float> candidate) {
  if (absl::Status status = CheckSameCount("values", reference.size(), candidate.size()); !status.ok()) return status;
  if (absl::Status status = CheckNumbers("reference", reference); !status.ok()) return status;
  return CheckNumbers("candidate", candidate);
}

}  // namespace quicksave::metrics
