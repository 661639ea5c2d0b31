#include "compressor/model_adjuster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
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

// Bits of the values under a model, in the tables' own measure.
double BitsOf(absl::Span<const uint16_t> values, const ChannelModel& model) {
  const TableFrequencies frequencies = BuiltinTable(model.table);
  double bits = 0;
  for (const uint16_t value : values) {
    const int place = (value >> kRawBits & (kMagnitudeClasses - 1)) - model.window_start;
    const bool inside = place >= 0 && place < kWindowClasses;
    const bool is_second = (value >> 15 != 0) != model.flip_sign;
    const int symbol = inside ? place + (is_second ? kWindowClasses : 0) : kEscapeSymbol;
    const bool escape = symbol == kEscapeSymbol || frequencies[symbol] == 0;
    bits += kFrequencyBits - std::log2(frequencies[escape ? kEscapeSymbol : symbol]) + (escape ? 16 : 0);
  }
  return bits;
}

TEST(ModelAdjusterTest, SavesMostOfWhatAnExhaustiveSearchDoes) {
  const ModelAdjuster adjuster(Tables(kMaxTables));
  for (const int tokens : {32, 128}) {
    const BlockShape shape{.layers = 1, .kv_heads = 1, .head_dim = 64, .tokens = tokens};
    const std::vector<uint16_t> values = ModelLikeValues(shape, 6);
    TestRandom random(8);
    double saved = 0;
    double possible = 0;
    for (size_t c = 0; c < shape.channels(); ++c) {
      const auto channel = absl::MakeConstSpan(values).subspan(c * tokens, tokens);
      ChannelModel model = EstimateBuiltinModel(channel);
      model.table = static_cast<uint8_t>(random.Below(kMaxTables));
      model.window_start = static_cast<uint16_t>(model.window_start + random.Below(7) - 3);
      const double before = BitsOf(channel, model);
      const auto found = Search(adjuster, channel, tokens, absl::MakeConstSpan(&model, 1)).front();
      if (found) saved += before - 8 - BitsOf(channel, *found->Apply(model, kMaxTables));
      double best = 0;
      for (uint8_t table = 0; table < kMaxTables; ++table) {
        for (int shift = kMinShift; shift < kMinShift + static_cast<int>(kShifts); ++shift) {
          const auto moved = ModelAdjustment{.table = table, .shift = shift}.Apply(model, kMaxTables);
          if (moved) best = std::max(best, before - 8 - BitsOf(channel, *moved));
        }
      }
      possible += best;
    }
    std::cout << tokens << " tokens: " << saved / possible << " of what an exhaustive search saves\n";
    EXPECT_GT(saved, 0.8 * possible) << tokens;
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
