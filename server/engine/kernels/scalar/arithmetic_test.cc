// The scalar functions against the vector ones of Highway, bit for bit, over all floats at a random stride.
#include "server/engine/kernels/scalar/arithmetic.h"

#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/highway.h"
// The vector math needs the target's definitions above it.
#include "hwy/contrib/math/math-inl.h"

namespace quicksave::engine::scalar {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

using Vectors = hn::CappedTag<float, 16>;
using VectorFunction = std::function<hn::Vec<Vectors>(Vectors, hn::Vec<Vectors>)>;

// Expects the same bits for these numbers, of which there are whole vectors.
void ExpectSame(const std::vector<float>& x, const VectorFunction& expected, float (*actual)(float)) {
  const Vectors d;
  std::vector<float> y(x.size());
  for (size_t i = 0; i < x.size(); i += hn::Lanes(d)) {
    hn::StoreU(expected(d, hn::LoadU(d, x.data() + i)), d, y.data() + i);
  }
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(BitsOf(actual(x[i])), BitsOf(y[i])) << "of " << x[i] << ", bits " << BitsOf(x[i]);
  }
}

// Every so many floats in [least, most], and the ends.
void ExpectSameFrom(float least, float most, const VectorFunction& expected, float (*actual)(float)) {
  const cpu::ScopedFlushDenormals flush;
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::vector<float> x(1 << 12, most);
  x[0] = least;
  ExpectSame(x, expected, actual);
  size_t filled = 0;
  for (uint64_t bits = random() % 128; bits <= 0xffffffffU; bits += 1 + random() % 127) {
    const float value = FloatOf(static_cast<uint32_t>(bits));
    if (!(value >= least && value <= most)) continue;
    x[filled++] = value;
    if (filled < x.size()) continue;
    ExpectSame(x, expected, actual);
    if (testing::Test::HasFatalFailure()) return;
    filled = 0;
  }
}

TEST(ScalarArithmeticTest, ExpIsHighways) {
  ExpectSameFrom(
      -kInfinity, 104, [](auto d, auto x) { return hn::Exp(d, x); }, Exp);
}

TEST(ScalarArithmeticTest, TanhIsHighways) {
  ExpectSameFrom(
      -kInfinity, kInfinity, [](auto d, auto x) { return hn::Tanh(d, x); }, Tanh);
}

TEST(ScalarArithmeticTest, RoundingIsToNearestEven) {
  for (const uint32_t bits : {0x3f800000U, 0x3f808000U, 0x3f818000U, 0x3f808001U, 0xbf807fffU, 0x7f7f0000U, 0U}) {
    const float value = FloatOf(bits);
    EXPECT_EQ(Rounded(value, cpu::Rounding::kBf16), cpu::Bf16ToFloat(cpu::Bf16Bits(value))) << bits;
    EXPECT_EQ(Rounded(value, cpu::Rounding::kNone), value) << bits;
  }
}

}  // namespace
}  // namespace quicksave::engine::scalar
