#include "compressor/row_block.h"

#include <bit>
#include <cstring>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "compressor/byte_io.h"
#include "gtest/gtest.h"

namespace quicksave::compressor {
namespace {

std::vector<float> Decoded(const RowBlockShape& shape, const std::string& bytes, const BlockId& id) {
  std::vector<float> out(shape.values());
  const absl::Status status = DecodeRowBlock(bytes, shape, id, absl::MakeSpan(out));
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Normal values, columns of differing scale, as residual streams have them.
std::vector<float> Values(const RowBlockShape& shape, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> scales(shape.width);
  for (float& scale : scales) scale = std::exp2(2 * normal(random));
  std::vector<float> values(shape.values());
  for (size_t i = 0; i < values.size(); ++i) values[i] = scales[i % shape.width] * normal(random);
  return values;
}

TEST(RowBlockTest, ComesBackBitForBitAndSmaller) {
  for (const RowBlockShape& shape : {RowBlockShape{1, 1}, RowBlockShape{1, 576}, RowBlockShape{3, 64},
                                     RowBlockShape{128, 576}, RowBlockShape{100, 2048}}) {
    const std::vector<float> values = Values(shape, 1);
    const BlockId id = ComputeRowBlockId(shape, values);
    const std::string bytes = EncodeRowBlock(shape, values, id);
    EXPECT_TRUE(SameBits(Decoded(shape, bytes, id), values));
    EXPECT_LT(bytes.size(), shape.bytes() + 128);
    if (shape.rows < 100) continue;
    EXPECT_LT(bytes.size(), shape.bytes() * 0.87);
  }
}

TEST(RowBlockTest, EveryKindOfBitsComesBack) {
  const RowBlockShape shape{64, 64};
  std::mt19937 random(3);
  std::vector<float> values(shape.values());
  for (float& value : values) value = std::bit_cast<float>(static_cast<uint32_t>(random()));
  using Limits = std::numeric_limits<float>;
  const std::vector<float> special = {
      0.0F, -0.0F, Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(), Limits::denorm_min()};
  std::copy(special.begin(), special.end(), values.begin());
  const BlockId id = ComputeRowBlockId(shape, values);
  EXPECT_TRUE(SameBits(Decoded(shape, EncodeRowBlock(shape, values, id), id), values));
  // Few exponents, with some that are too rare for the table.
  std::vector<float> rare(shape.values(), 1.5F);
  std::copy(special.begin(), special.end(), rare.begin() + 100);
  const BlockId rare_id = ComputeRowBlockId(shape, rare);
  const std::string bytes = EncodeRowBlock(shape, rare, rare_id);
  EXPECT_TRUE(SameBits(Decoded(shape, bytes, rare_id), rare));
  EXPECT_LT(bytes.size(), shape.bytes() / 4);
}

TEST(RowBlockTest, IdentityTellsBitsAndShapeApart) {
  const std::vector<float> values = Values({4, 6}, 1);
  EXPECT_EQ(ComputeRowBlockId({4, 6}, values), ComputeRowBlockId({4, 6}, values));
  EXPECT_NE(ComputeRowBlockId({4, 6}, values), ComputeRowBlockId({6, 4}, values));
  std::vector<float> zero(4, 0.0F), minus_zero(4, -0.0F);
  EXPECT_NE(ComputeRowBlockId({2, 2}, zero), ComputeRowBlockId({2, 2}, minus_zero));
}

TEST(RowBlockTest, SaysWhatItIsUnlessItIsDamaged) {
  const RowBlockShape shape{3, 5};
  const std::vector<float> values = Values(shape, 1);
  const BlockId id = ComputeRowBlockId(shape, values);
  std::string bytes = EncodeRowBlock(shape, values, id);
  const absl::StatusOr<RowBlockInfo> info = PeekRowBlock(bytes);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->shape, shape);
  EXPECT_EQ(info->id, id);
  EXPECT_TRUE(absl::IsDataLoss(PeekRowBlock("").status()));
  EXPECT_TRUE(absl::IsDataLoss(PeekRowBlock(bytes.substr(0, 12)).status()));
  bytes[9] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(PeekRowBlock(bytes).status()));
}

TEST(RowBlockTest, AnyFlippedBitIsDataLossNeverOtherValues) {
  const RowBlockShape shape{16, 64};
  const std::vector<float> values = Values(shape, 5);
  const BlockId id = ComputeRowBlockId(shape, values);
  const std::string good = EncodeRowBlock(shape, values, id);
  std::vector<float> out(shape.values());
  std::mt19937 random(11);
  for (int round = 0; round < 400; ++round) {
    std::string bad = good;
    bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    EXPECT_EQ(DecodeRowBlock(bad, shape, id, absl::MakeSpan(out)).code(), absl::StatusCode::kDataLoss);
    // The same with a checksum that fits: then the planes, the header or the identity must give it away.
    bad.resize(bad.size() - 8);
    AppendChecksum(bad);
    const absl::Status status = DecodeRowBlock(bad, shape, id, absl::MakeSpan(out));
    EXPECT_TRUE(SameBits(out, values) || !status.ok()) << round;
  }
  for (size_t size = 0; size < good.size(); size += 37) {
    std::string bad = good.substr(0, size);
    EXPECT_EQ(DecodeRowBlock(bad, shape, id, absl::MakeSpan(out)).code(), absl::StatusCode::kDataLoss);
    AppendChecksum(bad);
    EXPECT_EQ(DecodeRowBlock(bad, shape, id, absl::MakeSpan(out)).code(), absl::StatusCode::kDataLoss);
  }
}

TEST(RowBlockTest, OtherBlocksShapesAndVersionsAreRefused) {
  const RowBlockShape shape{4, 8};
  const std::vector<float> values = Values(shape, 5);
  const BlockId id = ComputeRowBlockId(shape, values);
  std::string bytes = EncodeRowBlock(shape, values, id);
  std::vector<float> out(shape.values());
  EXPECT_TRUE(absl::IsDataLoss(DecodeRowBlock(bytes, {8, 4}, id, absl::MakeSpan(out))));
  EXPECT_TRUE(absl::IsDataLoss(DecodeRowBlock(bytes, shape, {1, 2}, absl::MakeSpan(out))));
  bytes.resize(bytes.size() - 8);
  bytes[4] = 2;
  AppendChecksum(bytes);
  EXPECT_TRUE(absl::IsUnimplemented(DecodeRowBlock(bytes, shape, id, absl::MakeSpan(out))));
}

// What version 1 looks like, so that a change of it is noticed.
TEST(RowBlockTest, BytesOfVersion1Stay) {
  const RowBlockShape shape{32, 32};
  std::vector<float> values(shape.values());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 61) - 30;
  const BlockId id = ComputeRowBlockId(shape, values);
  EXPECT_EQ(id.ToHex(), "ba7963f222533e39e01c0e2f0418c36c");
  EXPECT_EQ(ComputeDigest(EncodeRowBlock(shape, values, id)).ToHex(), "eba5683e53a28d10f9f74358992d6af4");
}

}  // namespace
}  // namespace quicksave::compressor
