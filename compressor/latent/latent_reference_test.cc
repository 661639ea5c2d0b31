// The latent codecs against the decoders that were written from the documents.

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "compressor/container.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/reference_decoder.h"
#include "compressor/latent/residual_codec.h"
#include "compressor/latent/test_profile.h"

namespace quicksave::compressor {
namespace {

void ExpectReferenceAgrees(const TestSource& source, const TestBlock& block, float step, int known) {
  SCOPED_TRACE(testing::Message() << block.shape.DebugString() << " step " << step << " known " << known);
  CodecRegistry registry;
  ASSERT_TRUE(registry.Register(NewLatentCodec(source.profile())).ok());
  ASSERT_TRUE(registry.Register(NewResidualCodec(source.profile())).ok());
  BlockContext context = block.Context(step, known);
  const auto latent = EncodeBlock(registry, kLatentCodec, block.view(), context);
  ASSERT_TRUE(latent.ok()) << latent.status();
  std::vector<uint16_t> base = block.Prefilled(*source.profile(), known);
  ReferenceContext reference{
      .profile = source.profile()->Serialize(), .values = base, .known = known, .hidden = block.hidden_states};
  for (int layer = 0; layer < block.shape.layers; ++layer) {
    reference.angles.push_back(block.angle_tables[layer % 2]);
  }
  ASSERT_TRUE(DecodeBlock(registry, *latent, context, {block.shape, absl::MakeSpan(base)}).ok());
  EXPECT_EQ(ReferenceDecodeLatent(*latent, reference), base);
  context.base = base;
  const auto residual = EncodeBlock(registry, kResidualCodec, block.view(), context);
  ASSERT_TRUE(residual.ok()) << residual.status();
  reference.values = base;
  EXPECT_EQ(ReferenceDecodeResidual(*residual, reference), block.values);
}

TEST(LatentReferenceTest, ReferenceDecodesWhatTheCodecsWrite) {
  for (const TestProfileOptions& options :
       {TestProfileOptions{.first_diagonal_group = 1}, TestProfileOptions{.split = 1, .group_layers = {1, 2}},
        // Several groups of inputs with an exponent of their own.
        TestProfileOptions{.group_layers = {1}, .kv_heads = 3, .head_dim = 32, .features = 150},
        TestProfileOptions{.first_diagonal_group = 1, .bf16 = true},
        TestProfileOptions{.features = 0, .first_diagonal_group = 0}}) {
    const TestSource source(options);
    for (const int tokens : {1, 34}) {
      const TestBlock block = source.Draw(tokens, 3);
      for (const float step : {0.01f, 0.3f, 5.0f}) {
        for (const int known : {0, 4}) ExpectReferenceAgrees(source, block, step, known);
      }
    }
  }
}

TEST(LatentReferenceTest, ReferenceDecodesTokensWhoseHiddenStatesAreEqual) {
  for (const bool bf16 : {false, true}) {
    const TestSource source({.bf16 = bf16});
    TestBlock block = source.Draw(100, 3);
    const size_t width = source.profile()->features;
    for (size_t i = 40 * width; i < block.hidden_states.size(); ++i) {
      block.hidden_states[i] = block.hidden_states[i - 40 * width];
    }
    for (const int known : {0, 4}) ExpectReferenceAgrees(source, block, 0.3f, known);
  }
}

TEST(LatentReferenceTest, ReferenceDecodesEscapes) {
  for (const bool bf16 : {false, true}) {
    const TestSource source({.first_diagonal_group = 1, .bf16 = bf16});
    TestBlock block = source.Draw(20, 4);
    TestRandom random(5);
    const size_t coded = 2 * source.profile()->kv_width() * block.shape.tokens;
    for (int i = 0; i < 200; ++i) {
      // Finite numbers of any size up to 2^20.
      const uint64_t bits = random.Next();
      const uint64_t exponent = random.Below(127 + 20);
      block.values[coded + random.Below(block.values.size() - coded)] =
          static_cast<uint16_t>((bits & 0x807f) | exponent << 7);
    }
    for (const float step : {0.01f, 0.3f, 5.0f}) ExpectReferenceAgrees(source, block, step, 0);
  }
}

}  // namespace
}  // namespace quicksave::compressor
