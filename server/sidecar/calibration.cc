#include "server/sidecar/calibration.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/container.h"
#include "compressor/latent/channel_panels.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/latent_transform.h"
#include "compressor/latent/quantiser.h"
#include "compressor/latent/residual_codec.h"
#include "server/archive/block_pages.h"
#include "server/engine/model/reference_decoder.h"
#include "server/sidecar/codec_trial.h"
#include "server/sidecar/profile_fitter.h"

namespace quicksave::server {
namespace {

using compressor::ChannelPanels;
using compressor::LatentProfile;
using compressor::LayerGroup;

// Steps at which symbols are counted: from finer to coarser than any use.
constexpr double kFinestStep = 0.05;
constexpr double kCoarsestStep = 64;
constexpr double kStepFactor = 1.35;

// Steps at which residuals are counted, and how many tokens of a piece are for them.
constexpr float kResidualSteps[] = {0.3f, 0.8f, 2, 5};
constexpr size_t kResidualTokens = 256;

// One of ten pieces is for what must not be fitted to.
constexpr size_t kHeldOutEvery = 10;

class Calibrator {
 public:
  Calibrator(ModelRunner& runner, const std::vector<TextPiece>& pieces, const CalibrationOptions& options)
      : runner_(runner), pieces_(pieces), options_(options) {
    LatentProfile model;
    model.model_fingerprint = runner.fingerprint();
    model.layers = runner.config().layers;
    model.kv_heads = runner.config().kv_heads;
    model.head_dim = runner.config().head_dim;
    for (const int split : options.splits) {
      fitters_.push_back(
          std::make_unique<ProfileFitter>(model, runner.config().hidden_size,
                                          FitOptions{.split = split, .layers_per_group = options.layers_per_group}));
    }
  }

  absl::StatusOr<std::vector<LatentProfile>> Run() {
    if (absl::Status status = AddStates(); !status.ok()) return status;
    if (absl::Status status = AddGradients(); !status.ok()) return status;
    std::vector<LatentProfile> profiles;
    for (size_t i = 0; i < fitters_.size(); ++i) {
      Report(absl::StrCat("fitting split ", options_.splits[i]), static_cast<double>(i) / fitters_.size());
      absl::StatusOr<LatentProfile> profile = fitters_[i]->Fit();
      if (!profile.ok()) return profile.status();
      fitters_[i].reset();
      if (absl::Status status = AddTables(*profile); !status.ok()) return status;
      if (absl::Status status = AddResidualTables(*profile); !status.ok()) return status;
      if (absl::Status status = AddPoints(*profile); !status.ok()) return status;
      if (absl::Status status = profile->Validate(); !status.ok()) return status;
      profiles.push_back(*std::move(profile));
    }
    return profiles;
  }

 private:
  static bool HeldOut(size_t piece) { return piece % kHeldOutEvery == kHeldOutEvery - 1; }

  void Report(const std::string& what, double done) const {
    if (options_.progress) options_.progress(what, done);
  }

  // Calls use(block, context of the first split, first token) for each block of a text.
  template <typename Use>
  void ForEachBlock(const RunText& text, int split, Use use) {
    for (int first = 0; first < text.tokens(); first += compressor::kMaxBlockTokens) {
      const int count = std::min(compressor::kMaxBlockTokens, text.tokens() - first);
      const compressor::BlockShape shape = runner_.BlockShape(count);
      std::vector<uint16_t> values(shape.values());
      GatherBlock(text.sequence.pages(), first, {shape, absl::MakeSpan(values)});
      const OwnedContext owned = runner_.ContextOf(text, split, first, count);
      use(compressor::BlockView{shape, values}, owned.context);
    }
  }

  absl::Status AddStates() {
    for (size_t i = 0; i < pieces_.size(); ++i) {
      Report("states", static_cast<double>(i) / pieces_.size());
      if (HeldOut(i)) continue;
      absl::StatusOr<RunText> text = runner_.Run(pieces_[i].tokens, options_.splits);
      if (!text.ok()) return text.status();
      ForEachBlock(*text, options_.splits[0],
                   [&](compressor::BlockView block, const compressor::BlockContext& context) {
                     const ChannelPanels panels(block.shape, context);
                     std::vector<float> channels = panels.Read(block, 0, block.shape.layers);
                     Compact(panels, channels);
                     const int first = static_cast<int>(context.first_position) + context.known_tokens;
                     const size_t width = runner_.config().hidden_size;
                     for (size_t f = 0; f < fitters_.size(); ++f) {
                       const auto states =
                           absl::MakeConstSpan(text->hidden_states[f]).subspan(first * width, panels.tokens() * width);
                       fitters_[f]->AddStates(channels, states, panels.tokens());
                     }
                   });
    }
    return absl::OkStatus();
  }

  // Removes the padding of a panel.
  static void Compact(const ChannelPanels& panels, std::vector<float>& channels) {
    const size_t rows = channels.size() / panels.columns();
    for (size_t c = 0; c < rows; ++c) {
      std::copy_n(channels.begin() + c * panels.columns(), panels.tokens(), channels.begin() + c * panels.tokens());
    }
    channels.resize(rows * panels.tokens());
  }

  absl::Status AddGradients() {
    const auto reference = engine::ReferenceDecoder::Load(runner_.model_dir());
    if (!reference.ok()) return reference.status();
    int used = 0;
    for (size_t i = 0; i < pieces_.size() && used < options_.gradient_pieces; ++i) {
      if (HeldOut(i)) continue;
      Report("gradients", static_cast<double>(used++) / options_.gradient_pieces);
      const absl::Span<const int32_t> tokens = pieces_[i].tokens;
      const int labels = std::min<int>(options_.gradient_labels, static_cast<int>(tokens.size()) / 2);
      const int context = std::min<int>(options_.gradient_context, static_cast<int>(tokens.size()) - labels);
      absl::StatusOr<RunText> text = runner_.Run(tokens.first(context), {options_.splits[0]});
      if (!text.ok()) return text.status();
      const engine::ReferenceDecoder::Past past = PastOf(*text);
      const auto gradients =
          (*reference)
              ->LabelGradients(past, tokens.subspan(context, labels), options_.gradient_samples, options_.seed + i);
      const size_t width = past.key_values.size() / past.tokens;
      for (const std::vector<float>& sample : gradients) {
        const auto counted = absl::MakeConstSpan(sample).subspan(kRecomputedTokens * width);
        for (const auto& fitter : fitters_) fitter->AddGradients(counted, context - kRecomputedTokens, labels);
      }
    }
    return absl::OkStatus();
  }

  // All channels of all tokens, token by token.
  engine::ReferenceDecoder::Past PastOf(const RunText& text) {
    engine::ReferenceDecoder::Past past{.tokens = text.tokens()};
    ForEachBlock(text, options_.splits[0], [&](compressor::BlockView block, compressor::BlockContext context) {
      context.known_tokens = 0;
      const ChannelPanels panels(block.shape, context);
      const std::vector<float> channels = panels.Read(block, 0, block.shape.layers);
      const size_t rows = channels.size() / panels.columns();
      for (int t = 0; t < panels.tokens(); ++t) {
        for (size_t c = 0; c < rows; ++c) past.key_values.push_back(channels[c * panels.columns() + t]);
      }
    });
    return past;
  }

  // Deviations, entropy tables and centroids, from pieces that nothing was fitted to.
  absl::Status AddTables(LatentProfile& profile) {
    std::vector<std::vector<float>> latents(profile.groups.size());  // [tokens, components] of each group
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (!HeldOut(i)) continue;
      Report(absl::StrCat("tables of split ", profile.split), static_cast<double>(i) / pieces_.size());
      absl::StatusOr<RunText> text = runner_.Run(pieces_[i].tokens, {profile.split});
      if (!text.ok()) return text.status();
      ForEachBlock(*text, profile.split, [&](compressor::BlockView block, const compressor::BlockContext& context) {
        const compressor::LatentTransform transform(profile, block.shape, context);
        for (size_t g = 0; g < profile.groups.size(); ++g) {
          const LayerGroup& group = profile.groups[g];
          const std::vector<float> latent = transform.Analyse(group, block);
          for (int t = 0; t < transform.tokens(); ++t) {
            for (int k = 0; k < group.components(); ++k) {
              latents[g].push_back(latent[static_cast<size_t>(k) * transform.columns() + t]);
            }
          }
        }
      });
    }
    compressor::ClassStatistics statistics;
    for (size_t g = 0; g < profile.groups.size(); ++g) CountGroup(profile.groups[g], latents[g], statistics);
    profile.classes = statistics.Build();
    return absl::OkStatus();
  }

  // Of a few blocks of each held-out piece, at steps of the whole range of use.
  absl::Status AddResidualTables(LatentProfile& profile) {
    compressor::ResidualStatistics statistics;
    const auto shared = std::make_shared<const LatentProfile>(profile);
    compressor::CodecRegistry registry;
    if (absl::Status status = registry.Register(compressor::NewLatentCodec(shared)); !status.ok()) return status;
    std::vector<std::vector<compressor::ErrorLevel>> levels;
    for (const float step : kResidualSteps) levels.push_back(compressor::ErrorLevels(profile, step));
    absl::Status failed;
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (!HeldOut(i)) continue;
      Report(absl::StrCat("residual tables of split ", profile.split), static_cast<double>(i) / pieces_.size());
      const auto tokens =
          absl::MakeConstSpan(pieces_[i].tokens).first(std::min(kResidualTokens, pieces_[i].tokens.size()));
      absl::StatusOr<RunText> text = runner_.Run(tokens, {profile.split});
      if (!text.ok()) return text.status();
      ForEachBlock(*text, profile.split, [&](compressor::BlockView block, compressor::BlockContext context) {
        for (size_t k = 0; k < levels.size(); ++k) {
          context.step = kResidualSteps[k];
          absl::StatusOr<std::string> bytes =
              compressor::EncodeBlock(registry, compressor::kLatentCodec, block, context);
          std::vector<uint16_t> base(block.values.begin(), block.values.end());
          absl::Status status = bytes.status();
          // What the latent does not store is in `base` already.
          if (status.ok()) {
            status = compressor::DecodeBlock(registry, *bytes, context, {block.shape, absl::MakeSpan(base)});
          }
          failed.Update(status);
          if (status.ok()) statistics.Add(profile, levels[k], block, {block.shape, base}, context.known_tokens);
        }
      });
      if (!failed.ok()) return failed;
    }
    profile.residual_tables = statistics.Build();
    return absl::OkStatus();
  }

  // The steps at which the restored state's divergence is that of the named points, on the held-out pieces.
  absl::Status AddPoints(LatentProfile& profile) {
    const auto shared = std::make_shared<const LatentProfile>(profile);
    compressor::CodecRegistry registry;
    if (absl::Status status = registry.Register(compressor::NewLatentCodec(shared)); !status.ok()) return status;
    std::vector<CurvePoint> curve;
    for (const float step : kCurveSteps) curve.push_back({.step = step});
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (!HeldOut(i)) continue;
      Report(absl::StrCat("curve of split ", profile.split), static_cast<double>(i) / pieces_.size());
      const absl::Span<const int32_t> tokens = pieces_[i].tokens;
      const int continuation = std::min<int>(kCurveContinuation, static_cast<int>(tokens.size()) / 4);
      const int context = std::min<int>(kCurveContext, static_cast<int>(tokens.size()) - continuation);
      const auto live = RunLive(runner_, tokens.first(context + continuation), context, {profile.split});
      if (!live.ok()) return live.status();
      for (CurvePoint& point : curve) {
        const auto trial = TryCodec(runner_, *live, registry,
                                    {.codec = compressor::kLatentCodec, .split = profile.split, .step = point.step});
        if (!trial.ok()) return trial.status();
        point.raw += static_cast<double>(trial->raw_bytes);
        point.stored += static_cast<double>(trial->stored_bytes);
        for (const double kl : trial->kl) point.kl += kl;
        point.tokens += static_cast<double>(trial->kl.size());
      }
    }
    for (const NamedDivergence& named : kPoints) profile.points.push_back(Interpolate(curve, named));
    return absl::OkStatus();
  }

  // A measured setting of the dial.
  struct CurvePoint {
    float step;
    double raw = 0;
    double stored = 0;
    double kl = 0;
    double tokens = 0;

    double log_kl() const { return std::log(std::max(kl / tokens, 1e-9)); }
  };
  struct NamedDivergence {
    const char* name;
    double kl;
  };
  // The second is about what bf16 in place of fp32 arithmetic does to a model.
  static constexpr NamedDivergence kPoints[] = {{"fine", 0.0005}, {"default", 0.002}, {"small", 0.008}};
  static constexpr float kCurveSteps[] = {0.3f, 0.7f, 1.5f, 3, 6};
  static constexpr int kCurveContext = 512;
  static constexpr int kCurveContinuation = 128;

  // On the curve's pieces, straight in the logarithms; beyond its ends, along its last pieces.
  static compressor::DialPoint Interpolate(const std::vector<CurvePoint>& curve, const NamedDivergence& named) {
    size_t i = 1;
    while (i + 1 < curve.size() && curve[i].log_kl() < std::log(named.kl)) ++i;
    const CurvePoint& a = curve[i - 1];
    const CurvePoint& b = curve[i];
    const double slope = std::max(b.log_kl() - a.log_kl(), 0.1);
    const double share = std::clamp((std::log(named.kl) - a.log_kl()) / slope, -1.0, 2.0);
    const auto between = [&](double x, double y) {
      return std::exp(std::log(x) + share * (std::log(y) - std::log(x)));
    };
    return {.name = named.name,
            .step = static_cast<float>(between(a.step, b.step)),
            .ratio = between(a.raw / a.stored, b.raw / b.stored),
            .mean_kl = std::exp(a.log_kl() + share * slope)};
  }

  static void CountGroup(LayerGroup& group, const std::vector<float>& latent, compressor::ClassStatistics& statistics) {
    const size_t components = group.components();
    const size_t tokens = latent.size() / components;
    if (tokens == 0) return;
    std::vector<float> values(tokens);
    for (size_t k = 0; k < components; ++k) {
      double squares = 0;
      for (size_t t = 0; t < tokens; ++t) {
        values[t] = latent[t * components + k];
        squares += static_cast<double>(values[t]) * values[t];
      }
      group.sigma[k] = static_cast<float>(std::sqrt(std::max(squares / static_cast<double>(tokens), 1e-20)));
      for (double step = kFinestStep; step < kCoarsestStep; step *= kStepFactor) {
        statistics.Add(values, group.sigma[k], static_cast<float>(step));
      }
    }
  }

  ModelRunner& runner_;
  const std::vector<TextPiece>& pieces_;
  const CalibrationOptions& options_;
  std::vector<std::unique_ptr<ProfileFitter>> fitters_;
};

}  // namespace

absl::StatusOr<std::vector<LatentProfile>> Calibrate(ModelRunner& runner, const std::vector<TextPiece>& pieces,
                                                     const CalibrationOptions& options) {
  if (options.splits.empty()) return absl::InvalidArgumentError("calibration needs at least one split");
  for (const int split : options.splits) {
    if (split < 0 || split + 1 >= runner.config().layers) {
      return absl::InvalidArgumentError(
          absl::StrCat("a split must be 0 to ", runner.config().layers - 2, ", not ", split));
    }
  }
  return Calibrator(runner, pieces, options).Run();
}

}  // namespace quicksave::server
