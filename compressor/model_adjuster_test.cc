#include "compressor/model_adjuster.h"

#include <gtest/gtest.h>

#include <algorithm>
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

using Adjustments = std::vector<std::optional<ModelAdjustment>>;

Adjustments Search(const ModelAdjuster& adjuster, absl::Span<const uint16_t> values, size_t tokens,
                   absl::Span<const ChannelModel> models, CpuPath path = CpuPath::kFastest) {
  Adjustments found(models.size());
  adjuster.Search(values, tokens, models, absl::MakeSpan(found), path);
  return found;
}

// -1 for none.
std::vector<int> Packed(const Adjustments& adjustments) {
  std::vector<int> packed;
  for (const auto& adjustment : adjustments) packed.push_back(adjustment ? adjustment->Pack() : -1);
  return packed;
}

TEST(ModelAdjusterTest, EveryPathFindsTheSame) {
  for (const size_t count : {1, 5, 16}) {
    const ModelAdjuster adjuster(Tables(count));
    TestRandom random(count);
    for (const int tokens : {1, 7, 32, 37, 128}) {
      const BlockShape shape{.layers = 2, .kv_heads = 2, .head_dim = 64, .tokens = tokens};
      for (const auto& values : {ModelLikeValues(shape, 3), RandomBits(shape, 4)}) {
        std::vector<ChannelModel> models;
        for (size_t c = 0; c < shape.channels(); ++c) {
          models.push_back(EstimateBuiltinModel(absl::MakeConstSpan(values).subspan(c * tokens, tokens)));
          models.back().table = static_cast<uint8_t>(random.Below(count));
          const int start = models.back().window_start + static_cast<int>(random.Below(9)) - 4;
          models.back().window_start = static_cast<uint16_t>(std::clamp(start, 0, kMaxWindowStart));
        }
        // Not of a whole number of channels at a time.
        models.pop_back();
        const auto expected = Packed(Search(adjuster, values, tokens, models, CpuPath::kPortable));
        for (const CpuPath path : {CpuPath::kFastest, CpuPath::kAvx2, CpuPath::kAvx512}) {
          if (!HavePath(path)) continue;
          EXPECT_EQ(Packed(Search(adjuster, values, tokens, models, path)), expected) << count << " " << tokens;
        }
      }
    }
  }
}

TEST(ModelAdjusterTest, MovesTheWindowToTheValues) {
  const ModelAdjuster adjuster(Tables(kMaxTables));
  const BlockShape shape{.layers = 1, .kv_heads = 1, .head_dim = 64, .tokens = 128};
  const std::vector<uint16_t> values = ModelLikeValues(shape, 5);
  for (const int away : {-7, 5}) {
    std::vector<ChannelModel> models;
    for (size_t c = 0; c < shape.channels(); ++c) {
      models.push_back(EstimateBuiltinModel(absl::MakeConstSpan(values).subspan(c * 128, 128)));
      models.back().window_start = static_cast<uint16_t>(models.back().window_start + away);
    }
    size_t moved = 0;
    for (const auto& adjustment : Search(adjuster, values, 128, models)) {
      if (adjustment && (adjustment->shift < 0) == (away > 0)) ++moved;
    }
    EXPECT_GT(moved, shape.channels() / 2) << away;
  }
}

}  // namespace
}  // namespace quicksave::compressor
