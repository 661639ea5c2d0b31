// A block's channels in fp32, keys before RoPE: what the latent codec computes on, and what its profiles are fitted to.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_CHANNEL_PANELS_H_
#define QUICKSAVE_COMPRESSOR_LATENT_CHANNEL_PANELS_H_

#include <vector>

#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/codec.h"

namespace quicksave::compressor {

// Reads and writes panels [channels of some layers][columns]: the columns are the block's tokens after the context's
// known ones, padded with zeros. Immutable; does not own the blocks.
class ChannelPanels {
 public:
  // The context has angles for each of the shape's layers, and head_dim is even.
  ChannelPanels(const BlockShape& shape, const BlockContext& context);

  int tokens() const { return tokens_; }
  // Floats from channel to channel.
  int columns() const { return columns_; }

  // The K and V of `layers` layers from `first_layer` on: [layers][K, V][kv_heads][head_dim][columns].
  std::vector<float> Read(BlockView block, int first_layer, int layers) const;
  // The inverse: turns the keys of `panel` by their angles and writes it, rounded to bf16.
  void Write(std::vector<float>& panel, int first_layer, int layers, MutableBlockView block) const;

 private:
  void Rotate(int first_layer, int layers, bool back, std::vector<float>& panel) const;

  const BlockShape shape_;
  const int known_;
  const int tokens_;
  const int columns_;
  // Cosines and sines [2][head_dim / 2][columns]; layers with the same angles share them.
  std::vector<std::vector<float>> angles_;
  std::vector<int> angles_of_layer_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_CHANNEL_PANELS_H_
