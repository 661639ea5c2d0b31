// Synthetic profiles of the latent codecs, and blocks that are distributed as they say, for tests and benchmarks.
//
//   const TestSource source({.split = 1, .group_layers = {1, 2}});
//   const TestBlock block = source.Draw(/*tokens=*/24, /*seed=*/7);
//   registry.Register(NewLatentCodec(source.profile()));
//   EncodeBlock(registry, kLatentCodec, block.view(), block.Context(/*step=*/0.5f));

#ifndef QUICKSAVE_COMPRESSOR_LATENT_TEST_PROFILE_H_
#define QUICKSAVE_COMPRESSOR_LATENT_TEST_PROFILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "compressor/block.h"
#include "compressor/codec.h"
#include "compressor/latent/latent_profile.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {

struct TestProfileOptions {
  int split = 0;
  std::vector<int> group_layers = {2, 1};
  int kv_heads = 2;
  int head_dim = 8;
  // 0: no prediction.
  int features = 12;
  // Groups from this one on have no basis, but a scale for each channel.
  int first_diagonal_group = 1 << 20;
  // Components are fewer than channels by so many, where there is a basis.
  int dropped = 4;
  // Components with a second row.
  int refined = 5;
  // Of bf16, as in profiles of version 1, instead of 8-bit integers.
  bool bf16 = false;
  // Deviations fall from this ...
  float largest_sigma = 6;
  // ... by this factor within a group.
  float sigma_range = 200;
  // Blocks of 64 tokens to count tables on.
  int calibration_blocks = 6;
};

// A block with all that the codecs are told about it.
struct TestBlock {
  BlockShape shape;
  std::vector<uint16_t> values;
  std::vector<float> hidden_states;
  // Two tables, and for each layer one of them.
  std::vector<float> angle_tables[2];
  std::vector<const float*> angles;

  TestBlock() = default;
  TestBlock(const TestBlock&) = delete;  // a context points into it
  TestBlock(TestBlock&&) = default;
  TestBlock& operator=(TestBlock&&) = default;  // NOLINT(readability-identifier-naming): of what the compiler makes

  BlockView view() const { return {shape, values}; }
  // Valid as long as this is.
  BlockContext Context(float step, int known_tokens = 0) const;
  // What a decoder is given: the values that the codec does not store, zeros elsewhere.
  std::vector<uint16_t> Prefilled(const LatentProfile& profile, int known_tokens = 0) const;
};

// Immutable; any thread.
class TestSource {
 public:
  explicit TestSource(const TestProfileOptions& options = {});

  // Valid, with tables counted on blocks that were drawn from it.
  std::shared_ptr<const LatentProfile> profile() const { return profile_; }
  // The same seed gives the same block. Its first position is `seed`.
  TestBlock Draw(int tokens, uint64_t seed) const;

 private:
  std::shared_ptr<const LatentProfile> profile_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_TEST_PROFILE_H_
