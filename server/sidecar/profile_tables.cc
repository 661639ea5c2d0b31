#include "server/sidecar/profile_tables.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "compressor/container.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/latent_transform.h"
#include "compressor/latent/residual_codec.h"
#include "server/sidecar/text_blocks.h"

namespace quicksave::server {
namespace {

using compressor::LatentProfile;

// Steps at which symbols are counted: from finer to coarser than any use.
constexpr double kFinestStep = 0.05;
constexpr double kCoarsestStep = 64;
constexpr double kStepFactor = 1.35;

// Steps at which residuals are counted, and how many tokens of a piece are for them.
constexpr float kResidualSteps[] = {0.3f, 0.8f, 2, 5};
constexpr size_t kResidualTokens = 256;

// Counts a block's residuals at each step.
absl::Status CountBlock(const compressor::CodecRegistry& registry, const LatentProfile& profile,
                        compressor::BlockView block, compressor::BlockContext context,
                        compressor::ResidualStatistics& statistics) {
  for (const float step : kResidualSteps) {
    context.step = step;
    const auto bytes = compressor::EncodeBlock(registry, compressor::kLatentCodec, block, context);
    if (!bytes.ok()) return bytes.status();
    // What the latent does not store is in `base` already.
    std::vector<uint16_t> base(block.values.begin(), block.values.end());
    const compressor::MutableBlockView decoded{block.shape, absl::MakeSpan(base)};
    absl::Status status = compressor::DecodeBlock(registry, *bytes, context, decoded);
    if (!status.ok()) return status;
    statistics.Add(profile, compressor::ErrorLevels(profile, step), block, decoded.view(), context.known_tokens);
  }
  return absl::OkStatus();
}

}  // namespace

void CountComponents(const std::vector<float>& latent, std::vector<float>& sigma,
                     compressor::ClassStatistics& statistics) {
  const size_t components = sigma.size();
  const size_t tokens = latent.size() / components;
  std::vector<float> values(tokens);
  for (size_t k = 0; k < components; ++k) {
    double squares = 0;
    for (size_t t = 0; t < tokens; ++t) {
      values[t] = latent[t * components + k];
      squares += static_cast<double>(values[t]) * values[t];
    }
    sigma[k] = static_cast<float>(std::sqrt(std::max(squares / static_cast<double>(tokens), 1e-20)));
    for (double step = kFinestStep; step < kCoarsestStep; step *= kStepFactor) {
      statistics.Add(values, sigma[k], static_cast<float>(step));
    }
  }
}

absl::Status CountSymbols(ModelRunner& runner, const std::vector<const TextPiece*>& pieces, const PartDone& report,
                          LatentProfile& profile) {
  if (pieces.empty()) return absl::InvalidArgumentError("tables are counted on at least one piece of text");
  std::vector<std::vector<float>> latents(profile.groups.size());  // [tokens, components] of each group
  for (size_t i = 0; i < pieces.size(); ++i) {
    report(static_cast<double>(i) / static_cast<double>(pieces.size()));
    absl::StatusOr<RunText> text = runner.Run(pieces[i]->tokens, {profile.split});
    if (!text.ok()) return text.status();
    ForEachBlock(runner, *text, profile.split,
                 [&](compressor::BlockView block, const compressor::BlockContext& context) {
                   const compressor::LatentTransform transform(profile, block.shape, context);
                   for (size_t g = 0; g < profile.groups.size(); ++g) {
                     const std::vector<float> latent = transform.Analyse(profile.groups[g], block);
                     for (int t = 0; t < transform.tokens(); ++t) {
                       for (int k = 0; k < profile.groups[g].components(); ++k) {
                         latents[g].push_back(latent[static_cast<size_t>(k) * transform.columns() + t]);
                       }
                     }
                   }
                 });
  }
  compressor::ClassStatistics statistics;
  for (size_t g = 0; g < profile.groups.size(); ++g) CountComponents(latents[g], profile.groups[g].sigma, statistics);
  profile.classes = statistics.Build();
  return absl::OkStatus();
}

absl::Status CountResiduals(ModelRunner& runner, const std::vector<const TextPiece*>& pieces, const PartDone& report,
                            LatentProfile& profile) {
  compressor::ResidualStatistics statistics;
  compressor::CodecRegistry registry;
  const auto shared = std::make_shared<const LatentProfile>(profile);
  if (absl::Status status = registry.Register(compressor::NewLatentCodec(shared)); !status.ok()) return status;
  for (size_t i = 0; i < pieces.size(); ++i) {
    report(static_cast<double>(i) / static_cast<double>(pieces.size()));
    const auto tokens = absl::MakeConstSpan(pieces[i]->tokens);
    absl::StatusOr<RunText> text = runner.Run(tokens.first(std::min(kResidualTokens, tokens.size())), {profile.split});
    if (!text.ok()) return text.status();
    absl::Status status;
    ForEachBlock(runner, *text, profile.split,
                 [&](compressor::BlockView block, const compressor::BlockContext& context) {
                   if (status.ok()) status = CountBlock(registry, profile, block, context, statistics);
                 });
    if (!status.ok()) return status;
  }
  profile.residual_tables = statistics.Build();
  return absl::OkStatus();
}

}  // namespace quicksave::server
