#ifndef QUICKSAVE_SERVER_SIDECAR_DIAL_CURVE_H_
#define QUICKSAVE_SERVER_SIDECAR_DIAL_CURVE_H_

// What a new profile does on texts that nothing of it was made from, and which steps its named points have.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/codec.h"
#include "compressor/latent/latent_profile.h"
#include "server/sidecar/metrics/rate_distortion.h"
#include "server/sidecar/profile_tables.h"

namespace quicksave::server {

// The kind of text that a curve's points say.
inline constexpr char kHeldOutKind[] = "held out";

// Tokens of a piece that are its state and its continuation when a curve is measured.
struct CurveLengths {
  int context = 0;
  int continuation = 0;
};
CurveLengths CurveLengthsOf(int piece_tokens);

// A codec with a dial that is measured.
struct CurveSubject {
  std::string label;
  const compressor::CodecRegistry& registry;
  std::string codec;
  int split = 0;
  int64_t sidecar_bytes = 0;
};

// Measures a codec at these steps.
absl::StatusOr<std::vector<metrics::RateDistortionPoint>> MeasureCurve(ModelRunner& runner,
                                                                       const std::vector<const TextPiece*>& pieces,
                                                                       const PartDone& report,
                                                                       const CurveSubject& subject,
                                                                       absl::Span<const float> steps);
// Measures a profile at five steps, ascending, 0.3 to 6.
absl::StatusOr<std::vector<metrics::RateDistortionPoint>> MeasureCurve(ModelRunner& runner,
                                                                       const std::vector<const TextPiece*>& pieces,
                                                                       const PartDone& report,
                                                                       const compressor::LatentProfile& profile);

// The steps at which the divergence is 0.0005 nats ("fine"), 0.002 ("default", about what prefill in other chunks does
// to a model that computes in plain bf16) and 0.008 ("small"): between the curve's points straight in the logarithms,
// and beyond its ends along its last pieces, so far as their length. A curve has at least two points.
std::vector<compressor::DialPoint> NamedPoints(const std::vector<metrics::RateDistortionPoint>& curve);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_DIAL_CURVE_H_
