#include "server/engine/model/weight_rows.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::engine {
namespace {

template <class Value>
TensorView ViewOf(const std::string& dtype, std::vector<int64_t> shape, const std::vector<Value>& values) {
  return {dtype, std::move(shape),
          absl::MakeConstSpan(reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(Value))};
}

std::vector<float> Row(const WeightRows& rows, int index) {
  std::vector<float> row(rows.width());
  rows.Read(index, row.data());
  return row;
}

TEST(WeightRowsTest, ReadsHalfPrecisionWithoutLoss) {
  const std::vector<uint16_t> bits = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x83ff, 0x8000, 0x3555, 0x7c00};
  const auto rows = WeightRows::Of(ViewOf("F16", {1, 9}, bits));
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_THAT(Row(*rows, 0), testing::ElementsAre(1.0F, -2.0F, 65504.0F, 0x1p-14F, 0x1p-24F, -0x3ffp-24F, 0.0F,
                                                  0x1.554p-2F, std::numeric_limits<float>::infinity()));
  EXPECT_TRUE(std::signbit(Row(*rows, 0)[6]));
  EXPECT_EQ(rows->bf16(), nullptr);
}

TEST(WeightRowsTest, ReadsRowsOfEachType) {
  const std::vector<float> floats = {1.5F, 1e-30F, -3.25F, 4.0F};
  const auto wide = WeightRows::Of(ViewOf("F32", {2, 2}, floats));
  ASSERT_TRUE(wide.ok()) << wide.status();
  EXPECT_THAT(Row(*wide, 1), testing::ElementsAre(-3.25F, 4.0F));
  const std::vector<uint16_t> bits = {0x3f80, 0xc040};
  const auto vector = WeightRows::Of(ViewOf("BF16", {2}, bits));
  ASSERT_TRUE(vector.ok()) << vector.status();
  EXPECT_EQ(vector->rows(), 1);
  EXPECT_THAT(Row(*vector, 0), testing::ElementsAre(1.0F, -3.0F));
  EXPECT_EQ(vector->bf16(), bits.data());
}

TEST(WeightRowsTest, RefusesOtherTypes) {
  const std::vector<uint16_t> bits = {1};
  EXPECT_EQ(WeightRows::Of(ViewOf("F8_E4M3", {2}, bits)).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace quicksave::engine
