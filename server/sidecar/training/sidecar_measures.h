#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_MEASURES_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_MEASURES_H_

// What a trained sidecar needs before it can be stored, and how it compares with other codecs.

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/learned/learned_profile.h"
#include "server/sidecar/dial_curve.h"
#include "server/sidecar/metrics/rate_distortion.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

// Sets the deviations of what is coded, and the tables, by the codec's own arithmetic at the step of the training.
absl::Status CountLatents(ModelRunner& runner, const std::vector<const TextPiece*>& pieces,
                          compressor::LearnedProfile& profile);

// How far a layer's decoded keys (after RoPE) or values are from the live ones; see metrics/state_distance.h.
struct TensorDistance {
  int layer = 0;
  bool key = false;
  double mean_squared_error = 0;
  double relative_mse = 0;
  double unexplained = 0;  // share of the variance
  double cosine = 0;
  double cka = 0;
};

// Of each stored layer, at one step, over the stored tokens of all pieces.
absl::StatusOr<std::vector<TensorDistance>> MeasureDistances(ModelRunner& runner,
                                                             const std::vector<const TextPiece*>& pieces,
                                                             const CurveSubject& subject, float step);

// The step and the mean KL at which a curve, whose points are ordered by ratio, has this effective ratio: straight in
// the logarithms between its points. FAILED_PRECONDITION beyond its ends, where nothing was measured.
struct PointAtRatio {
  double step = 0;
  double mean_kl = 0;
};
absl::StatusOr<PointAtRatio> AtRatio(absl::Span<const metrics::RateDistortionPoint> curve, double ratio);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_SIDECAR_MEASURES_H_
