#include "server/engine/taps.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::engine {
namespace {

constexpr int kHidden = 3;

// Appends tokens whose rows hold the token's position, the layer's index and `mark`.
void Append(Taps& taps, int first_token, int count, float mark = 0) {
  const std::vector<float*> rows = taps.Append(first_token, count);
  ASSERT_EQ(rows.size(), static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    if (rows[i] == nullptr) continue;
    for (size_t layer = 0; layer < taps.layers().size(); ++layer) {
      const float values[] = {static_cast<float>(first_token + i), static_cast<float>(layer), mark};
      std::copy_n(values, kHidden, rows[i] + layer * kHidden);
    }
  }
}

void ExpectRows(const Taps& taps, int first_token, int count, float mark = 0) {
  EXPECT_EQ(taps.extent().first_token, first_token);
  ASSERT_EQ(taps.extent().token_count, count);
  for (int token = first_token; token < first_token + count; ++token) {
    ASSERT_TRUE(taps.Has(token));
    for (int layer = 0; layer < static_cast<int>(taps.layers().size()); ++layer) {
      EXPECT_THAT(taps.Row(layer, token),
                  testing::ElementsAre(static_cast<float>(token), static_cast<float>(layer), mark));
    }
  }
  EXPECT_FALSE(taps.Has(first_token - 1));
  EXPECT_FALSE(taps.Has(first_token + count));
}

const TapSpec kAll{.layers = {0, 4}, .all_tokens = true};
const TapSpec kLast{.layers = {0, 4}, .all_tokens = false};

TEST(TapsTest, OffHasNothing) {
  Taps taps;
  EXPECT_FALSE(taps.on());
  EXPECT_FALSE(taps.Has(0));
  EXPECT_EQ(taps.extent(), TapExtent());
  taps.Truncate(0);
  EXPECT_FALSE(taps.WithoutValues().on());
}

TEST(TapsTest, AllKeepsEveryTokenWhateverTheChunks) {
  for (const int chunk : {1, 5, 16, 40, 100}) {
    Taps taps(kAll, kHidden);
    for (int token = 7; token < 100; token += chunk) Append(taps, token, std::min(chunk, 100 - token));
    ExpectRows(taps, 7, 93);
    EXPECT_EQ(taps.extent().bytes(), 93 * 2 * kHidden * 4);
  }
}

TEST(TapsTest, LastKeepsTheLastTokenOfEachAppend) {
  Taps taps(kLast, kHidden);
  Append(taps, 0, 40);
  ExpectRows(taps, 39, 1);
  const Taps copy = taps;
  Append(taps, 40, 1);
  ExpectRows(taps, 40, 1);
  ExpectRows(copy, 39, 1);
  taps.Truncate(41);
  ExpectRows(taps, 40, 1);
  taps.Truncate(40);
  EXPECT_EQ(taps.extent().token_count, 0);
  EXPECT_TRUE(taps.on());
}

TEST(TapsTest, CopiesGoTheirOwnWays) {
  Taps taps(kAll, kHidden);
  Append(taps, 0, 20);
  Taps other = taps;
  Append(taps, 20, 20, 1);
  Append(other, 20, 3, 2);
  EXPECT_EQ(taps.Row(0, 15).data(), other.Row(0, 15).data()) << "whole chunks are shared";
  EXPECT_EQ(taps.Row(1, 39)[2], 1);
  EXPECT_EQ(other.Row(1, 22)[2], 2);
  EXPECT_EQ(other.Row(1, 19)[2], 0);
  EXPECT_FALSE(other.Has(23));
}

TEST(TapsTest, RewindingTruncatesAndGoesOnFromThere) {
  Taps taps(kAll, kHidden);
  Append(taps, 5, 60);
  const Taps copy = taps;
  taps.Truncate(33);
  ExpectRows(taps, 5, 28);
  // A token is evaluated again, as for its logits.
  Append(taps, 32, 10);
  ExpectRows(taps, 5, 37);
  taps.Truncate(3);
  EXPECT_EQ(taps.extent().token_count, 0);
  Append(taps, 3, 2);
  ExpectRows(taps, 3, 2);
  ExpectRows(copy, 5, 60);
}

TEST(TapsTest, AGapBeginsAnew) {
  Taps taps(kAll, kHidden);
  Append(taps, 0, 50);
  Append(taps, 60, 20);
  ExpectRows(taps, 60, 20);
}

TEST(TapsTest, BeginsNotBeforeItsPosition) {
  Taps taps(kAll, kHidden, 30);
  Append(taps, 0, 20);
  EXPECT_EQ(taps.extent().token_count, 0);
  Append(taps, 20, 20);
  ExpectRows(taps, 30, 10);
  Append(taps, 40, 3);
  ExpectRows(taps, 30, 13);
}

TEST(TapsTest, SameTapsComparesBits) {
  Taps a(kAll, kHidden), b(kAll, kHidden);
  Append(a, 0, 2);
  Append(b, 0, 2);
  EXPECT_TRUE(SameTaps(a, b, 1));
  Append(b, 1, 1, -0.0F);
  EXPECT_FALSE(SameTaps(a, b, 1));
  EXPECT_TRUE(SameTaps(a, b, 0));
}

TEST(TapsTest, ValidateNamesTheLayer) {
  EXPECT_TRUE(Validate({.layers = {0, 5, 6}}, 5).ok());
  EXPECT_TRUE(Validate({}, 5).ok());
  for (const std::vector<int>& layers : {std::vector<int>{7}, {-1}, {2, 2}, {3, 2}}) {
    const absl::Status status = Validate({.layers = layers}, 5);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("taps.layers"));
  }
}

}  // namespace
}  // namespace quicksave::engine
