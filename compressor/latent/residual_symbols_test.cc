#include "compressor/latent/residual_symbols.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "compressor/latent/panel_product.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr ErrorLevel kLowest = kLowestLevel;
constexpr ErrorLevel kHighest = kHighestLevel;

std::vector<ErrorLevel> SomeLevels() {
  std::vector<ErrorLevel> levels = {kLowest, kLowest + 1, kHighest - 1, kHighest};
  for (int level = -48; level <= 32; level += 3) levels.push_back(static_cast<ErrorLevel>(level));
  return levels;
}

std::vector<uint16_t> SomePredictions() {
  // Zeros, denormals, the smallest and largest normal numbers, infinities, NaNs; and ordinary ones.
  std::vector<uint16_t> predictions = {0x0000, 0x8000, 0x0001, 0x8001, 0x007f, 0x0080, 0x7f7f, 0xff7f,
                                       0x7f80, 0xff80, 0x7f81, 0xffff, 0x3f80, 0xbf80, 0x3f7f, 0xc2c8};
  TestRandom random(4);
  for (int i = 0; i < 12; ++i) predictions.push_back(static_cast<uint16_t>(random.Next()));
  return predictions;
}

TEST(ErrorLevelTest, IsTheNearestQuarterOctave) {
  for (int level = kLowest; level <= kHighest; ++level) {
    const double error = std::exp2(level / 4.0);
    EXPECT_EQ(LevelOf(error), level);
    EXPECT_EQ(LevelOf(error * 1.0904), level);
    EXPECT_EQ(LevelOf(error / 1.0904), level);
    EXPECT_EQ(LevelOf(error * 1.0906), std::min<int>(level + 1, kHighest));
    EXPECT_EQ(LevelOf(error / 1.0906), std::max<int>(level - 1, kLowest));
  }
}

TEST(ErrorLevelTest, HasAnAnswerToAnyNumber) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(LevelOf(0), kLowest);
  EXPECT_EQ(LevelOf(-1), kLowest);
  EXPECT_EQ(LevelOf(std::nan("")), kLowest);
  EXPECT_EQ(LevelOf(std::numeric_limits<double>::denorm_min()), kLowest);
  EXPECT_EQ(LevelOf(std::numeric_limits<double>::max()), kHighest);
  EXPECT_EQ(LevelOf(infinity), kHighest);
}

TEST(OrderTest, IsThatOfTheNumbersAndHasAnInverse) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const int32_t order = OrderOf(static_cast<uint16_t>(bits));
    ASSERT_GE(order, -32768);
    ASSERT_LE(order, 32767);
    ASSERT_EQ(BitsOfOrder(order), bits);
  }
  for (int32_t order = OrderOf(0xff80); order < OrderOf(0x7f80); ++order) {
    ASSERT_LE(WidenBf16(BitsOfOrder(order)), WidenBf16(BitsOfOrder(order + 1)));
  }
}

TEST(ResidualSymbolsTest, EveryValueComesBackForAnyPredictionAndLevel) {
  for (const ErrorLevel level : SomeLevels()) {
    for (const uint16_t prediction : SomePredictions()) {
      const ResidualClasses& classes = ResidualClasses::Of(level);
      const ResidualClass& residual_class = classes[prediction];
      int escapes = 0;
      for (uint32_t value = 0; value < 65536; ++value) {
        const ResidualSymbol symbol = SymbolOf(static_cast<uint16_t>(value), prediction, classes);
        if (symbol.symbol == kEscapeSymbol) {
          ++escapes;
          continue;
        }
        ASSERT_LT(symbol.raw, 1 << residual_class.raw_bits);
        ASSERT_EQ(ValueOf(symbol, prediction, classes), value) << "prediction " << prediction << " level " << level;
      }
      ASSERT_LT(escapes, 65536) << "prediction " << prediction << " level " << level;
    }
  }
}

// A decoder may be given any symbol.
TEST(ResidualSymbolsTest, EverySymbolIsSomeValue) {
  for (const ErrorLevel level : SomeLevels()) {
    for (const uint16_t prediction : SomePredictions()) {
      const ResidualClasses& classes = ResidualClasses::Of(level);
      const ResidualClass& residual_class = classes[prediction];
      for (int symbol = 0; symbol < kEscapeSymbol; ++symbol) {
        for (int raw = 0; raw < 1 << residual_class.raw_bits; ++raw) {
          const ResidualSymbol told{static_cast<uint8_t>(symbol), static_cast<uint16_t>(raw)};
          const uint16_t value = ValueOf(told, prediction, classes);
          const ResidualSymbol again = SymbolOf(value, prediction, classes);
          // Beyond the largest number it is that number.
          if (value != 0x7fff && value != 0xffff && !residual_class.near_zero) {
            ASSERT_EQ(again.symbol, symbol);
            ASSERT_EQ(again.raw, raw);
          }
        }
      }
    }
  }
}

TEST(ResidualSymbolsTest, ClassesAreInRangeForAllPredictionsAndLevels) {
  std::vector<bool> seen(kResidualClasses);
  for (int level = kLowest; level <= kHighest; ++level) {
    for (uint32_t prediction = 0; prediction < 65536; prediction += 128) {
      const ResidualClass found =
          ResidualClasses::Of(static_cast<ErrorLevel>(level))[static_cast<uint16_t>(prediction)];
      ASSERT_LT(found.table, kResidualClasses);
      ASSERT_LE(found.raw_bits, 8);
      seen[found.table] = true;
    }
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), 31) << "tables that are used";
}

// What the tables are made for: errors of the level's size have a symbol.
TEST(ResidualSymbolsTest, OrdinaryErrorsAreNotEscaped) {
  TestRandom random(8);
  int escapes = 0;
  constexpr int kTrials = 20'000;
  for (int i = 0; i < kTrials; ++i) {
    const float prediction = 4 * random.Normal();
    const float error = std::exp2(static_cast<float>(random.Below(16)) - 12);
    const uint16_t value = NarrowToBf16(prediction + error * random.Normal());
    const ErrorLevel level = LevelOf(error);
    const uint16_t bits = NarrowToBf16(prediction);
    if (SymbolOf(value, bits, ResidualClasses::Of(level)).symbol == kEscapeSymbol) ++escapes;
  }
  EXPECT_LT(escapes, kTrials / 500);
}

}  // namespace
}  // namespace quicksave::compressor
