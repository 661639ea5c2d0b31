#include "server/sidecar/training/sidecar_measures.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/container.h"
#include "compressor/latent/panel_product.h"
#include "compressor/learned/learned_codec.h"
#include "server/sidecar/metrics/state_distance.h"
#include "server/sidecar/text_blocks.h"

namespace quicksave::server {
namespace {

using compressor::LearnedProfile;

// What sidecars are trained with: values are rounded to integers.
constexpr float kTrainedStep = 1;
// Tokens of a piece that distances are taken of.
constexpr size_t kDistanceTokens = 512;

// Rows of one (layer, K or V): [tokens, kv width].
struct LiveAndDecoded {
  std::vector<float> live;
  std::vector<float> decoded;
};

// Adds the stored tokens of a block's tensors from `first` on.
void AddRows(compressor::BlockView live, compressor::BlockView decoded, size_t first, int known,
             std::vector<LiveAndDecoded>& tensors) {
  const size_t width = live.shape.channels_per_tensor();
  const size_t tokens = live.shape.tokens;
  for (size_t tensor = first; tensor < live.shape.tensors(); ++tensor) {
    LiveAndDecoded& rows = tensors[tensor - first];
    for (size_t t = known; t < tokens; ++t) {
      for (size_t c = 0; c < width; ++c) {
        const size_t place = (tensor * width + c) * tokens + t;
        rows.live.push_back(compressor::WidenBf16(live.values[place]));
        rows.decoded.push_back(compressor::WidenBf16(decoded.values[place]));
      }
    }
  }
}

absl::StatusOr<TensorDistance> DistanceOf(const LiveAndDecoded& rows, size_t width) {
  TensorDistance distance;
  const metrics::Rows live{rows.live, width};
  const metrics::Rows decoded{rows.decoded, width};
  const std::pair<double*, absl::StatusOr<double>> figures[] = {
      {&distance.mean_squared_error, metrics::MeanSquaredError(rows.live, rows.decoded)},
      {&distance.relative_mse, metrics::RelativeMse(rows.live, rows.decoded)},
      {&distance.unexplained, metrics::FractionOfVarianceUnexplained(live, decoded)},
      {&distance.cosine, metrics::CosineSimilarity(live, decoded)},
      {&distance.cka, metrics::LinearCka(live, decoded)}};
  for (const auto& [to, figure] : figures) {
    if (!figure.ok()) return figure.status();
    *to = *figure;
  }
  return distance;
}

}  // namespace

absl::Status CountLatents(ModelRunner& runner, const std::vector<const TextPiece*>& pieces, LearnedProfile& profile) {
  std::vector<std::vector<float>> latents(profile.sigma.size());  // [tokens, latent width] of each group
  for (const TextPiece* piece : pieces) {
    absl::StatusOr<RunText> text = runner.Run(piece->tokens, {profile.base.split});
    if (!text.ok()) return text.status();
    ForEachBlock(runner, *text, profile.base.split, [&](compressor::BlockView block, compressor::BlockContext context) {
      context.step = kTrainedStep;
      const int tokens = block.shape.tokens - context.known_tokens;
      std::vector<size_t> begins;
      for (size_t g = 0; g < latents.size(); ++g) {
        begins.push_back(latents[g].size());
        latents[g].resize(latents[g].size() + static_cast<size_t>(tokens) * profile.latent_width(g));
      }
      compressor::ForEachLatent(profile, block, context,
                                [&](size_t group, int component, absl::Span<const float> values) {
                                  float* to = latents[group].data() + begins[group] + component;
                                  for (size_t t = 0; t < values.size(); ++t) {
                                    to[t * profile.latent_width(group)] = values[t];
                                  }
                                });
    });
  }
  if (latents.empty() || latents[0].empty()) {
    return absl::InvalidArgumentError("tables are counted on at least one piece of text");
  }
  compressor::ClassStatistics statistics;
  for (size_t g = 0; g < latents.size(); ++g) CountComponents(latents[g], profile.sigma[g], statistics);
  profile.base.classes = statistics.Build();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<TensorDistance>> MeasureDistances(ModelRunner& runner,
                                                             const std::vector<const TextPiece*>& pieces,
                                                             const CurveSubject& subject, float step) {
  const size_t first = 2 * (static_cast<size_t>(subject.split) + 1);
  const compressor::BlockShape shape = runner.BlockShape(1);
  std::vector<LiveAndDecoded> tensors(shape.tensors() - first);
  for (const TextPiece* piece : pieces) {
    const auto tokens = absl::MakeConstSpan(piece->tokens);
    absl::StatusOr<RunText> text = runner.Run(tokens.first(std::min(kDistanceTokens, tokens.size())), {subject.split});
    if (!text.ok()) return text.status();
    absl::Status status;
    ForEachBlock(runner, *text, subject.split, [&](compressor::BlockView block, compressor::BlockContext context) {
      if (!status.ok()) return;
      context.step = step;
      const auto bytes = compressor::EncodeBlock(subject.registry, subject.codec, block, context);
      status = bytes.status();
      if (!status.ok()) return;
      // What is not stored is there already.
      std::vector<uint16_t> values(block.values.begin(), block.values.end());
      const compressor::MutableBlockView decoded{block.shape, absl::MakeSpan(values)};
      status = compressor::DecodeBlock(subject.registry, *bytes, context, decoded);
      if (status.ok()) AddRows(block, decoded.view(), first, context.known_tokens, tensors);
    });
    if (!status.ok()) return status;
  }
  std::vector<TensorDistance> distances;
  for (size_t i = 0; i < tensors.size(); ++i) {
    absl::StatusOr<TensorDistance> distance = DistanceOf(tensors[i], shape.channels_per_tensor());
    if (!distance.ok()) return distance.status();
    distance->layer = static_cast<int>((first + i) / 2);
    distance->key = i % 2 == 0;
    distances.push_back(*std::move(distance));
  }
  return distances;
}

absl::StatusOr<PointAtRatio> AtRatio(absl::Span<const metrics::RateDistortionPoint> curve, double ratio) {
  for (size_t i = 1; i < curve.size(); ++i) {
    const metrics::RateDistortionPoint& a = curve[i - 1];
    const metrics::RateDistortionPoint& b = curve[i];
    if (ratio < a.effective_ratio || ratio > b.effective_ratio) continue;
    const double share = std::log(ratio / a.effective_ratio) / std::log(b.effective_ratio / a.effective_ratio);
    const auto between = [&](double x, double y) { return std::exp(std::log(x) + share * std::log(y / x)); };
    return PointAtRatio{.step = between(a.step, b.step), .mean_kl = between(a.mean_kl, b.mean_kl)};
  }
  return absl::FailedPreconditionError(absl::StrCat("the curve was not measured at a ratio of ", ratio));
}

}  // namespace quicksave::server
