#include "compressor/learned/learned_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "compressor/container.h"
#include "compressor/latent/instruction_sets.h"
#include "compressor/learned/test_learned_profile.h"

namespace quicksave::compressor {
namespace {

using absl::StatusCode;

const TestSource& Source() {
  static const auto& source = *new TestSource(
      {.split = 1, .group_layers = {1, 2}, .first_diagonal_group = 1, .bf16 = true, .calibration_blocks = 2});
  return source;
}

class LearnedCodecTest : public testing::TestWithParam<Architecture> {
 protected:
  LearnedCodecTest() : profile_(RandomLearnedProfile(Source(), GetParam())) {
    EXPECT_TRUE(profile_->Validate().ok()) << profile_->Validate();
    EXPECT_TRUE(registry_.Register(NewLearnedCodec(profile_)).ok());
  }

  absl::StatusOr<std::vector<uint16_t>> Decode(const std::string& bytes, const TestBlock& block,
                                               const BlockContext& context) const {
    std::vector<uint16_t> values = block.Prefilled(profile_->base, context.known_tokens);
    const absl::Status status = DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(values)});
    if (!status.ok()) return status;
    return values;
  }

  std::string Encode(const TestBlock& block, const BlockContext& context) const {
    const absl::StatusOr<std::string> bytes = EncodeBlock(registry_, kLearnedCodec, block.view(), context);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() ? *bytes : "";
  }

  const std::shared_ptr<const LearnedProfile> profile_;
  CodecRegistry registry_;
};

INSTANTIATE_TEST_SUITE_P(Architectures, LearnedCodecTest,
                         testing::Values(Architecture::kGrouped, Architecture::kConv, Architecture::kUnified,
                                         Architecture::kRecurrent),
                         [](const auto& one) { return std::string(NameOf(one.param)); });

// The digest in the payload is of what the encoder decoded: a decode that succeeds has those bits.
TEST_P(LearnedCodecTest, WhatIsDecodedIsWhatTheEncoderSaw) {
  for (const int tokens : {1, 5, 64, 128}) {
    for (const float step : {0.25f, 1.0f, 8.0f, 1e6f}) {
      const TestBlock block = Source().Draw(tokens, 7);
      const BlockContext context = block.Context(step);
      const std::string bytes = Encode(block, context);
      const auto values = Decode(bytes, block, context);
      ASSERT_TRUE(values.ok()) << values.status() << tokens << " " << step;
      EXPECT_EQ(Encode(block, context), bytes);
    }
  }
}

TEST_P(LearnedCodecTest, ADifferentBlockIsDecodedDifferently) {
  const TestBlock a = Source().Draw(64, 7);
  const TestBlock b = Source().Draw(64, 8);
  const auto first = Decode(Encode(a, a.Context(1)), a, a.Context(1));
  const auto second = Decode(Encode(b, b.Context(1)), b, b.Context(1));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(*first, *second);
}

TEST_P(LearnedCodecTest, CoarserStepsAreSmaller) {
  const TestBlock block = Source().Draw(128, 3);
  size_t last = std::numeric_limits<size_t>::max();
  for (const float step : {0.25f, 1.0f, 4.0f, 16.0f}) {
    const size_t size = Encode(block, block.Context(step)).size();
    EXPECT_LT(size, last);
    last = size;
  }
}

TEST_P(LearnedCodecTest, KnownTokensAreLeftAlone) {
  const TestBlock block = Source().Draw(40, 9);
  for (const int known : {4, 40}) {
    const BlockContext context = block.Context(1, known);
    const auto values = Decode(Encode(block, context), block, context);
    ASSERT_TRUE(values.ok()) << values.status();
    for (size_t row = 0; row < block.values.size(); row += 40) {
      EXPECT_TRUE(std::equal(values->begin() + row, values->begin() + row + known, block.values.begin() + row));
    }
  }
}

// Bits do not depend on the CPU's instruction set.
TEST_P(LearnedCodecTest, EveryInstructionSetDecodesTheSameBits) {
  const TestBlock block = Source().Draw(128, 5);
  const std::string bytes = Encode(block, block.Context(0.5f));
  ASSERT_FALSE(ProductTargets().empty());
  for (const int64_t target : ProductTargets()) {
    const ScopedProductTarget scope(target);
    const auto values = Decode(bytes, block, block.Context(0.5f));
    EXPECT_TRUE(values.ok()) << values.status();
  }
}

// Bytes of version 1, as the first program wrote them; the payload's digest fixes what is decoded, too.
TEST_P(LearnedCodecTest, BytesAreThoseOfVersion1) {
  const TestBlock block = Source().Draw(64, 33);
  const std::map<Architecture, std::string> digests = {{Architecture::kGrouped, "e0117ed7c3a32bf5e6cd5a76cd5aa9a1"},
                                                       {Architecture::kConv, "5f0304b62a1fe019ce9a89a8335544ad"},
                                                       {Architecture::kUnified, "9ade68858677ece47f8b5e7a4ca74c73"},
                                                       {Architecture::kRecurrent, "823c06e1dc567b1efe20a0e9fee6cdba"}};
  EXPECT_EQ(ComputeDigest(profile_->Serialize() + Encode(block, block.Context(0.5f))).ToHex(), digests.at(GetParam()));
}

TEST_P(LearnedCodecTest, DamagedPayloadsAreRefused) {
  const TestBlock block = Source().Draw(24, 11);
  const BlockContext context = block.Context(1);
  const auto codec = NewLearnedCodec(profile_);
  const absl::StatusOr<EncodedBlock> encoded = codec->Encode(block.view(), context);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  std::vector<uint16_t> values;
  const auto decode = [&](const std::string& bytes) {
    values = block.Prefilled(profile_->base);
    const uint32_t sizes[] = {static_cast<uint32_t>(bytes.size())};
    return codec->Decode({bytes, encoded->tensors_per_section, sizes}, 1, context,
                         {block.shape, absl::MakeSpan(values)});
  };
  ASSERT_TRUE(decode(encoded->bytes).ok());
  const std::vector<uint16_t> undamaged = values;
  for (size_t i = 0; i < encoded->bytes.size(); i += 3) {
    for (const char change : {'\x01', '\x80'}) {
      std::string bytes = encoded->bytes;
      bytes[i] = static_cast<char>(bytes[i] ^ change);
      // A step that is nearly the same may give the same values; others never come out.
      const absl::Status status = decode(bytes);
      EXPECT_TRUE(status.ok() ? values == undamaged : status.code() == StatusCode::kDataLoss) << i << status;
    }
    EXPECT_EQ(decode(encoded->bytes.substr(0, i)).code(), StatusCode::kDataLoss) << i;
  }
  EXPECT_EQ(decode(encoded->bytes + "more").code(), StatusCode::kDataLoss);
}

TEST_P(LearnedCodecTest, RefusesWhatItIsNotFor) {
  const TestBlock block = Source().Draw(24, 11);
  BlockContext context = block.Context(1);
  const std::string bytes = Encode(block, context);
  context.model_fingerprint = "another";
  EXPECT_EQ(EncodeBlock(registry_, kLearnedCodec, block.view(), context).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(Decode(bytes, block, context).status().code(), StatusCode::kFailedPrecondition);
  context = block.Context(0);
  EXPECT_EQ(EncodeBlock(registry_, kLearnedCodec, block.view(), context).status().code(), StatusCode::kInvalidArgument);
  // Another sidecar's bytes.
  const auto other = RandomLearnedProfile(Source(), GetParam(), 2);
  CodecRegistry others;
  ASSERT_TRUE(others.Register(NewLearnedCodec(other)).ok());
  std::vector<uint16_t> values = block.Prefilled(profile_->base);
  EXPECT_EQ(DecodeBlock(others, bytes, block.Context(1), {block.shape, absl::MakeSpan(values)}).code(),
            StatusCode::kFailedPrecondition);
}

TEST_P(LearnedCodecTest, RefusesValuesThatAreNoNumbers) {
  TestBlock block = Source().Draw(24, 11);
  block.values.back() = 0x7fc0;
  EXPECT_EQ(EncodeBlock(registry_, kLearnedCodec, block.view(), block.Context(1)).status().code(),
            StatusCode::kInvalidArgument);
}

// A convolution sees where its tokens stand, the others do not.
TEST_P(LearnedCodecTest, OnlyConvolutionsDependOnThePosition) {
  const TestBlock block = Source().Draw(64, 21);
  BlockContext context = block.Context(1);
  const std::string here = Encode(block, context);
  context.first_position += 300;
  const bool same = Encode(block, context) == here;
  EXPECT_EQ(same, GetParam() != Architecture::kConv);
}

// What a convolution or recurrence makes of a token depends on the tokens before it; what the others make does not.
TEST_P(LearnedCodecTest, ArchitecturesAlongTimeSeeNeighbours) {
  const TestBlock block = Source().Draw(64, 21);
  TestBlock changed = Source().Draw(64, 21);
  const size_t tokens = 64;
  for (size_t row = 0; row < changed.values.size(); row += tokens) changed.values[row + 10] = 0x3f80;
  const auto values_of = [&](const TestBlock& one) {
    return Decode(Encode(one, one.Context(0.1f)), one, one.Context(0.1f)).value();
  };
  const std::vector<uint16_t> before = values_of(block);
  const std::vector<uint16_t> after = values_of(changed);
  bool next_differs = false;
  for (size_t row = 0; row < before.size(); row += tokens) next_differs |= before[row + 11] != after[row + 11];
  const bool along_time = GetParam() == Architecture::kConv || GetParam() == Architecture::kRecurrent;
  EXPECT_EQ(next_differs, along_time);
}

}  // namespace
}  // namespace quicksave::compressor
