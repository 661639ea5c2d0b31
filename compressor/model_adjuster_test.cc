#include "compressor/model_adjuster.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "compressor/builtin_model.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

std::vector<TableFrequencies> Tables(size_t count) {
  std::vector<TableFrequencies> tables;
  for (size_t i = 0; i < count; ++i) tables.push_back(BuiltinTable(i));
  return tables;
}

bool Same(const std::optional<ModelAdjustment>& a, const std::optional<ModelAdjustment>& b) {
  return a.has_value() == b.has_value() && (!a || a->Pack() == b->Pack());
}

TEST(ModelAdjusterTest, EveryPathFindsTheSame) {
  for (const size_t count : {1, 5, 16}) {
    const ModelAdjuster adjuster(Tables(count));
    TestRandom random(count);
    for (const int tokens : {1, 7, 32, 37, 128}) {
      const BlockShape shape{.layers = 2, .kv_heads = 2, .head_dim = 64, .tokens = tokens};
      for (const auto& values : {ModelLikeValues(shape, 3), RandomBits(shape, 4)}) {
        for (size_t c = 0; c < shape.channels(); ++c) {
          const auto size = static_cast<size_t>(tokens);
          const auto channel = absl::MakeConstSpan(values).subspan(c * size, size);
          ChannelModel model = EstimateBuiltinModel(channel);
          model.table = static_cast<uint8_t>(random.Below(count));
          const auto portable = adjuster.Search(channel, model, CpuPath::kPortable);
          EXPECT_TRUE(Same(adjuster.Search(channel, model), portable)) << count << " " << tokens << " " << c;
        }
      }
    }
  }
}

TEST(ModelAdjusterTest, MovesTheWindowToTheValues) {
  const ModelAdjuster adjuster(Tables(kMaxTables));
  const BlockShape shape{.layers = 1, .kv_heads = 1, .head_dim = 64, .tokens = 128};
  const std::vector<uint16_t> values = ModelLikeValues(shape, 5);
  size_t moved = 0;
  for (size_t c = 0; c < shape.channels(); ++c) {
    const auto channel = absl::MakeConstSpan(values).subspan(c * 128, 128);
    ChannelModel model = EstimateBuiltinModel(channel);
    model.window_start = static_cast<uint16_t>(model.window_start + 5);
    const auto adjustment = adjuster.Search(channel, model);
    if (adjustment && adjustment->shift < 0) ++moved;
  }
  EXPECT_GT(moved, shape.channels() / 2);
}

}  // namespace
}  // namespace quicksave::compressor
