#include "compressor/latent/residual_codec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/latent/test_profile.h"

namespace quicksave::compressor {
namespace {

using absl::StatusCode;

// With basis, and without.
class ResidualCodecTest : public testing::TestWithParam<bool> {
 protected:
  ResidualCodecTest() : source_(Source(GetParam())), codec_(NewResidualCodec(source_.profile())) {
    EXPECT_TRUE(registry_.Register(NewLatentCodec(source_.profile())).ok());
    EXPECT_TRUE(registry_.Register(NewResidualCodec(source_.profile())).ok());
    EXPECT_TRUE(RegisterBuiltinCodecs(registry_).ok());
  }

  static const TestSource& Source(bool basis) {
    static const auto& with = *new TestSource({.split = 1});
    static const auto& without = *new TestSource({.first_diagonal_group = 0});
    return basis ? with : without;
  }

  // The block as the latent codec decodes it.
  std::vector<uint16_t> Base(const TestBlock& block, const BlockContext& context) const {
    const std::string bytes = *EncodeBlock(registry_, kLatentCodec, block.view(), context);
    std::vector<uint16_t> base = block.Prefilled(*source_.profile(), context.known_tokens);
    EXPECT_TRUE(DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(base)}).ok());
    return base;
  }

  // The container's size, after checking that values come back, in place too.
  size_t RoundTrip(const TestBlock& block, const std::vector<uint16_t>& base, BlockContext context) const {
    context.base = base;
    const auto bytes = EncodeBlock(registry_, kResidualCodec, block.view(), context);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    if (!bytes.ok()) return 0;
    context.step = 0;  // decoding needs none
    std::vector<uint16_t> values(base.size(), 0xdead);
    absl::Status status = DecodeBlock(registry_, *bytes, context, {block.shape, absl::MakeSpan(values)});
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(values == block.values);
    std::vector<uint16_t> in_place = base;
    context.base = in_place;
    status = DecodeBlock(registry_, *bytes, context, {block.shape, absl::MakeSpan(in_place)});
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(in_place == block.values);
    return bytes->size();
  }

  size_t FirstCoded(const TestBlock& block) const {
    return 2 * source_.profile()->kv_width() * source_.profile()->first_layer() * block.shape.tokens;
  }

  const TestSource& source_;
  const std::unique_ptr<const Codec> codec_;
  CodecRegistry registry_;
};

INSTANTIATE_TEST_SUITE_P(Profiles, ResidualCodecTest, testing::Bool());

TEST_P(ResidualCodecTest, LatentAndResidualGiveEveryBit) {
  for (const int tokens : {1, 2, 5, 31, 100, 128}) {
    const TestBlock block = source_.Draw(tokens, 3);
    for (const float step : {1e-4f, 0.05f, 0.5f, 4.0f, 1e6f}) {
      for (const int known : {0, 4, tokens, tokens + 1}) {
        SCOPED_TRACE(testing::Message() << tokens << " tokens, step " << step << ", " << known << " known");
        const BlockContext context = block.Context(step, known);
        RoundTrip(block, Base(block, context), context);
      }
    }
  }
}

TEST_P(ResidualCodecTest, IsSmallerThanTheExactBlockAndSmallerAsTheLatentGetsFiner) {
  const TestBlock block = source_.Draw(128, 4);
  size_t last = EncodeBlock(registry_, "exact", block.view(), {})->size();
  for (const float step : {1.0f, 0.25f, 0.0625f}) {
    const BlockContext context = block.Context(step);
    const size_t size = RoundTrip(block, Base(block, context), context);
    EXPECT_LT(size, last) << step;
    last = size;
  }
}

// All bit patterns against any base, at extreme levels.
TEST_P(ResidualCodecTest, RestoresEveryBitPattern) {
  TestBlock block = source_.Draw(128, 5);
  const size_t coded = block.values.size() - FirstCoded(block);
  ASSERT_GE(coded * 8, 65536U);
  std::vector<uint16_t> base = block.values;
  TestRandom random(6);
  for (int round = 0; round < 8; ++round) {
    for (size_t i = 0; i < coded; ++i) {
      block.values[FirstCoded(block) + i] = static_cast<uint16_t>(round * (65536 / 8) + i);
      base[FirstCoded(block) + i] = static_cast<uint16_t>(random.Next());
    }
    for (const float step : {1e-37f, 1e-3f, 1.0f, 1e37f}) RoundTrip(block, base, block.Context(step));
  }
  for (const uint16_t value : {0x0000, 0x8000, 0x7f80, 0xff80, 0x7fc1, 0xffff, 0x0001, 0x7f7f}) {
    std::fill(block.values.begin() + static_cast<std::ptrdiff_t>(FirstCoded(block)), block.values.end(), value);
    RoundTrip(block, base, block.Context(0.5f));
    RoundTrip(block, block.values, block.Context(0.5f));
  }
}

TEST_P(ResidualCodecTest, AnotherBaseIsDataLoss) {
  const TestBlock block = source_.Draw(16, 7);
  BlockContext context = block.Context(0.5f);
  std::vector<uint16_t> base = Base(block, context);
  context.base = base;
  const std::string bytes = *EncodeBlock(registry_, kResidualCodec, block.view(), context);
  std::vector<uint16_t> values(base.size());
  for (const size_t place : {size_t{0}, base.size() / 2, base.size() - 1}) {
    base[place] ^= 1;
    EXPECT_EQ(DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(values)}).code(),
              StatusCode::kDataLoss);
    base[place] ^= 1;
  }
  EXPECT_TRUE(DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(values)}).ok());
  context.known_tokens = 1;
  EXPECT_EQ(DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(values)}).code(),
            StatusCode::kDataLoss);
}

TEST_P(ResidualCodecTest, RefusesABaseThatDiffersWhereNothingIsCoded) {
  const TestBlock block = source_.Draw(16, 7);
  for (const int known : {0, 3}) {
    BlockContext context = block.Context(0.5f, known);
    std::vector<uint16_t> base = Base(block, context);
    context.base = base;
    EXPECT_TRUE(codec_->Encode(block.view(), context).ok());
    base[FirstCoded(block) - 1] ^= 1;
    EXPECT_EQ(codec_->Encode(block.view(), context).status().code(), StatusCode::kInvalidArgument);
    base[FirstCoded(block) - 1] ^= 1;
    if (known == 0) continue;
    base[base.size() - 16 + known - 1] ^= 1;
    EXPECT_EQ(codec_->Encode(block.view(), context).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST_P(ResidualCodecTest, RefusesWhatItCannotCode) {
  TestBlock block = source_.Draw(16, 7);
  BlockContext context = block.Context(0.5f);
  const std::vector<uint16_t> base = Base(block, context);
  const auto code = [&](const BlockContext& with) { return codec_->Encode(block.view(), with).status().code(); };
  EXPECT_EQ(code(context), StatusCode::kInvalidArgument) << "no base";
  context.base = absl::MakeConstSpan(base).subspan(1);
  EXPECT_EQ(code(context), StatusCode::kInvalidArgument) << "a base of another size";
  context.base = base;
  EXPECT_EQ(code(context), StatusCode::kOk);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float step : {0.0f, -1.0f, std::nanf(""), kInfinity, 1e-40f}) {
    BlockContext with = context;
    with.step = step;
    EXPECT_EQ(code(with), StatusCode::kInvalidArgument) << step;
  }
  BlockContext with = context;
  with.known_tokens = -1;
  EXPECT_EQ(code(with), StatusCode::kInvalidArgument);
  with = context;
  with.model_fingerprint = "another-model";
  EXPECT_EQ(code(with), StatusCode::kFailedPrecondition);
  with.model_fingerprint = "test-model";
  EXPECT_EQ(code(with), StatusCode::kOk);
  EXPECT_EQ(codec_->Encode({block.shape, absl::MakeConstSpan(block.values).subspan(1)}, context).status().code(),
            StatusCode::kInvalidArgument);
  const BlockShape shape{.layers = 2, .kv_heads = 2, .head_dim = 8, .tokens = 16};
  EXPECT_EQ(codec_->Encode({shape, absl::MakeConstSpan(block.values).first(shape.values())}, context).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_P(ResidualCodecTest, EveryDamagedByteIsDataLoss) {
  const TestBlock block = source_.Draw(7, 8);
  BlockContext context = block.Context(0.5f);
  const std::vector<uint16_t> base = Base(block, context);
  context.base = base;
  std::string bytes = *EncodeBlock(registry_, kResidualCodec, block.view(), context);
  std::vector<uint16_t> values(base.size());
  for (char& byte : bytes) {
    byte = static_cast<char>(byte ^ 0x08);
    ASSERT_EQ(DecodeBlock(registry_, bytes, context, {block.shape, absl::MakeSpan(values)}).code(),
              StatusCode::kDataLoss);
    byte = static_cast<char>(byte ^ 0x08);
  }
}

// Below the checksums: an error or other values, which the container's id finds, but no crash.
TEST_P(ResidualCodecTest, SurvivesAnyPayload) {
  const TestBlock block = source_.Draw(16, 9);
  BlockContext context = block.Context(0.5f);
  const std::vector<uint16_t> base = Base(block, context);
  context.base = base;
  const EncodedBlock encoded = *codec_->Encode(block.view(), context);
  std::vector<uint16_t> values(base.size());
  TestRandom random(20261122);
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = encoded.bytes;
    const size_t begin = i % 2 == 0 ? damaged.size() : std::min<size_t>(damaged.size(), 40);
    for (uint64_t n = 1 + random.Below(4); n > 0; --n) damaged[random.Below(begin)] = static_cast<char>(random.Next());
    if (random.Below(4) == 0) damaged.resize(random.Below(damaged.size() + 1));
    const absl::Status status = codec_->Decode({damaged, 8, {}}, 1, context, {block.shape, absl::MakeSpan(values)});
    ASSERT_TRUE(status.ok() || status.code() == StatusCode::kDataLoss) << status;
  }
}

// More steps than a codec remembers, in any order.
TEST_P(ResidualCodecTest, MayBeUsedByManyThreadsAndWithManySteps) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      const TestBlock block = source_.Draw(20, 30 + t);
      for (int i = 0; i < 24; ++i) {
        const BlockContext context = block.Context(0.1f * static_cast<float>(1 + (7 * i + t) % 12));
        RoundTrip(block, Base(block, context), context);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The levels say how large errors are: within a factor of two on average, for every kind of channel.
TEST_P(ResidualCodecTest, ErrorLevelsAreThoseOfTheErrors) {
  constexpr float kStep = 0.5f;
  const TestBlock block = source_.Draw(128, 10);
  const std::vector<uint16_t> base = Base(block, block.Context(kStep));
  const std::vector<ErrorLevel> levels = ErrorLevels(*source_.profile(), kStep);
  ASSERT_EQ(levels.size(), (block.values.size() - FirstCoded(block)) / 128);
  double bias = 0;
  for (size_t c = 0; c < levels.size(); ++c) {
    double square = 0;
    for (int t = 0; t < 128; ++t) {
      const size_t i = FirstCoded(block) + c * 128 + t;
      square += std::pow(WidenBf16(base[i]) - WidenBf16(block.values[i]), 2);
    }
    const double octaves = std::log2(std::sqrt(square / 128)) - levels[c] / 4.0;
    // Values of large channels have rounding errors of their own.
    EXPECT_NEAR(octaves, 0, 2) << c;
    bias += octaves;
  }
  EXPECT_NEAR(bias / static_cast<double>(levels.size()), 0, 0.5);
}

}  // namespace
}  // namespace quicksave::compressor
