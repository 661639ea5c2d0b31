#include "compressor/model_costs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

// Code lengths of one table: of each symbol, and of what has none.
struct Lengths {
  std::array<uint8_t, 2 * kWindowClasses> symbols;
  uint8_t escape;
};

Lengths RandomLengths(TestRandom& random) {
  Lengths lengths;
  for (uint8_t& length : lengths.symbols) length = static_cast<uint8_t>(random.Below(64));
  lengths.escape = static_cast<uint8_t>(40 + random.Below(24));
  return lengths;
}

ShiftCosts CostsOf(const Lengths& lengths) {
  ShiftCosts costs;
  costs.fill(lengths.escape);
  for (int symbol = 0; symbol < 2 * kWindowClasses; ++symbol) {
    const int from_top = kWindowClasses - 1 - symbol % kWindowClasses;
    costs[symbol / kWindowClasses * kCostRow + kFirstInside + from_top] = lengths.symbols[symbol];
  }
  return costs;
}

// The definition.
int CostOf(absl::Span<const uint16_t> values, const ChannelModel& model, const Lengths& lengths, int shift) {
  int cost = 0;
  for (const uint16_t value : values) {
    const int magnitude = value >> kRawBits & (kMagnitudeClasses - 1);
    const int place = magnitude - model.window_start - shift;
    const bool is_second = (value >> 15 != 0) != model.flip_sign;
    const bool inside = place >= 0 && place < kWindowClasses;
    cost += inside ? lengths.symbols[place + (is_second ? kWindowClasses : 0)] : lengths.escape;
  }
  return cost;
}

std::vector<CpuPath> Paths() {
  std::vector<CpuPath> paths = {CpuPath::kFastest, CpuPath::kPortable};
  for (const CpuPath path : {CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (HavePath(path)) paths.push_back(path);
  }
  return paths;
}

// Calls `check` with values and models of all kinds.
template <typename Check>
void ForEachChannel(const Check& check) {
  TestRandom random(7);
  for (const int tokens : {1, 2, 31, 32, 33, 63, 64, 65, 96, 127, 128}) {
    for (const int start : {0, 5, 900, 1000, kMaxWindowStart}) {
      const BlockShape shape{.layers = 1, .kv_heads = 1, .head_dim = 2, .tokens = tokens};
      for (const auto& values : {ModelLikeValues(shape, start), RandomBits(shape, start)}) {
        for (const bool flip : {false, true}) {
          SCOPED_TRACE(testing::Message() << tokens << " tokens, window from " << start << ", flip " << flip);
          check(absl::MakeConstSpan(values).first(tokens),
                ChannelModel{.flip_sign = flip, .window_start = static_cast<uint16_t>(start)}, random);
        }
      }
    }
  }
}

TEST(ModelCostsTest, CostsOfShiftsAreThoseOfTheDefinitionOnEachPath) {
  ForEachChannel([](absl::Span<const uint16_t> values, const ChannelModel& model, TestRandom& random) {
    const Lengths lengths = RandomLengths(random);
    for (const CpuPath path : Paths()) {
      Places places;
      FindPlaces(values, model, places, path);
      for (const auto& [first, last] : {std::pair<size_t, size_t>{0, kShifts - 1}, {8, 8}, {3, 5}}) {
        const Costs costs = CostsOfShifts(CostsOf(lengths), places, first, last, path);
        for (size_t shift = first; shift <= last; ++shift) {
          EXPECT_EQ(costs[shift], CostOf(values, model, lengths, static_cast<int>(shift) + kMinShift)) << shift;
        }
      }
    }
  });
}

TEST(ModelCostsTest, CheapestTableIsThatOfTheDefinitionOnEachPath) {
  ForEachChannel([](absl::Span<const uint16_t> values, const ChannelModel& model, TestRandom& random) {
    std::vector<Lengths> tables;
    TableCosts costs;
    for (size_t t = 0; t < kMaxTables; ++t) {
      // Two that are equal: the first one counts.
      tables.push_back(t == 9 ? tables[4] : RandomLengths(random));
      const ShiftCosts by_shift = CostsOf(tables[t]);
      for (size_t i = 0; i < by_shift.size(); ++i) costs[i][t] = by_shift[i];
    }
    for (const size_t shift : {size_t{0}, size_t{8}, kShifts - 1}) {
      std::vector<int> sums;
      for (const Lengths& lengths : tables) {
        sums.push_back(
            CostOf(values.first((values.size() + 1) / 2), model, lengths, static_cast<int>(shift) + kMinShift));
      }
      const auto expected = static_cast<size_t>(std::min_element(sums.begin(), sums.end()) - sums.begin());
      for (const CpuPath path : Paths()) {
        Places places;
        FindPlaces(values, model, places, path);
        EXPECT_EQ(CheapestTable(costs, places, shift, path), expected) << shift;
      }
    }
  });
}

TEST(ModelCostsTest, ThePlacesSumIsOfWhatCanBeInside) {
  ForEachChannel([](absl::Span<const uint16_t> values, const ChannelModel& model, TestRandom& /*random*/) {
    int sum = 0;
    int coded = 0;
    for (const uint16_t value : values) {
      const int place = (value >> kRawBits & (kMagnitudeClasses - 1)) - model.window_start;
      const int below_top = kWindowClasses - 1 - place + static_cast<int>(kFirstInside) + kMinShift;
      if (below_top <= 0 || below_top >= kPlaces) continue;
      sum += below_top;
      ++coded;
    }
    for (const CpuPath path : Paths()) {
      Places places;
      FindPlaces(values, model, places, path);
      EXPECT_EQ(places.count, values.size());
      EXPECT_EQ(places.sum, sum);
      EXPECT_EQ(places.coded, coded);
    }
  });
}

}  // namespace
}  // namespace quicksave::compressor
