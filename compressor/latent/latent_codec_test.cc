#include "compressor/latent/latent_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "compressor/container.h"
#include "compressor/latent/instruction_sets.h"
#include "compressor/latent/quantiser.h"
#include "compressor/latent/test_profile.h"

namespace quicksave::compressor {
namespace {

using absl::StatusCode;

const TestSource& SourceOf(int kind) {
  static const auto& sources = *new std::vector<std::unique_ptr<TestSource>>([] {
    std::vector<std::unique_ptr<TestSource>> made;
    made.push_back(std::make_unique<TestSource>(TestProfileOptions{}));
    made.push_back(std::make_unique<TestSource>(TestProfileOptions{.split = 1, .group_layers = {1, 2}}));
    made.push_back(std::make_unique<TestSource>(TestProfileOptions{.features = 0, .first_diagonal_group = 0}));
    made.push_back(std::make_unique<TestSource>(TestProfileOptions{.first_diagonal_group = 1}));
    return made;
  }());
  return *sources[kind];
}

// A profile with basis, one with a split, one without basis and prediction, and one with both kinds of group.
class LatentCodecTest : public testing::TestWithParam<int> {
 protected:
  LatentCodecTest() : source_(SourceOf(GetParam())), codec_(NewLatentCodec(source_.profile())) {
    EXPECT_TRUE(registry_.Register(NewLatentCodec(source_.profile())).ok());
  }

  absl::StatusOr<std::vector<uint16_t>> Decode(const std::string& bytes, const TestBlock& block,
                                               const BlockContext& context) const {
    std::vector<uint16_t> values = block.Prefilled(*source_.profile(), context.known_tokens);
    const absl::Status status = DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(values)});
    if (!status.ok()) return status;
    return values;
  }

  struct Outcome {
    std::string bytes;
    std::vector<uint16_t> values;
    double error = 0;  // root of the mean square, of the coded values
  };
  Outcome RoundTrip(const TestBlock& block, const BlockContext& context) const {
    const auto bytes = EncodeBlock(registry_, kLatentCodec, block.view(), context);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    if (!bytes.ok()) return {};
    auto values = Decode(*bytes, block, context);
    EXPECT_TRUE(values.ok()) << values.status();
    if (!values.ok()) return {};
    Outcome outcome{.bytes = *bytes, .values = *std::move(values)};
    const size_t coded = 2 * source_.profile()->kv_width() * source_.profile()->first_layer() * block.shape.tokens;
    for (size_t i = 0; i < block.values.size(); ++i) {
      if (i < coded || static_cast<int>(i % block.shape.tokens) < context.known_tokens) {
        EXPECT_EQ(outcome.values[i], block.values[i]) << "a value that is not coded";
      } else {
        outcome.error += std::pow(WidenBf16(outcome.values[i]) - WidenBf16(block.values[i]), 2);
      }
    }
    outcome.error = std::sqrt(outcome.error / static_cast<double>(block.values.size() - coded));
    return outcome;
  }

  StatusCode EncodeCode(const TestBlock& block, const BlockContext& context) const {
    return codec_->Encode(block.view(), context).status().code();
  }

  const TestSource& source_;
  const std::unique_ptr<const Codec> codec_;
  CodecRegistry registry_;
};

INSTANTIATE_TEST_SUITE_P(Profiles, LatentCodecTest, testing::Range(0, 4));

TEST_P(LatentCodecTest, ErrorFallsAndSizeGrowsAsTheStepShrinks) {
  const TestBlock block = source_.Draw(100, 1);
  double error = std::numeric_limits<double>::infinity();
  size_t size = 0;
  for (const float step : {8.0f, 4.0f, 2.0f, 1.0f, 0.5f, 0.25f, 0.125f}) {
    const Outcome outcome = RoundTrip(block, block.Context(step));
    EXPECT_LT(outcome.error, error) << step;
    EXPECT_GT(outcome.bytes.size(), size) << step;
    error = outcome.error;
    size = outcome.bytes.size();
  }
  EXPECT_LT(size, block.shape.bytes());
  // The step's own error (0.29 of it, times the largest scale), the dropped components and the rounding to bf16.
  EXPECT_LT(error, 0.2);
}

TEST_P(LatentCodecTest, AnyNumberOfTokensAndKnownOnes) {
  for (const int tokens : {1, 2, 3, 4, 5, 31, 32, 33, 64, 127, 128}) {
    const TestBlock block = source_.Draw(tokens, 2);
    for (const int known : {0, 1, 4, tokens, tokens + 3}) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, " << known << " known");
      RoundTrip(block, block.Context(0.5f, known));
    }
  }
}

TEST_P(LatentCodecTest, DecodesToTheSameBitsOnEachInstructionSet) {
  const TestBlock block = source_.Draw(50, 3);
  const BlockContext context = block.Context(0.3f, 4);
  std::string first_bytes;
  std::vector<uint16_t> first_values;
  ASSERT_FALSE(ProductTargets().empty());
  for (const int64_t target : ProductTargets()) {
    const ScopedProductTarget scoped(target);
    const Outcome outcome = RoundTrip(block, context);
    if (first_bytes.empty()) {
      first_bytes = outcome.bytes;
      first_values = outcome.values;
    }
    EXPECT_EQ(outcome.bytes, first_bytes) << hwy::TargetName(target);
    EXPECT_EQ(outcome.values, first_values) << hwy::TargetName(target);
    const auto values = Decode(first_bytes, block, context);
    ASSERT_TRUE(values.ok()) << values.status();
    EXPECT_EQ(*values, first_values);
  }
}

TEST_P(LatentCodecTest, EveryDamagedByteIsDataLoss) {
  const TestBlock block = source_.Draw(9, 4);
  const BlockContext context = block.Context(1);
  std::string bytes = *EncodeBlock(registry_, kLatentCodec, block.view(), context);
  for (char& byte : bytes) {
    byte = static_cast<char>(byte ^ 0x20);
    ASSERT_EQ(Decode(bytes, block, context).status().code(), StatusCode::kDataLoss) << &byte - bytes.data();
    byte = static_cast<char>(byte ^ 0x20);
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(Decode(bytes.substr(0, size), block, context).status().code(), StatusCode::kDataLoss) << size;
  }
}

// Below the checksums, as a codec sees damage if they do not help.
TEST_P(LatentCodecTest, DamagedPayloadsNeverGiveOtherValues) {
  const TestBlock block = source_.Draw(9, 4);
  const BlockContext context = block.Context(1);
  const EncodedBlock encoded = *codec_->Encode(block.view(), context);
  std::vector<uint16_t> expected = block.Prefilled(*source_.profile());
  ASSERT_TRUE(
      codec_->Decode({encoded.bytes, 8, encoded.section_sizes}, 1, context, {block.shape, absl::MakeSpan(expected)})
          .ok());
  TestRandom random(20261122);
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = encoded.bytes;
    const size_t begin = i % 2 == 0 ? damaged.size() : std::min<size_t>(damaged.size(), 40);
    for (uint64_t n = 1 + random.Below(4); n > 0; --n) damaged[random.Below(begin)] = static_cast<char>(random.Next());
    if (random.Below(4) == 0) damaged.resize(random.Below(damaged.size() + 1));
    std::vector<uint16_t> values = block.Prefilled(*source_.profile());
    const absl::Status status = codec_->Decode({damaged, 8, {}}, 1, context, {block.shape, absl::MakeSpan(values)});
    ASSERT_TRUE(status.ok() ? values == expected : status.code() == StatusCode::kDataLoss) << status;
  }
}

TEST_P(LatentCodecTest, AnotherContextIsDataLoss) {
  const TestBlock block = source_.Draw(40, 5);
  const BlockContext context = block.Context(0.5f, 2);
  const std::string bytes = *EncodeBlock(registry_, kLatentCodec, block.view(), context);
  const TestBlock other = source_.Draw(40, 6);
  BlockContext wrong = context;
  wrong.angles = other.Context(1).angles;
  EXPECT_EQ(Decode(bytes, block, wrong).status().code(), StatusCode::kDataLoss) << "angles";
  if (source_.profile()->features > 0) {
    wrong = context;
    wrong.hidden_states = other.hidden_states;
    EXPECT_EQ(Decode(bytes, block, wrong).status().code(), StatusCode::kDataLoss) << "hidden states";
    std::vector<float> hidden = block.hidden_states;
    hidden[source_.profile()->features * 3] = std::numeric_limits<float>::quiet_NaN();
    wrong.hidden_states = hidden;
    EXPECT_EQ(Decode(bytes, block, wrong).status().code(), StatusCode::kInvalidArgument) << "a hidden state";
  }
  EXPECT_EQ(Decode(bytes, block, block.Context(0.5f, 1)).status().code(), StatusCode::kDataLoss) << "known tokens";
  // The dial is told by the payload.
  EXPECT_TRUE(Decode(bytes, block, block.Context(7, 2)).ok());
  // So is what the codec does not store.
  std::vector<uint16_t> values = block.Prefilled(*source_.profile(), 2);
  values[0] ^= 1;
  EXPECT_EQ(DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(values)}).code(),
            StatusCode::kDataLoss);
}

TEST_P(LatentCodecTest, RefusesAnotherModelProfileOrShape) {
  const TestBlock block = source_.Draw(8, 7);
  BlockContext context = block.Context(1);
  const std::string bytes = *EncodeBlock(registry_, kLatentCodec, block.view(), context);
  CodecRegistry other;
  ASSERT_TRUE(other.Register(NewLatentCodec(SourceOf((GetParam() + 1) % 4).profile())).ok());
  std::vector<uint16_t> values = block.values;
  EXPECT_EQ(DecodeBlock(other, bytes, context, {block.shape, absl::MakeSpan(values)}).code(),
            StatusCode::kFailedPrecondition);
  context.model_fingerprint = "test-model";
  EXPECT_EQ(EncodeCode(block, context), StatusCode::kOk);
  EXPECT_TRUE(Decode(bytes, block, context).ok());
  context.model_fingerprint = "another-model";
  EXPECT_EQ(EncodeCode(block, context), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Decode(bytes, block, context).status().code(), StatusCode::kFailedPrecondition);
  const BlockShape shape{.layers = 9, .kv_heads = 2, .head_dim = 8, .tokens = 8};
  const std::vector<uint16_t> more(shape.values());
  EXPECT_EQ(codec_->Encode({shape, more}, block.Context(1)).status().code(), StatusCode::kFailedPrecondition);
}

TEST_P(LatentCodecTest, RefusesViewsThatAreNotValid) {
  TestBlock block = source_.Draw(8, 7);
  const BlockContext context = block.Context(1);
  EXPECT_EQ(codec_->Encode({block.shape, absl::MakeConstSpan(block.values).subspan(1)}, context).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(codec_->Decode({}, 1, context, {block.shape, absl::MakeSpan(block.values).subspan(1)}).code(),
            StatusCode::kInvalidArgument);
}

TEST_P(LatentCodecTest, RefusesStepsThatAreNone) {
  const TestBlock block = source_.Draw(8, 7);
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float step : {0.0f, -0.0f, -1.0f, kNan, kInfinity, -kInfinity, 1e-40f}) {
    EXPECT_EQ(EncodeCode(block, block.Context(step)), StatusCode::kInvalidArgument) << step;
  }
}

TEST_P(LatentCodecTest, ExtremeStepsWork) {
  const TestBlock block = source_.Draw(8, 7);
  for (const float step : {1e-37f, 1e-10f, 1e-4f, 1e4f, 1e30f, 3e38f}) {
    SCOPED_TRACE(step);
    const Outcome outcome = RoundTrip(block, block.Context(step));
    // With the largest steps nothing is coded but the prediction.
    if (step > 1e6f) {
      EXPECT_LT(outcome.bytes.size(), 400U);
    }
  }
}

TEST_P(LatentCodecTest, RefusesValuesThatAreNotFiniteAmongThoseItCodes) {
  for (const uint16_t bad : {0x7f80, 0xff80, 0x7fc0, 0xff81}) {
    TestBlock block = source_.Draw(8, 7);
    block.values.back() = bad;
    EXPECT_EQ(EncodeCode(block, block.Context(1)), StatusCode::kInvalidArgument);
    block = source_.Draw(8, 7);
    block.values[0] = bad;  // of a layer that is not coded
    RoundTrip(block, block.Context(1));
    block = source_.Draw(8, 7);
    block.values[block.values.size() - 8] = bad;
    EXPECT_EQ(EncodeCode(block, block.Context(1)), StatusCode::kInvalidArgument);
    RoundTrip(block, block.Context(1, 1));  // of a known token
  }
  if (source_.profile()->features == 0) return;
  TestBlock block = source_.Draw(8, 7);
  block.hidden_states[5] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(EncodeCode(block, block.Context(1)), StatusCode::kInvalidArgument);
}

TEST_P(LatentCodecTest, StrangeValuesAreCodedOrRefused) {
  TestBlock block = source_.Draw(32, 8);
  for (const uint16_t value : {0x0000, 0x8000, 0x0001, 0x807f, 0x3f80, 0x7f00}) {
    std::fill(block.values.begin(), block.values.end(), value);
    const StatusCode code = EncodeCode(block, block.Context(0.5f));
    // Sums of the largest numbers are infinite.
    EXPECT_TRUE(code == StatusCode::kOk || (code == StatusCode::kInvalidArgument && value == 0x7f00)) << value;
    if (code == StatusCode::kOk) RoundTrip(block, block.Context(0.5f));
  }
  block = source_.Draw(32, 8);
  block.values[block.values.size() - 100] = NarrowToBf16(1e30f);
  block.values[block.values.size() - 400] = NarrowToBf16(-1e30f);
  RoundTrip(block, block.Context(0.5f));
  // An outlier changes its own token only.
  block = source_.Draw(32, 8);
  const std::vector<uint16_t> before = RoundTrip(block, block.Context(0.5f)).values;
  block.values.back() = NarrowToBf16(3e4f);
  const std::vector<uint16_t> after = RoundTrip(block, block.Context(0.5f)).values;
  for (size_t i = 0; i < after.size(); ++i) {
    if (i % 32 != 31) {
      ASSERT_EQ(after[i], before[i]);
    }
  }
  EXPECT_NE(after, before);
}

TEST_P(LatentCodecTest, MayBeUsedByManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 5; ++i) {
        const TestBlock block = source_.Draw(40, t * 10 + i);
        RoundTrip(block, block.Context(0.25f * static_cast<float>(1 + t)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(LatentCodecIdentityTest, TheProfileIsPartOfIt) {
  const auto codec = NewLatentCodec(SourceOf(0).profile());
  EXPECT_EQ(codec->name(), "latent");
  EXPECT_EQ(codec->version(), 1U);
  EXPECT_FALSE(codec->lossless());
  EXPECT_EQ(codec->profile_id(), ComputeDigest(SourceOf(0).profile()->Serialize()));
  EXPECT_NE(codec->profile_id(), NewLatentCodec(SourceOf(1).profile())->profile_id());
}

// An escape that Encode cannot have written, with the magnitude that has no opposite.
TEST(LatentCodecEscapeTest, RefusesIntegersOutOfRange) {
  const TestSource& source = SourceOf(2);
  const auto codec = NewLatentCodec(source.profile());
  TestBlock block = source.Draw(4, 1);
  block.values.back() = NarrowToBf16(1e30f);
  const BlockContext context = block.Context(0.5f);
  EncodedBlock encoded = *codec->Encode(block.view(), context);
  const size_t count_at = 4 + 16 + source.profile()->groups.size();
  ASSERT_NE(encoded.bytes.substr(count_at, 4), std::string(4, '\0'));
  encoded.bytes.replace(count_at + 4, 4, std::string("\0\0\0\x80", 4));
  std::vector<uint16_t> values = block.Prefilled(*source.profile());
  const absl::Status status = codec->Decode({encoded.bytes, encoded.tensors_per_section, encoded.section_sizes}, 1,
                                            context, {block.shape, absl::MakeSpan(values)});
  EXPECT_EQ(status.message(), "latent block: impossible escape");
}

}  // namespace
}  // namespace quicksave::compressor
