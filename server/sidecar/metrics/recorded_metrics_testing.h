// What torch and numpy measured: tests/reference/metrics.json, which record_metrics.py writes.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_RECORDED_METRICS_TESTING_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_RECORDED_METRICS_TESTING_H_

#include <fstream>

#include "nlohmann/json.hpp"

namespace quicksave::metrics {

// The whole record. Ends the test program if the file is missing or damaged.
inline nlohmann::json RecordedMetrics() {
  std::ifstream file(QUICKSAVE_RECORDED_METRICS);
  return nlohmann::json::parse(file);
}

// Both sides compute in double, in different order: a few hundred roundings of 1e-16 each.
inline constexpr double kRoundingTolerance = 1e-12;

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_RECORDED_METRICS_TESTING_H_
