#include "compressor/latent/channel_panels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "compressor/latent/panel_product.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr BlockShape kShape{.layers = 3, .kv_heads = 2, .head_dim = 6, .tokens = 37};

// Cosines and sines of some angles, [tokens][2][head_dim / 2].
std::vector<float> Angles(double speed) {
  std::vector<float> table;
  for (int t = 0; t < kShape.tokens; ++t) {
    for (int i = 0; i < kShape.head_dim / 2; ++i) table.push_back(static_cast<float>(std::cos(speed * t / (1 + i))));
    for (int i = 0; i < kShape.head_dim / 2; ++i) table.push_back(static_cast<float>(std::sin(speed * t / (1 + i))));
  }
  return table;
}

class ChannelPanelsTest : public testing::Test {
 protected:
  ChannelPanelsTest()
      : slow_(Angles(0.01)),
        fast_(Angles(1)),
        tables_{slow_.data(), fast_.data(), slow_.data()},
        values_(ModelLikeValues(kShape, 3)) {}

  BlockContext Context(int known) const {
    BlockContext context{.angles = tables_};
    context.known_tokens = known;
    return context;
  }
  BlockView view() const { return {kShape, values_}; }
  float Value(int layer, int tensor, int head, int dim, int token) const {
    const size_t channel = ((size_t{2} * layer + tensor) * kShape.kv_heads + head) * kShape.head_dim + dim;
    return WidenBf16(values_[channel * kShape.tokens + token]);
  }

  const std::vector<float> slow_;
  const std::vector<float> fast_;
  const std::vector<const float*> tables_;
  const std::vector<uint16_t> values_;
};

TEST_F(ChannelPanelsTest, TurnsKeysBackAndLeavesValuesAsTheyAre) {
  constexpr int kKnown = 2;
  const ChannelPanels panels(kShape, Context(kKnown));
  ASSERT_EQ(panels.tokens(), kShape.tokens - kKnown);
  ASSERT_EQ(panels.columns(), 64);
  const std::vector<float> panel = panels.Read(view(), 1, 2);
  ASSERT_EQ(panel.size(), 2 * 2 * kShape.channels_per_tensor() * 64);
  size_t row = 0;
  for (int layer = 1; layer < 3; ++layer) {
    const std::vector<float>& table = layer == 1 ? fast_ : slow_;
    for (int tensor = 0; tensor < 2; ++tensor) {
      for (int head = 0; head < kShape.kv_heads; ++head) {
        for (int dim = 0; dim < kShape.head_dim; ++dim, ++row) {
          for (int t = kKnown; t < kShape.tokens; ++t) {
            const int half = kShape.head_dim / 2;
            const float* angles = table.data() + static_cast<size_t>(t) * kShape.head_dim;
            const double cosine = angles[dim % half];
            const double sine = dim < half ? angles[half + dim] : -angles[dim];
            const double value = Value(layer, tensor, head, dim, t);
            const double other = Value(layer, tensor, head, (dim + half) % kShape.head_dim, t);
            const double expected = tensor == 1 ? value : value * cosine + other * sine;
            // Two fp32 products and a sum.
            ASSERT_NEAR(panel[row * 64 + t - kKnown], expected, 4e-7 * (std::abs(value) + std::abs(other)));
          }
        }
      }
    }
  }
}

TEST_F(ChannelPanelsTest, PaddingIsZero) {
  const ChannelPanels panels(kShape, Context(0));
  const std::vector<float> panel = panels.Read(view(), 0, 3);
  for (size_t row = 0; row < panel.size() / 64; ++row) {
    for (int t = kShape.tokens; t < 64; ++t) ASSERT_EQ(panel[row * 64 + t], 0.0f);
  }
}

TEST_F(ChannelPanelsTest, WhatWasReadIsWrittenBack) {
  for (const int known : {0, 4, 36}) {
    const ChannelPanels panels(kShape, Context(known));
    std::vector<uint16_t> written(values_.size(), 0x4242);
    std::vector<float> panel = panels.Read(view(), 1, 2);
    panels.Write(panel, 1, 2, {kShape, absl::MakeSpan(written)});
    for (size_t i = 0; i < written.size(); ++i) {
      const bool coded = i >= values_.size() / 3 && static_cast<int>(i % kShape.tokens) >= known;
      if (!coded) {
        ASSERT_EQ(written[i], 0x4242) << "not ours to write";
      } else {
        // A rotation and its inverse in fp32, of numbers up to about 30, rounded to eight bits.
        ASSERT_NEAR(WidenBf16(written[i]), WidenBf16(values_[i]), std::abs(WidenBf16(values_[i])) / 128 + 1e-5);
      }
    }
  }
}

TEST_F(ChannelPanelsTest, ValuesComeBackBitForBit) {
  const ChannelPanels panels(kShape, Context(0));
  std::vector<uint16_t> written(values_.size());
  std::vector<float> panel = panels.Read(view(), 0, 3);
  panels.Write(panel, 0, 3, {kShape, absl::MakeSpan(written)});
  const size_t tensor = kShape.channels_per_tensor() * kShape.tokens;
  for (size_t i = 0; i < written.size(); ++i) {
    if (i / tensor % 2 == 1) {
      ASSERT_EQ(written[i], values_[i]);
    }
  }
}

// Whether layers share a table or have equal ones is the same.
TEST_F(ChannelPanelsTest, SharedTablesAreLikeEqualOnes) {
  const std::vector<float> copy = slow_;
  const std::vector<const float*> tables = {slow_.data(), fast_.data(), copy.data()};
  const ChannelPanels shared(kShape, Context(1));
  const ChannelPanels equal(kShape, {.angles = tables, .known_tokens = 1});
  EXPECT_EQ(shared.Read(view(), 0, 3), equal.Read(view(), 0, 3));
}

TEST_F(ChannelPanelsTest, AllTokensMayBeKnown) {
  for (const int known : {37, 38, 1000}) {
    const ChannelPanels panels(kShape, Context(known));
    EXPECT_EQ(panels.tokens(), 0);
    EXPECT_EQ(panels.columns(), 0);
    EXPECT_TRUE(panels.Read(view(), 0, 3).empty());
  }
}

}  // namespace
}  // namespace quicksave::compressor
