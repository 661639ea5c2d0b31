#include "compressor/block.h"

#include <gtest/gtest.h>

#include <vector>

#include "absl/hash/hash_testing.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr BlockShape kShape{.layers = 2, .kv_heads = 3, .head_dim = 4, .tokens = 5};

TEST(BlockShapeTest, SizesFollowTheDimensions) {
  EXPECT_EQ(kShape.tensors(), 4U);
  EXPECT_EQ(kShape.channels(), 48U);
  EXPECT_EQ(kShape.values(), 240U);
  EXPECT_EQ(kShape.bytes(), 480U);
}

TEST(BlockShapeTest, RefusesWhatIsOutOfRange) {
  EXPECT_TRUE(kShape.Validate().ok());
  for (const int bad : {0, -1, 4097, 1 << 30}) {
    for (int BlockShape::*const dimension :
         {&BlockShape::layers, &BlockShape::kv_heads, &BlockShape::head_dim, &BlockShape::tokens}) {
      BlockShape shape = kShape;
      shape.*dimension = bad;
      EXPECT_EQ(shape.Validate().code(), absl::StatusCode::kInvalidArgument) << shape.DebugString();
    }
  }
  EXPECT_FALSE((BlockShape{.layers = 1, .kv_heads = 1, .head_dim = 1, .tokens = 129}).Validate().ok());
  EXPECT_FALSE((BlockShape{.layers = 4096, .kv_heads = 4096, .head_dim = 4096, .tokens = 128}).Validate().ok());
}

TEST(BlockViewTest, RefusesAnotherNumberOfValues) {
  std::vector<uint16_t> values(kShape.values() - 1);
  EXPECT_EQ((BlockView{kShape, values}).Validate().code(), absl::StatusCode::kInvalidArgument);
  values.resize(kShape.values());
  EXPECT_TRUE((BlockView{kShape, values}).Validate().ok());
}

TEST(BlockIdTest, DependsOnEveryBitAndOnTheShape) {
  std::vector<uint16_t> values = RandomBits(kShape, 1);
  const BlockId id = ComputeBlockId({kShape, values});
  EXPECT_EQ(ComputeBlockId({kShape, values}), id);
  values.back() ^= 0x8000;
  EXPECT_NE(ComputeBlockId({kShape, values}), id);
  values.back() ^= 0x8000;
  BlockShape transposed = kShape;
  std::swap(transposed.kv_heads, transposed.head_dim);
  EXPECT_NE(ComputeBlockId({transposed, values}), id);
}

TEST(BlockIdTest, NeverChanges) {
  const std::vector<uint16_t> values = RandomBits(kShape, 1);
  EXPECT_EQ(ComputeBlockId({kShape, values}).ToHex(), "272e5528d85efc84b2d48da5a4c7fb10");
}

TEST(DigestTest, WritesAndReadsItsForms) {
  const Digest128 digest{.high = 0x0123456789abcdef, .low = 0xfedcba9876543210};
  EXPECT_EQ(digest.ToHex(), "0123456789abcdeffedcba9876543210");
  EXPECT_EQ(*Digest128::FromHex(digest.ToHex()), digest);
  EXPECT_EQ(*Digest128::FromHex("0123456789ABCDEFFEDCBA9876543210"), digest);
  EXPECT_EQ(digest.ToBytes(), std::string("\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10", 16));
  EXPECT_EQ(*Digest128::FromBytes(digest.ToBytes()), digest);
  for (const char* const bad : {"", "12", "0123456789abcdeffedcba987654321g", "0123456789abcdeffedcba98765432100"}) {
    EXPECT_FALSE(Digest128::FromHex(bad).ok()) << bad;
  }
  EXPECT_FALSE(Digest128::FromBytes("short").ok());
}

TEST(DigestTest, OrdersAndHashesLikeItsBytes) {
  const std::vector<Digest128> digests = {{.high = 0, .low = 0},
                                          {.high = 0, .low = 1},
                                          {.high = 0, .low = ~uint64_t{0}},
                                          {.high = 1, .low = 0},
                                          {.high = ~uint64_t{0}, .low = 0}};
  for (size_t i = 0; i + 1 < digests.size(); ++i) {
    EXPECT_LT(digests[i], digests[i + 1]);
    EXPECT_LT(digests[i].ToBytes(), digests[i + 1].ToBytes());
  }
  EXPECT_TRUE(absl::VerifyTypeImplementsAbslHashCorrectly(digests));
  EXPECT_TRUE(digests[0].IsNone());
  EXPECT_FALSE(digests[1].IsNone());
}

}  // namespace
}  // namespace quicksave::compressor
