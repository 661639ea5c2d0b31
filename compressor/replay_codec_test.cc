#include "compressor/replay_codec.h"

#include <vector>

#include "compressor/container.h"
#include "gtest/gtest.h"

namespace quicksave::compressor {
namespace {

constexpr BlockShape kShape{.layers = 3, .kv_heads = 2, .head_dim = 8, .tokens = 20};

class ReplayCodecTest : public testing::Test {
 protected:
  std::vector<uint16_t> values_ = std::vector<uint16_t>(kShape.values(), 0x3f80);
  const BlockView block_{kShape, values_};
  const std::unique_ptr<const Codec> codec_ = NewReplayCodec();
  const std::string bytes_ = EncodeBlock(*codec_, block_, ComputeBlockId(block_), {}).value();
};

TEST_F(ReplayCodecTest, StoresTheIdentityAlone) {
  EXPECT_LT(bytes_.size(), 128u);
  EXPECT_EQ(PeekContainer(bytes_)->block_id, ComputeBlockId(block_));
}

TEST_F(ReplayCodecTest, TakesTheRecomputedBlockAndNoOther) {
  std::vector<uint16_t> recomputed = values_;
  const MutableBlockView out{kShape, absl::MakeSpan(recomputed)};
  EXPECT_TRUE(DecodeBlock(*codec_, bytes_, {}, out).ok());
  EXPECT_EQ(recomputed, values_);
  recomputed[77] ^= 1;
  EXPECT_TRUE(absl::IsDataLoss(DecodeBlock(*codec_, bytes_, {}, out)));
}

TEST_F(ReplayCodecTest, EveryFlippedByteIsDetected) {
  for (size_t i = 0; i < bytes_.size(); ++i) {
    std::string damaged = bytes_;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x40);
    std::vector<uint16_t> recomputed = values_;
    EXPECT_FALSE(DecodeBlock(*codec_, damaged, {}, {kShape, absl::MakeSpan(recomputed)}).ok()) << i;
  }
}

}  // namespace
}  // namespace quicksave::compressor
