#include "compressor/exact_profile.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "compressor/byte_io.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr BlockShape kShape{.layers = 3, .kv_heads = 2, .head_dim = 16, .tokens = 128};

ExactProfile BuildProfile(const std::vector<uint64_t>& seeds) {
  ExactProfileBuilder builder("model-a");
  for (const uint64_t seed : seeds) {
    const std::vector<uint16_t> values = ModelLikeValues(kShape, seed);
    EXPECT_TRUE(builder.AddBlock({kShape, values}).ok());
  }
  auto profile = builder.Build();
  EXPECT_TRUE(profile.ok()) << profile.status();
  return *std::move(profile);
}

// Replaces the checksum by the right one.
std::string Seal(std::string bytes) {
  bytes.resize(bytes.size() - sizeof(uint64_t));
  AppendChecksum(bytes);
  return bytes;
}

TEST(ExactProfileTest, SurvivesSerialization) {
  const ExactProfile profile = BuildProfile({1, 2});
  const std::string bytes = profile.Serialize();
  const auto parsed = ExactProfile::Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Serialize(), bytes);
  EXPECT_EQ(parsed->id(), profile.id());
  EXPECT_EQ(parsed->id(), ComputeDigest(bytes));
  EXPECT_EQ(parsed->model_fingerprint(), "model-a");
  EXPECT_EQ(parsed->layers(), 3);
  EXPECT_EQ(parsed->kv_heads(), 2);
  EXPECT_EQ(parsed->head_dim(), 16);
  EXPECT_EQ(parsed->channels(), profile.channels());
}

TEST(ExactProfileTest, DoesNotDependOnTheOrderOfBlocks) {
  EXPECT_EQ(BuildProfile({1, 2, 3}).Serialize(), BuildProfile({3, 1, 2}).Serialize());
  EXPECT_NE(BuildProfile({1, 2, 3}).id(), BuildProfile({1, 2, 4}).id());
}

TEST(ExactProfileTest, RefusesEveryDamagedByteAndEveryCut) {
  const std::string bytes = BuildProfile({1}).Serialize();
  for (size_t i = 0; i < bytes.size(); i += 1 + i / 97) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_EQ(ExactProfile::Parse(damaged).status().code(), absl::StatusCode::kDataLoss) << i;
    EXPECT_EQ(ExactProfile::Parse(bytes.substr(0, i)).status().code(), absl::StatusCode::kDataLoss) << i;
  }
}

TEST(ExactProfileTest, RefusesImpossibleContentsUnderARightChecksum) {
  const std::string bytes = BuildProfile({1}).Serialize();
  for (size_t i = 4; i + 8 < bytes.size(); i += 1 + i / 256) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      const auto parsed = ExactProfile::Parse(Seal(damaged));
      if (!parsed.ok()) continue;
      for (const TableFrequencies& table : parsed->tables()) EXPECT_TRUE(ValidateFrequencies(table).ok());
      for (const ChannelModel& model : parsed->channels()) EXPECT_TRUE(model.Valid(parsed->tables().size()));
    }
  }
}

TEST(ExactProfileTest, SaysThatANewerVersionIsNewer) {
  std::string bytes = BuildProfile({1}).Serialize();
  bytes[4] = 2;
  EXPECT_EQ(ExactProfile::Parse(Seal(bytes)).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(ExactProfileBuilderTest, RefusesNoBlocksAndMixedShapes) {
  ExactProfileBuilder builder("model-a");
  EXPECT_EQ(builder.Build().status().code(), absl::StatusCode::kFailedPrecondition);
  const std::vector<uint16_t> values = ModelLikeValues(kShape, 1);
  ASSERT_TRUE(builder.AddBlock({kShape, values}).ok());
  BlockShape other = kShape;
  std::swap(other.layers, other.kv_heads);
  EXPECT_EQ(builder.AddBlock({other, values}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(builder.tokens(), 128);
}

TEST(ExactProfileBuilderTest, AcceptsAnyValues) {
  for (const uint16_t value : {0x0000, 0x8000, 0x7f80, 0xffff, 0x0001, 0x3f80}) {
    ExactProfileBuilder builder("constant");
    const std::vector<uint16_t> values(kShape.values(), value);
    ASSERT_TRUE(builder.AddBlock({kShape, values}).ok());
    const auto profile = builder.Build();
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_TRUE(ExactProfile::Parse(profile->Serialize()).ok());
  }
}

}  // namespace
}  // namespace quicksave::compressor
