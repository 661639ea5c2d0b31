// From K and V to a block's latent, real-valued, and back.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_LATENT_TRANSFORM_H_
#define QUICKSAVE_COMPRESSOR_LATENT_LATENT_TRANSFORM_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/codec.h"
#include "compressor/latent/channel_panels.h"
#include "compressor/latent/fixed_point.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::compressor {

// A group's latent as a decoder has it: the components that are not zero throughout the block, ascending.
struct SparseLatent {
  std::vector<int> used;
  std::vector<float> values;  // [used.size(), columns], in units; the columns beyond the tokens zero
  float unit = 1;
};

// The arithmetic of one block: its columns are the tokens after the context's known ones, padded. Does not own the
// profile. Immutable.
class LatentTransform {
 public:
  // The context is one that CheckContext accepts.
  LatentTransform(const LatentProfile& profile, const BlockShape& shape, const BlockContext& context);

  // FAILED_PRECONDITION for a block of another model or shape than the profile's, INVALID_ARGUMENT unless the context
  // has all that such a block needs.
  static absl::Status CheckContext(const LatentProfile& profile, const BlockShape& shape, const BlockContext& context);

  int tokens() const { return panels_.tokens(); }
  // Floats from component to component.
  int columns() const { return panels_.columns(); }

  // mean + predictor^T x: [channels, columns]. What Analyse and Synthesise start from.
  std::vector<float> Predict(const LayerGroup& group) const;

  // The latent of a group: [components, columns], the columns beyond tokens() zero.
  std::vector<float> Analyse(const LayerGroup& group, BlockView block, absl::Span<const float> predicted) const;
  std::vector<float> Analyse(const LayerGroup& group, BlockView block) const {
    return Analyse(group, block, Predict(group));
  }

  // Writes the group's layers of the coded tokens. Uses up `latent`, whose memory can be used again.
  void Synthesise(const LayerGroup& group, SparseLatent& latent, std::vector<float> predicted,
                  MutableBlockView block) const;
  void Synthesise(const LayerGroup& group, SparseLatent& latent, MutableBlockView block) const {
    Synthesise(group, latent, Predict(group), block);
  }

 private:
  const LatentProfile& profile_;
  const ChannelPanels panels_;
  std::vector<float> features_;  // standardised, [features, columns]
  // The same, for predictors of 8-bit integers.
  std::vector<FixedPointGroup> fixed_features_;
};

// Hidden states [tokens, features] of the tokens from `known` on, standardised as the profile says:
// [features, columns].
std::vector<float> StandardisedFeatures(const LatentProfile& profile, absl::Span<const float> hidden_states, int known,
                                        int tokens, int columns);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_LATENT_TRANSFORM_H_
