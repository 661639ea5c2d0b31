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
#include "compressor/latent/prediction_columns.h"

namespace quicksave::compressor {

// A group's latent as a decoder has it: the components that are not zero throughout the block, ascending.
struct SparseLatent {
  std::vector<int> used;
  // [used.size(), columns] and maybe more that counts for nothing, in units; the columns beyond the tokens zero.
  std::vector<float> values;
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
  // Puts it into `memory`.
  std::vector<float> Predict(const LayerGroup& group, std::vector<float> memory = {}) const;

  // The latent of a group: [components, columns], the columns beyond tokens() zero.
  std::vector<float> Analyse(const LayerGroup& group, BlockView block, absl::Span<const float> predicted) const;
  std::vector<float> Analyse(const LayerGroup& group, BlockView block) const {
    return Analyse(group, block, Predict(group));
  }

  // Writes the group's layers of the coded tokens. Uses up `latent` and `predicted`, whose memory can be used again.
  void Synthesise(const LayerGroup& group, SparseLatent& latent, std::vector<float>& predicted,
                  MutableBlockView block) const;
  void Synthesise(const LayerGroup& group, SparseLatent& latent, MutableBlockView block) const {
    std::vector<float> predicted = Predict(group);
    Synthesise(group, latent, predicted, block);
  }

 private:
  const LatentProfile& profile_;
  const ChannelPanels panels_;
  const PredictionColumns prediction_columns_;
  const std::vector<float> features_;  // of the prediction's columns
  // The same, for predictors of 8-bit integers.
  const std::vector<FixedPointGroup> fixed_features_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_LATENT_TRANSFORM_H_
