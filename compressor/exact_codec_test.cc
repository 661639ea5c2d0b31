#include "compressor/exact_codec.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "compressor/container.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr BlockShape kShape{.layers = 3, .kv_heads = 2, .head_dim = 32, .tokens = 128};

std::shared_ptr<const ExactProfile> Calibrate() {
  ExactProfileBuilder builder("model-a");
  for (uint64_t seed = 100; seed < 104; ++seed) {
    const std::vector<uint16_t> values = ModelLikeValues(kShape, seed);
    EXPECT_TRUE(builder.AddBlock({kShape, values}).ok());
  }
  return std::make_shared<const ExactProfile>(*builder.Build());
}

// Without (false) and with (true) a profile.
class ExactCodecTest : public testing::TestWithParam<bool> {
 protected:
  ExactCodecTest() : codec_(NewExactCodec(GetParam() ? Calibrate() : nullptr)) {
    EXPECT_TRUE(registry_.Register(NewExactCodec(GetParam() ? Calibrate() : nullptr)).ok());
  }

  // The container's size, after checking that the values come back.
  size_t RoundTrip(const BlockShape& shape, const std::vector<uint16_t>& values) {
    const auto bytes = EncodeBlock(registry_, "exact", {shape, values}, {});
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    std::vector<uint16_t> decoded(values.size(), 0xdead);
    const absl::Status status = DecodeBlock(registry_, *bytes, {}, {shape, absl::MakeSpan(decoded)});
    EXPECT_TRUE(status.ok()) << status << " " << shape.DebugString();
    EXPECT_TRUE(decoded == values) << shape.DebugString();
    return bytes->size();
  }

  std::unique_ptr<const Codec> codec_;
  CodecRegistry registry_;
};

INSTANTIATE_TEST_SUITE_P(Profiles, ExactCodecTest, testing::Bool());

TEST_P(ExactCodecTest, RestoresEveryBitPattern) {
  std::vector<uint16_t> values(kShape.values());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i * 40503);
  RoundTrip(kShape, values);
  // All patterns once more, alone among ordinary values, so that sections are coded and not raw.
  const std::vector<uint16_t> ordinary = ModelLikeValues(kShape, 5);
  for (uint32_t first = 0; first < 65536; first += 512) {
    values = ordinary;
    for (uint32_t i = 0; i < 512; ++i) values[i * 48 + 3] = static_cast<uint16_t>(first + i);
    EXPECT_LT(RoundTrip(kShape, values), kShape.bytes());
  }
}

TEST_P(ExactCodecTest, RestoresEveryNumberOfTokens) {
  for (int tokens = 1; tokens <= kMaxBlockTokens; ++tokens) {
    BlockShape shape = kShape;
    shape.tokens = tokens;
    RoundTrip(shape, ModelLikeValues(shape, static_cast<uint64_t>(tokens)));
    RoundTrip(shape, RandomBits(shape, static_cast<uint64_t>(tokens)));
  }
}

TEST_P(ExactCodecTest, RestoresConstantBlocks) {
  for (const uint16_t value : {0x0000, 0x8000, 0x0001, 0x7f80, 0xff80, 0x7fc0, 0xffff, 0x3f80, 0x7f7f}) {
    RoundTrip(kShape, std::vector<uint16_t>(kShape.values(), value));
  }
}

TEST_P(ExactCodecTest, IsNeverLargerThanRawAndTheHeader) {
  for (const int tokens : {1, 3, 16, 128}) {
    BlockShape shape = kShape;
    shape.tokens = tokens;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const auto bytes = EncodeBlock(registry_, "exact", {shape, RandomBits(shape, seed)}, {});
      ASSERT_TRUE(bytes.ok());
      const auto info = PeekContainer(*bytes);
      ASSERT_TRUE(info.ok());
      EXPECT_LE(info->payload_bytes, shape.bytes() + info->section_sizes.size());
    }
  }
}

TEST_P(ExactCodecTest, CompressesModelLikeValues) {
  const size_t size = RoundTrip(kShape, ModelLikeValues(kShape, 55));
  EXPECT_GT(static_cast<double>(kShape.bytes()) / static_cast<double>(size), GetParam() ? 1.50 : 1.45);
}

TEST_P(ExactCodecTest, RefusesAViewThatIsNotValid) {
  const std::vector<uint16_t> values(kShape.values() - 1);
  EXPECT_EQ(codec_->Encode({kShape, values}, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

// Damage below the checksums, as a codec sees it if they do not help: an error or other values, but no crash.
TEST_P(ExactCodecTest, SurvivesAnyPayload) {
  for (const int tokens : {2, 128}) {
    BlockShape shape = kShape;
    shape.tokens = tokens;
    const std::vector<uint16_t> values = ModelLikeValues(shape, 4);
    auto encoded = codec_->Encode({shape, values}, {});
    ASSERT_TRUE(encoded.ok());
    encoded->bytes.erase(0, encoded->header_room);
    std::vector<uint16_t> decoded(values.size());
    TestRandom random(20261122);
    for (int i = 0; i < 3000; ++i) {
      EncodedBlock damaged = *encoded;
      const size_t begin = i % 2 == 0 ? damaged.bytes.size() : std::min<size_t>(damaged.bytes.size(), 64);
      for (uint64_t n = 1 + random.Below(4); n > 0; --n) {
        damaged.bytes[random.Below(begin)] = static_cast<char>(random.Next());
      }
      if (random.Below(4) == 0) damaged.bytes.resize(random.Below(damaged.bytes.size() + 1));
      if (random.Below(8) == 0) damaged.tensors_per_section = static_cast<uint32_t>(random.Below(8));
      if (random.Below(8) == 0) damaged.section_sizes[0] = static_cast<uint32_t>(random.Next());
      if (random.Below(2) == 0) damaged.section_sizes.back() = static_cast<uint32_t>(damaged.bytes.size());
      const absl::Status status = codec_->Decode({damaged.bytes, damaged.tensors_per_section, damaged.section_sizes}, 1,
                                                 {}, {shape, absl::MakeSpan(decoded)});
      EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kDataLoss) << status;
    }
  }
}

TEST_P(ExactCodecTest, MayBeUsedByManyThreads) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < 5; ++i) RoundTrip(kShape, ModelLikeValues(kShape, t * 10 + i));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ExactProfileUseTest, RefusesAnotherShapeOrModel) {
  const auto codec = NewExactCodec(Calibrate());
  const std::vector<uint16_t> values(kShape.values());
  BlockShape other = kShape;
  std::swap(other.layers, other.kv_heads);
  EXPECT_EQ(codec->Encode({other, values}, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(codec->Encode({kShape, values}, {.model_fingerprint = "model-b"}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(codec->Encode({kShape, values}, {.model_fingerprint = "model-a"}).ok());
}

}  // namespace
}  // namespace quicksave::compressor
