#ifndef QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_LATENT_ROWS_H_
#define QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_LATENT_ROWS_H_

// The latents of a text as a matrix: what would be stored of each token.

#include <vector>

#include "compressor/latent/latent_profile.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

struct LatentRowsOptions {
  // Of each group the components that vary most.
  int components_per_group = 128;
  // Of the dial; values are quantised and reconstructed as the codec does.
  float step = 1;
};

// Does not own the profile, which must be one with bases for the runner's model. Immutable.
class LatentRows {
 public:
  LatentRows(const compressor::LatentProfile& profile, const LatentRowsOptions& options);

  int width() const { return width_; }
  // Values [tokens, width], in the metric in which the codec measures errors; 0 for the first tokens, which latents
  // leave out (kRecomputedTokens). The text was run with the hidden states of the profile's split.
  std::vector<float> Of(const ModelRunner& runner, const RunText& text) const;

 private:
  const compressor::LatentProfile& profile_;
  const LatentRowsOptions options_;
  std::vector<std::vector<int>> components_;  // of each group
  int width_ = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_LATENT_ROWS_H_
