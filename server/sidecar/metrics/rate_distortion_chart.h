// A rate-distortion report as curves: SVG of 900 x 600, the same bytes for the same report on every machine.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_CHART_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_CHART_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/sidecar/metrics/rate_distortion.h"

namespace quicksave::metrics {

// The legend has room for so many.
inline constexpr size_t kMostCodecs = 24;

struct Chart {
  std::string file_name;  // that of the panel
  std::string svg;
};

// One chart for each panel: effective ratio against mean KL, both logarithmic, and for each codec a line through its
// points by ascending ratio, with markers. A codec has the same colour and marker in all charts. Points of KL 0, which
// have no logarithm, are at the bottom, below a broken axis. INVALID_ARGUMENT for more than kMostCodecs codecs, and as
// CheckReport.
absl::StatusOr<std::vector<Chart>> DrawCharts(const RateDistortionReport& report);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_RATE_DISTORTION_CHART_H_
