#include "server/sidecar/dial_curve.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/latent/latent_codec.h"
#include "server/sidecar/codec_trial.h"
#include "server/sidecar/trial_totals.h"

namespace quicksave::server {
namespace {

using metrics::RateDistortionPoint;

constexpr float kCurveSteps[] = {0.3f, 0.7f, 1.5f, 3, 6};
constexpr int kCurveContext = 512;
constexpr int kCurveContinuation = 128;

struct NamedDivergence {
  const char* name;
  double kl;
};
constexpr NamedDivergence kPoints[] = {{"fine", 0.0005}, {"default", 0.002}, {"small", 0.008}};

// A divergence of 0 has no logarithm.
double LogKl(const RateDistortionPoint& point) { return std::log(std::max(point.mean_kl, 1e-9)); }

compressor::DialPoint Interpolate(const std::vector<RateDistortionPoint>& curve, const NamedDivergence& named) {
  size_t i = 1;
  while (i + 1 < curve.size() && LogKl(curve[i]) < std::log(named.kl)) ++i;
  const RateDistortionPoint& a = curve[i - 1];
  const RateDistortionPoint& b = curve[i];
  // A curve that is flat or falls there is noise.
  const double slope = std::max(LogKl(b) - LogKl(a), 0.1);
  const double share = std::clamp((std::log(named.kl) - LogKl(a)) / slope, -1.0, 2.0);
  const auto between = [&](double x, double y) { return std::exp(std::log(x) + share * (std::log(y) - std::log(x))); };
  return {.name = named.name,
          .step = static_cast<float>(between(a.step, b.step)),
          .ratio = between(a.effective_ratio, b.effective_ratio),
          .mean_kl = std::exp(LogKl(a) + share * slope)};
}

}  // namespace

CurveLengths CurveLengthsOf(int piece_tokens) {
  const int continuation = std::min(kCurveContinuation, piece_tokens / 4);
  return {.context = std::min(kCurveContext, piece_tokens - continuation), .continuation = continuation};
}

absl::StatusOr<std::vector<RateDistortionPoint>> MeasureCurve(ModelRunner& runner,
                                                              const std::vector<const TextPiece*>& pieces,
                                                              const PartDone& report, const CurveSubject& subject,
                                                              absl::Span<const float> steps) {
  std::vector<TrialTotals> totals(steps.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    report(static_cast<double>(i) / static_cast<double>(pieces.size()));
    const auto tokens = absl::MakeConstSpan(pieces[i]->tokens);
    const CurveLengths lengths = CurveLengthsOf(static_cast<int>(tokens.size()));
    const auto live =
        RunLive(runner, tokens.first(lengths.context + lengths.continuation), lengths.context, {subject.split});
    if (!live.ok()) return live.status();
    for (size_t k = 0; k < totals.size(); ++k) {
      const auto trial =
          TryCodec(runner, *live, subject.registry, {.codec = subject.codec, .split = subject.split, .step = steps[k]});
      if (!trial.ok()) return trial.status();
      absl::Status status = totals[k].Add(lengths.context, trial->raw_bytes, trial->cost, trial->divergence);
      if (!status.ok()) return status;
    }
  }
  std::vector<RateDistortionPoint> curve;
  for (size_t k = 0; k < totals.size(); ++k) {
    absl::StatusOr<RateDistortionPoint> point = totals[k].ToPoint();
    if (!point.ok()) return point.status();
    point->codec = subject.label;
    point->text_kind = kHeldOutKind;
    point->split_layers = subject.split;
    point->step = steps[k];
    point->sidecar_bytes = subject.sidecar_bytes;
    curve.push_back(*std::move(point));
  }
  return curve;
}

absl::StatusOr<std::vector<RateDistortionPoint>> MeasureCurve(ModelRunner& runner,
                                                              const std::vector<const TextPiece*>& pieces,
                                                              const PartDone& report,
                                                              const compressor::LatentProfile& profile) {
  compressor::CodecRegistry registry;
  const auto shared = std::make_shared<const compressor::LatentProfile>(profile);
  if (absl::Status status = registry.Register(compressor::NewLatentCodec(shared)); !status.ok()) return status;
  const CurveSubject subject{.label = absl::StrCat("latent n=", profile.split),
                             .registry = registry,
                             .codec = compressor::kLatentCodec,
                             .split = profile.split};
  return MeasureCurve(runner, pieces, report, subject, kCurveSteps);
}

std::vector<compressor::DialPoint> NamedPoints(const std::vector<RateDistortionPoint>& curve) {
  std::vector<compressor::DialPoint> points;
  for (const NamedDivergence& named : kPoints) points.push_back(Interpolate(curve, named));
  return points;
}

}  // namespace quicksave::server
