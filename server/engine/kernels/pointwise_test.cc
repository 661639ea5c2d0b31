#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/testing/instruction_sets.h"

namespace quicksave::engine::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
// Rounding to bf16 is up to 2^-8 of the value, and a little for the fp32 arithmetic before it.
constexpr double kBf16Error = 0.00391;

std::vector<float> RandomFloats(size_t count, float deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Runs `compute` on every instruction set; the bits must be the same. Returns them.
std::vector<float> OnAll(const std::function<std::vector<float>()>& compute) {
  std::vector<float> first;
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    const std::vector<float> result = compute();
    if (first.empty()) first = result;
    EXPECT_EQ(std::memcmp(first.data(), result.data(), first.size() * sizeof(float)), 0) << TargetName(target);
  }
  return first;
}

TEST(RmsNormTest, IsThatOfASlowReference) {
  for (const int width : {32, 64, 96, 576, 4096}) {
    const int rows = 3;
    const std::vector<float> x = RandomFloats(size_t(rows) * width, 3, width);
    const std::vector<float> weight = RandomFloats(width, 1, width + 1);
    const std::vector<float> y = OnAll([&] {
      std::vector<float> out(x.size(), kNan);
      RmsNorm(x.data(), weight.data(), rows, width, 1e-5F, out.data(), Rounding::kBf16);
      return out;
    });
    for (int row = 0; row < rows; ++row) {
      double squares = 0;
      for (int i = 0; i < width; ++i) squares += double{x[size_t(row) * width + i]} * x[size_t(row) * width + i];
      const double scale = 1 / std::sqrt(squares / width + 1e-5);
      for (int i = 0; i < width; ++i) {
        const double expected = x[size_t(row) * width + i] * scale * weight[i];
        ASSERT_NEAR(y[size_t(row) * width + i], expected, kBf16Error * std::abs(expected)) << width << ", " << i;
        ASSERT_EQ(y[size_t(row) * width + i], Bf16ToFloat(Bf16Bits(y[size_t(row) * width + i])));
      }
    }
  }
}

TEST(RmsNormTest, RowsDoNotDependOnEachOther) {
  const std::vector<float> x = RandomFloats(size_t{4} * 64, 3, 1);
  const std::vector<float> weight(64, 1.0F);
  std::vector<float> together(x.size());
  std::vector<float> alone(x.size());
  RmsNorm(x.data(), weight.data(), 4, 64, 1e-5F, together.data(), Rounding::kBf16);
  for (int row = 0; row < 4; ++row) {
    RmsNorm(x.data() + row * 64, weight.data(), 1, 64, 1e-5F, alone.data() + row * 64, Rounding::kBf16);
  }
  EXPECT_EQ(together, alone);
}

TEST(RmsNormTest, ZerosStayZeros) {
  const std::vector<float> x(64, 0.0F);
  std::vector<float> y(64, kNan);
  RmsNorm(x.data(), std::vector<float>(64, 1.0F).data(), 1, 64, 1e-5F, y.data(), Rounding::kBf16);
  EXPECT_EQ(y, x);
}

TEST(RoundingTest, WithoutItResultsAreThoseThatAreRoundedWithIt) {
  const std::vector<float> x = RandomFloats(size_t{3} * 128, 2, 21);
  const std::vector<float> weight = RandomFloats(128, 1, 22);
  const auto expect_rounded = [](std::vector<float> exact, const std::vector<float>& rounded) {
    EXPECT_NE(exact, rounded);
    RoundToBf16(exact.data(), exact.size());
    EXPECT_EQ(exact, rounded);
  };
  std::vector<float> exact(x.size());
  std::vector<float> rounded(x.size());
  RmsNorm(x.data(), weight.data(), 3, 128, 1e-5F, exact.data(), Rounding::kNone);
  RmsNorm(x.data(), weight.data(), 3, 128, 1e-5F, rounded.data(), Rounding::kBf16);
  expect_rounded(exact, rounded);
  for (const auto glu : {SwiGlu, GeGlu}) {
    glu(x.data(), 3, 64, exact.data(), Rounding::kNone);
    glu(x.data(), 3, 64, rounded.data(), Rounding::kBf16);
    expect_rounded(exact, rounded);
  }
}

TEST(RmsNormInPlaceTest, NormalisesEachGroupAndLeavesTheRest) {
  const Groups groups{.rows = 3, .count = 2, .width = 48, .x_stride = 2 * 48 + 9};
  const std::vector<float> x = RandomFloats(size_t{3} * groups.x_stride, 3, 21);
  const std::vector<float> weight = RandomFloats(48, 1, 22);
  const std::vector<float> y = OnAll([&] {
    std::vector<float> out = x;
    RmsNormInPlace(out.data(), groups, weight.data(), 1e-5F);
    return out;
  });
  for (int row = 0; row < groups.rows; ++row) {
    for (int i = 0; i < groups.x_stride; ++i) {
      const size_t at = size_t(row) * groups.x_stride + i;
      const size_t begin = at - i % 48;
      double squares = 0;
      for (size_t k = begin; i < 96 && k < begin + 48; ++k) squares += double{x[k]} * x[k];
      const double expected = i < 96 ? x[at] / std::sqrt(squares / 48 + 1e-5) * weight[i % 48] : x[at];
      ASSERT_NEAR(y[at], expected, 1e-6 * std::abs(expected) + 1e-9) << row << ", " << i;
    }
  }
}

class RopeTest : public testing::TestWithParam<int> {};

TEST_P(RopeTest, RotatesHalvesByTheRowsPosition) {
  const int head_dim = GetParam();
  const int heads = 3;
  const int stride = heads * head_dim + 5;
  const std::vector<int32_t> positions = {0, 7, 99};
  std::vector<float> table;  // [100][2][head_dim / 2]
  for (int position = 0; position < 100; ++position) {
    for (const bool sine : {false, true}) {
      for (int i = 0; i < head_dim / 2; ++i) {
        const double angle = position / std::pow(10000.0, 2.0 * i / head_dim);
        table.push_back(static_cast<float>(sine ? std::sin(angle) : std::cos(angle)));
      }
    }
  }
  const std::vector<float> x = RandomFloats(positions.size() * stride, 1, 5);
  const std::vector<float> y = OnAll([&] {
    std::vector<float> out = x;
    Rope(out.data(), stride, 3, heads, head_dim, positions.data(), table.data());
    return out;
  });
  for (int row = 0; row < 3; ++row) {
    for (int head = 0; head < heads; ++head) {
      for (int i = 0; i < head_dim / 2; ++i) {
        const size_t low = size_t(row) * stride + head * head_dim + i;
        const size_t high = low + head_dim / 2;
        const double angle = positions[row] / std::pow(10000.0, 2.0 * i / head_dim);
        // fp32: cosine and sine are good to 2^-25, the product of two numbers below 4 to 2^-22.
        ASSERT_NEAR(y[low], x[low] * std::cos(angle) - x[high] * std::sin(angle), 1e-6);
        ASSERT_NEAR(y[high], x[high] * std::cos(angle) + x[low] * std::sin(angle), 1e-6);
      }
    }
    for (int after = heads * head_dim; after < stride; ++after) {
      ASSERT_EQ(y[size_t(row) * stride + after], x[size_t(row) * stride + after]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(HeadDims, RopeTest, testing::Values(16, 48, 64, 80, 256));

TEST(SwiGluTest, IsThatOfASlowReference) {
  const int width = 96;
  std::vector<float> gate_up = RandomFloats(size_t{2} * 2 * width, 4, 9);
  // Gates far from zero: silu goes to 0 below and to the gate itself above.
  const float extremes[] = {-20, -80, -90, -104, -110, -150, -178, -200, -300, -1e4F, -1e30F, 90, 200, 1e4F, 1e30F, 0};
  std::copy(std::begin(extremes), std::end(extremes), gate_up.begin());
  const std::vector<float> y = OnAll([&] {
    std::vector<float> out(size_t{2} * width, kNan);
    SwiGlu(gate_up.data(), 2, width, out.data());
    return out;
  });
  for (int row = 0; row < 2; ++row) {
    for (int i = 0; i < width; ++i) {
      const double gate = gate_up[size_t(row) * 2 * width + i];
      const double up = gate_up[size_t(row) * 2 * width + width + i];
      const double expected = gate / (1 + std::exp(-gate)) * up;
      // Below about -88 the exponential overflows in fp32 and the result is 0.
      ASSERT_NEAR(y[size_t(row) * width + i], expected, kBf16Error * std::abs(expected) + 1e-34) << "gate " << gate;
    }
  }
}

TEST(GeGluTest, IsThatOfASlowReference) {
  const int width = 96;
  std::vector<float> gate_up = RandomFloats(size_t{2} * 2 * width, 3, 10);
  // gelu goes to 0 below and to the gate itself above.
  const float extremes[] = {-5, -7, -10, -14, -1e2F, -1e4F, -1e13F, -1e30F, 5, 7, 14, 1e4F, 1e13F, 1e30F, 0};
  std::copy(std::begin(extremes), std::end(extremes), gate_up.begin());
  const std::vector<float> y = OnAll([&] {
    std::vector<float> out(size_t{2} * width, kNan);
    GeGlu(gate_up.data(), 2, width, out.data());
    return out;
  });
  for (int row = 0; row < 2; ++row) {
    for (int i = 0; i < width; ++i) {
      const double gate = gate_up[size_t(row) * 2 * width + i];
      const double up = gate_up[size_t(row) * 2 * width + width + i];
      const double z = std::sqrt(8 / M_PI) * (gate + 0.044715 * gate * gate * gate);
      const double expected = gate / (1 + std::exp(-z)) * up;
      // The exponential of a rounded z is good to 2^-24 of z, which is below 100 where the result is not 0.
      ASSERT_NEAR(y[size_t(row) * width + i], expected, 1.01 * kBf16Error * std::abs(expected) + 1e-30)
          << "gate " << gate;
    }
  }
}

TEST(SoftCapTest, IsThatOfASlowReference) {
  std::vector<float> x = RandomFloats(1001, 40, 12);
  const float extremes[] = {0, 1e-6F, -1e-6F, 30, -30, 300, -300, 1e10F, -1e10F, 1e30F};
  std::copy(std::begin(extremes), std::end(extremes), x.begin());
  const std::vector<float> y = OnAll([&] {
    std::vector<float> out = x;
    SoftCap(out.data(), out.size(), 30);
    return out;
  });
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = 30 * std::tanh(double{x[i]} / 30);
    ASSERT_NEAR(y[i], expected, 1e-6 * std::abs(expected)) << x[i];
  }
}

TEST(AddBiasTest, AddsItToEachRow) {
  const std::vector<float> x = RandomFloats(size_t{3} * 37, 1, 1);
  const std::vector<float> bias = RandomFloats(37, 1, 2);
  std::vector<float> y = x;
  AddBias(y.data(), bias.data(), 3, 37);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], x[i] + bias[i % 37]);
}

TEST(AddTest, AddsInPlace) {
  std::vector<float> x = RandomFloats(37, 1, 1);
  const std::vector<float> y = RandomFloats(37, 1, 2);
  std::vector<float> expected;
  for (int i = 0; i < 37; ++i) expected.push_back(x[i] + y[i]);
  Add(x.data(), y.data(), x.size());
  EXPECT_EQ(x, expected);
}

TEST(Bf16Test, RoundsToNearestEven) {
  const auto bits = [](uint32_t wide) {
    float value;
    std::memcpy(&value, &wide, sizeof(value));
    return Bf16Bits(value);
  };
  EXPECT_EQ(bits(0x3f800000), 0x3f80);  // 1
  EXPECT_EQ(bits(0x3f808000), 0x3f80);  // a tie goes to the even neighbour
  EXPECT_EQ(bits(0x3f818000), 0x3f82);
  EXPECT_EQ(bits(0x3f808001), 0x3f81);
  EXPECT_EQ(bits(0x3f80ffff), 0x3f81);
  EXPECT_EQ(bits(0xbf818000), 0xbf82);
  EXPECT_EQ(bits(0x7f7fffff), 0x7f80);  // the largest float becomes infinite
  EXPECT_EQ(bits(0x80000000), 0x8000);
  EXPECT_EQ(Bf16Bits(kInfinity), 0x7f80);
  EXPECT_EQ(Bf16Bits(-kInfinity), 0xff80);
  // All NaNs stay NaN, those too whose payload is in the lower half.
  for (const uint32_t wide : {0x7fc00000u, 0x7f800001u, 0xff800001u, 0x7fffffffu}) {
    EXPECT_TRUE(std::isnan(Bf16ToFloat(bits(wide)))) << std::hex << wide;
  }
}

TEST(Bf16Test, RoundTripIsTheIdentityOnAllFiniteBits) {
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const auto half = static_cast<uint16_t>(i);
    if (std::isnan(Bf16ToFloat(half))) continue;
    ASSERT_EQ(Bf16Bits(Bf16ToFloat(half)), half);
  }
}

TEST(Bf16Test, RoundToBf16RoundsEachElement) {
  const std::vector<float> x = OnAll([] {
    std::vector<float> values = RandomFloats(1001, 100, 3);
    RoundToBf16(values.data(), values.size());
    return values;
  });
  const std::vector<float> before = RandomFloats(1001, 100, 3);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], Bf16ToFloat(Bf16Bits(before[i])));
}

TEST(ScopedFlushDenormalsTest, FlushesWhileItLives) {
  volatile float tiny = 1e-38F;
  const auto flushed = [&] { return tiny * 0.1F == 0.0F; };
  EXPECT_FALSE(flushed());
  {
    const ScopedFlushDenormals outer;
    {
      const ScopedFlushDenormals inner;
      EXPECT_TRUE(flushed());
    }
    EXPECT_TRUE(flushed());
  }
  EXPECT_FALSE(flushed());
}

}  // namespace
}  // namespace quicksave::engine::cpu
