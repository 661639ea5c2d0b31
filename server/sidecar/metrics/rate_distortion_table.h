// A rate-distortion report as Markdown.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_TABLE_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_TABLE_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/sidecar/metrics/rate_distortion.h"

namespace quicksave::metrics {

// What was measured where and by which command, noise floor and negative controls, and for each panel a link to its
// chart and a table with a row for each point, in the report's order. What was not measured is "-". Errors of
// CheckReport.
absl::StatusOr<std::string> ReportToMarkdown(const RateDistortionReport& report);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_TABLE_H_
