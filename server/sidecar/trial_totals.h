#ifndef QUICKSAVE_SERVER_SIDECAR_TRIAL_TOTALS_H_
#define QUICKSAVE_SERVER_SIDECAR_TRIAL_TOTALS_H_

// Trials of one codec at one setting on several texts, made into a point of a report.

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/sidecar/codec_trial.h"
#include "server/sidecar/metrics/rate_distortion.h"

namespace quicksave::server {

// Owned by one thread.
class TrialTotals {
 public:
  // Adds a text of so many tokens whose K and V have so many bytes.
  absl::Status Add(int tokens, int64_t raw_bytes, const CodecCost& cost, const metrics::DivergenceRows& divergence);

  // All figures of a point but those of the codec and the kind of text. Ratios are of the sums, not means of ratios.
  // FAILED_PRECONDITION if nothing was added.
  absl::StatusOr<metrics::RateDistortionPoint> ToPoint() const;

 private:
  int64_t texts_ = 0;
  int64_t tokens_ = 0;
  int64_t raw_bytes_ = 0;
  CodecCost cost_;
  metrics::DivergenceRows divergence_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRIAL_TOTALS_H_
