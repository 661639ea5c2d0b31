#include "compressor/container.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "compressor/byte_io.h"
#include "compressor/exact_codec.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

using absl::StatusCode;

constexpr BlockShape kShape{.layers = 4, .kv_heads = 2, .head_dim = 16, .tokens = 60};

// A codec that stores raw bytes and may be told to lie.
class RawCodec final : public Codec {
 public:
  explicit RawCodec(std::string name, uint32_t version = 1, Digest128 profile = {}, bool lies = false)
      : name_(std::move(name)), version_(version), profile_(profile), lies_(lies) {}

  std::string_view name() const override { return name_; }
  uint32_t version() const override { return version_; }
  bool lossless() const override { return true; }
  Digest128 profile_id() const override { return profile_; }
  absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext&) const override {
    EncodedBlock encoded{.tensors_per_section = static_cast<uint32_t>(block.shape.tensors())};
    encoded.bytes.assign(reinterpret_cast<const char*>(block.values.data()), block.shape.bytes());
    encoded.section_sizes = {static_cast<uint32_t>(encoded.bytes.size())};
    return encoded;
  }
  absl::Status Decode(const EncodedBlockView& encoded, uint32_t, const BlockContext&,
                      MutableBlockView out) const override {
    if (encoded.bytes.size() != out.shape.bytes()) return absl::DataLossError("size");
    std::memcpy(out.values.data(), encoded.bytes.data(), encoded.bytes.size());
    if (lies_) out.values[0] ^= 1;
    return absl::OkStatus();
  }

 private:
  std::string name_;
  uint32_t version_;
  Digest128 profile_;
  bool lies_;
};

class ContainerTest : public testing::Test {
 protected:
  ContainerTest() : values_(ModelLikeValues(kShape, 1)), decoded_(values_.size()) {
    EXPECT_TRUE(RegisterBuiltinCodecs(registry_).ok());
    bytes_ = *EncodeBlock(registry_, "exact", {kShape, values_}, {});
  }

  absl::Status Decode(const std::string& bytes) {
    return DecodeBlock(registry_, bytes, {}, {kShape, absl::MakeSpan(decoded_)});
  }

  // The container with another value of a header field, under a right checksum.
  std::string WithField(size_t offset, std::string_view field) const {
    const size_t header_bytes = PeekContainer(bytes_)->header_bytes;
    std::string header = bytes_.substr(0, header_bytes - sizeof(uint64_t));
    header.replace(offset, field.size(), field);
    AppendChecksum(header);
    return header + bytes_.substr(header_bytes);
  }

  CodecRegistry registry_;
  std::vector<uint16_t> values_;
  std::vector<uint16_t> decoded_;
  std::string bytes_;
};

TEST_F(ContainerTest, TellsWhatItHolds) {
  const auto info = PeekContainer(bytes_);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->container_version, kContainerVersion);
  EXPECT_EQ(info->codec, "exact");
  EXPECT_EQ(info->codec_version, 1U);
  EXPECT_TRUE(info->profile_id.IsNone());
  EXPECT_EQ(info->shape, kShape);
  EXPECT_EQ(info->block_id, ComputeBlockId({kShape, values_}));
  EXPECT_EQ(info->header_bytes + info->payload_bytes, bytes_.size());
  EXPECT_TRUE(PeekContainer(bytes_.substr(0, info->header_bytes)).ok());
  EXPECT_FALSE(PeekContainer(bytes_.substr(0, info->header_bytes - 1)).ok());
}

TEST_F(ContainerTest, EveryDamagedByteIsDataLoss) {
  for (size_t i = 0; i < bytes_.size(); i += 1 + i / 128) {
    std::string damaged = bytes_;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x04);
    EXPECT_EQ(Decode(damaged).code(), StatusCode::kDataLoss) << i;
  }
}

TEST_F(ContainerTest, EveryCutAndEveryTailIsDataLoss) {
  for (size_t size = 0; size < bytes_.size(); size += 1 + size / 128) {
    EXPECT_EQ(Decode(bytes_.substr(0, size)).code(), StatusCode::kDataLoss) << size;
  }
  EXPECT_EQ(Decode(bytes_ + "x").code(), StatusCode::kDataLoss);
  EXPECT_EQ(Decode(bytes_ + bytes_).code(), StatusCode::kDataLoss);
}

// Every byte of the header under a right checksum, so that the checks behind it are reached.
TEST_F(ContainerTest, ForgedHeadersNeverGiveOtherValues) {
  const size_t header_bytes = PeekContainer(bytes_)->header_bytes;
  for (size_t i = 0; i + sizeof(uint64_t) < header_bytes; ++i) {
    for (const char value : {'\0', '\1', '\x7f', '\xff'}) {
      const absl::Status status = Decode(WithField(i, std::string(1, value)));
      EXPECT_TRUE(!status.ok() || decoded_ == values_) << i;
    }
  }
}

TEST_F(ContainerTest, ForgedPayloadsNeverGiveOtherValues) {
  TestRandom random(20261122);
  const auto info = PeekContainer(bytes_);
  ASSERT_EQ(info->section_sizes.size(), 1U);
  for (int i = 0; i < 3000; ++i) {
    std::string payload = bytes_.substr(info->header_bytes);
    payload[random.Below(i % 2 == 0 ? payload.size() : 200)] = static_cast<char>(random.Next());
    std::string checksum;
    AppendInteger(checksum, Checksum(payload));
    std::string forged = WithField(100, checksum).substr(0, info->header_bytes) + payload;
    const absl::Status status = Decode(forged);
    EXPECT_TRUE(status.ok() ? decoded_ == values_ : status.code() == StatusCode::kDataLoss) << status;
  }
}

TEST_F(ContainerTest, SaysThatANewerVersionIsNewer) {
  EXPECT_EQ(Decode(WithField(4, std::string("\2\0", 2))).code(), StatusCode::kUnimplemented);
  EXPECT_EQ(Decode(WithField(12, std::string("\2\0\0\0", 4))).code(), StatusCode::kUnimplemented);
}

TEST_F(ContainerTest, TellsAnUnknownCodecFromAMissingProfile) {
  EXPECT_EQ(Decode(WithField(16, "other")).code(), StatusCode::kUnimplemented);
  EXPECT_EQ(Decode(WithField(32, "profile")).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(EncodeBlock(registry_, "other", {kShape, values_}, {}).status().code(), StatusCode::kNotFound);
}

TEST_F(ContainerTest, RefusesRoomOfAnotherShape) {
  BlockShape other = kShape;
  std::swap(other.layers, other.kv_heads);
  EXPECT_EQ(DecodeBlock(registry_, bytes_, {}, {other, absl::MakeSpan(decoded_)}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(DecodeBlock(registry_, bytes_, {}, {kShape, absl::MakeSpan(decoded_).subspan(1)}).code(),
            StatusCode::kInvalidArgument);
}

TEST_F(ContainerTest, ChecksWhatACodecReturns) {
  ASSERT_TRUE(registry_.Register(std::make_unique<RawCodec>("liar", 1, Digest128{}, true)).ok());
  const auto bytes = EncodeBlock(registry_, "liar", {kShape, values_}, {});
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(Decode(*bytes).code(), StatusCode::kDataLoss);
}

TEST_F(ContainerTest, OldProfilesGoOnDecoding) {
  const Digest128 first{.high = 1, .low = 1};
  const Digest128 second{.high = 2, .low = 2};
  ASSERT_TRUE(registry_.Register(std::make_unique<RawCodec>("raw", 1, first)).ok());
  const auto old_bytes = EncodeBlock(registry_, "raw", {kShape, values_}, {});
  ASSERT_TRUE(registry_.Register(std::make_unique<RawCodec>("raw", 1, second)).ok());
  const auto new_bytes = EncodeBlock(registry_, "raw", {kShape, values_}, {});
  EXPECT_EQ(PeekContainer(*old_bytes)->profile_id, first);
  EXPECT_EQ(PeekContainer(*new_bytes)->profile_id, second);
  EXPECT_TRUE(Decode(*old_bytes).ok());
  EXPECT_TRUE(Decode(*new_bytes).ok());
}

TEST(CodecRegistryTest, RefusesDoublesAndBadNames) {
  CodecRegistry registry;
  EXPECT_TRUE(registry.Register(std::make_unique<RawCodec>("raw")).ok());
  EXPECT_EQ(registry.Register(std::make_unique<RawCodec>("raw")).code(), StatusCode::kAlreadyExists);
  for (const char* const name : {"", "Raw", "a b", "12345678901234567"}) {
    EXPECT_EQ(registry.Register(std::make_unique<RawCodec>(name)).code(), StatusCode::kInvalidArgument) << name;
  }
  EXPECT_TRUE(registry.Register(std::make_unique<RawCodec>("1234567890123456")).ok());
  EXPECT_THAT(registry.Names(), testing::ElementsAre("1234567890123456", "raw"));
}

}  // namespace
}  // namespace quicksave::compressor
