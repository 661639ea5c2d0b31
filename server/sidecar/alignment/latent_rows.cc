#include "server/sidecar/alignment/latent_rows.h"

#include <algorithm>
#include <numeric>

#include "compressor/latent/latent_transform.h"
#include "compressor/latent/quantiser.h"
#include "server/sidecar/text_blocks.h"

namespace quicksave::server {
namespace {

// What is left of a value that was stored.
float Stored(float value, float sigma, const LatentRowsOptions& options, const compressor::LatentProfile& profile) {
  const int sigma_class = compressor::SigmaClassOf(sigma, options.step);
  if (sigma_class < 0) return 0;
  const int32_t q = compressor::Quantise(value, 1 / options.step);
  return compressor::Reconstruct(q, profile.classes[sigma_class]) * options.step;
}

}  // namespace

LatentRows::LatentRows(const compressor::LatentProfile& profile, const LatentRowsOptions& options)
    : profile_(profile), options_(options) {
  for (const compressor::LayerGroup& group : profile.groups) {
    std::vector<int>& chosen = components_.emplace_back(group.components());
    std::iota(chosen.begin(), chosen.end(), 0);
    std::stable_sort(chosen.begin(), chosen.end(), [&](int a, int b) { return group.sigma[a] > group.sigma[b]; });
    chosen.resize(std::min<size_t>(chosen.size(), options.components_per_group));
    width_ += static_cast<int>(chosen.size());
  }
}

std::vector<float> LatentRows::Of(const ModelRunner& runner, const RunText& text) const {
  std::vector<float> rows(static_cast<size_t>(text.tokens()) * width_);
  ForEachBlock(runner, text, profile_.split, [&](compressor::BlockView block, const compressor::BlockContext& context) {
    const compressor::LatentTransform transform(profile_, block.shape, context);
    if (transform.tokens() == 0) return;
    float* first = rows.data() + size_t(context.first_position + context.known_tokens) * width_;
    for (size_t g = 0; g < profile_.groups.size(); ++g) {
      const compressor::LayerGroup& group = profile_.groups[g];
      const std::vector<float> latent = transform.Analyse(group, block);
      for (size_t k = 0; k < components_[g].size(); ++k) {
        const int component = components_[g][k];
        const float* values = latent.data() + size_t(component) * transform.columns();
        for (int t = 0; t < transform.tokens(); ++t) {
          first[size_t(t) * width_ + k] = Stored(values[t], group.sigma[component], options_, profile_);
        }
      }
      first += components_[g].size();
    }
  });
  return rows;
}

}  // namespace quicksave::server
