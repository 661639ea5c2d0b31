// The exact codec against the reference decoder, and the golden files against both.

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/exact_profile.h"
#include "compressor/test_blocks.h"
#include "compressor/test_reference_decoder.h"

namespace quicksave::compressor {
namespace {

std::string ReadGolden(const std::string& name) {
  std::ifstream file(std::string(QUICKSAVE_COMPRESSOR_TESTDATA) + "/" + name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

std::shared_ptr<const ExactProfile> Calibrate(const BlockShape& shape) {
  ExactProfileBuilder builder("test-model");
  BlockShape full = shape;
  full.tokens = kMaxBlockTokens;
  for (uint64_t seed = 100; seed < 104; ++seed) {
    const std::vector<uint16_t> values = ModelLikeValues(full, seed);
    EXPECT_TRUE(builder.AddBlock({full, values}).ok());
  }
  return std::make_shared<const ExactProfile>(*builder.Build());
}

void ExpectReferenceAgrees(const CodecRegistry& registry, const std::string& profile, const BlockShape& shape,
                           const std::vector<uint16_t>& values, int expected_mode) {
  SCOPED_TRACE(shape.DebugString());
  const auto bytes = EncodeBlock(registry, "exact", {shape, values}, {});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  const ReferenceBlock reference = ReferenceDecode(*bytes, profile);
  EXPECT_EQ(reference.values, values);
  EXPECT_EQ(reference.id_hex, ComputeBlockId({shape, values}).ToHex());
  EXPECT_EQ(std::count(reference.modes.begin(), reference.modes.end(), expected_mode),
            static_cast<std::ptrdiff_t>(reference.modes.size()));
}

TEST(ExactReferenceTest, ReferenceDecodesWhatTheCodecWritesWithoutProfile) {
  CodecRegistry registry;
  ASSERT_TRUE(RegisterBuiltinCodecs(registry).ok());
  for (const int tokens : {1, 2, 7, 31, 32, 33, 64, 127, 128}) {
    const BlockShape shape{.layers = 3, .kv_heads = 2, .head_dim = 24, .tokens = tokens};
    ExpectReferenceAgrees(registry, "", shape, ModelLikeValues(shape, static_cast<uint64_t>(tokens)), 2);
    ExpectReferenceAgrees(registry, "", shape, RandomBits(shape, static_cast<uint64_t>(tokens)), 0);
  }
}

TEST(ExactReferenceTest, ReferenceDecodesWhatTheCodecWritesWithProfile) {
  BlockShape shape{.layers = 5, .kv_heads = 2, .head_dim = 24};
  const auto profile = Calibrate(shape);
  CodecRegistry registry;
  ASSERT_TRUE(registry.Register(NewExactCodec(profile)).ok());
  for (const int tokens : {1, 5, 31, 32, 100, 128}) {
    shape.tokens = tokens;
    ExpectReferenceAgrees(registry, profile->Serialize(), shape, ModelLikeValues(shape, 9), tokens < 32 ? 1 : 3);
  }
}

TEST(ExactReferenceTest, ReferenceDecodesSeveralSections) {
  const BlockShape shape{.layers = 4, .kv_heads = 4, .head_dim = 128, .tokens = 128};
  CodecRegistry registry;
  ASSERT_TRUE(RegisterBuiltinCodecs(registry).ok());
  const std::vector<uint16_t> values = ModelLikeValues(shape, 3);
  ExpectReferenceAgrees(registry, "", shape, values, 2);
  const auto info = PeekContainer(*EncodeBlock(registry, "exact", {shape, values}, {}));
  ASSERT_TRUE(info.ok());
  EXPECT_GT(info->section_sizes.size(), 1U);
}

TEST(GoldenTest, FilesOfVersion1StillDecode) {
  const std::string profile_bytes = ReadGolden("exact_v1.profile");
  auto profile = ExactProfile::Parse(profile_bytes);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->Serialize(), profile_bytes);
  CodecRegistry registry;
  ASSERT_TRUE(RegisterBuiltinCodecs(registry).ok());
  ASSERT_TRUE(registry.Register(NewExactCodec(std::make_shared<const ExactProfile>(*std::move(profile)))).ok());
  std::istringstream ids(ReadGolden("exact_v1.ids"));
  std::string name;
  std::string id;
  int files = 0;
  for (; ids >> name >> id; ++files) {
    SCOPED_TRACE(name);
    const std::string bytes = ReadGolden(name);
    const auto info = PeekContainer(bytes);
    ASSERT_TRUE(info.ok()) << info.status();
    std::vector<uint16_t> values(info->shape.values());
    ASSERT_TRUE(DecodeBlock(registry, bytes, {}, {info->shape, absl::MakeSpan(values)}).ok());
    EXPECT_EQ(ComputeBlockId({info->shape, values}).ToHex(), id);
    EXPECT_EQ(ReferenceDecode(bytes, profile_bytes).values, values);
  }
  EXPECT_EQ(files, 4);
}

// The bar of 1.5 is below what one head of one layer of real K and V reached when the files were written.
TEST(GoldenTest, RealValuesShrinkAsMuchAsTheyDid) {
  auto profile = ExactProfile::Parse(ReadGolden("exact_v1.profile"));
  ASSERT_TRUE(profile.ok());
  CodecRegistry registry;
  ASSERT_TRUE(registry.Register(NewExactCodec(std::make_shared<const ExactProfile>(*std::move(profile)))).ok());
  const std::string bytes = ReadGolden("exact_v1_profile_128.qsbk");
  const auto info = PeekContainer(bytes);
  ASSERT_TRUE(info.ok());
  std::vector<uint16_t> values(info->shape.values());
  ASSERT_TRUE(DecodeBlock(registry, bytes, {}, {info->shape, absl::MakeSpan(values)}).ok());
  const auto again = EncodeBlock(registry, "exact", {info->shape, values}, {});
  ASSERT_TRUE(again.ok());
  EXPECT_LE(again->size(), bytes.size());
  EXPECT_LT(static_cast<double>(again->size()) * 1.5, static_cast<double>(info->shape.bytes()));
}

}  // namespace
}  // namespace quicksave::compressor
