#include "compressor/latent/int8_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

// Also for the instruction vpdpbusd, which that target has.
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compressor/latent/int8_matrix.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::compressor::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Outputs that are summed together: with two vectors of columns, as many sums as there is room for in registers.
constexpr int kTile = HWY_TARGET == HWY_AVX2 ? 4 : Int8Matrix::kPanel;

// How far ahead the values of quads are asked for: all of a plane's are more than the nearest cache holds.
constexpr int kQuadsAhead = 8;

using Integers = hn::CappedTag<int32_t, 16>;
using Words = hn::RebindToUnsigned<Integers>;
using Floats = hn::RebindToFloat<Integers>;
using Shorts = hn::Repartition<int16_t, Integers>;
using UnsignedShorts = hn::RebindToUnsigned<Shorts>;

// In each lane, sum += w0 * x0 + ... + w3 * x3, of four unsigned bytes of weights and four signed ones of x.
HWY_INLINE void AddQuad(hn::Vec<Integers> weights, hn::Vec<Integers> x, hn::Vec<Integers>& sum) {
#if HWY_TARGET == HWY_AVX3_DL
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(weights.raw), "v"(x.raw));
#else
  const Shorts shorts;
  const UnsignedShorts unsigned_shorts;
  const auto low = hn::BitCast(shorts, hn::And(hn::BitCast(unsigned_shorts, weights), hn::Set(unsigned_shorts, 0xff)));
  const auto high = hn::BitCast(shorts, hn::ShiftRight<8>(hn::BitCast(unsigned_shorts, weights)));
  const auto x_low = hn::ShiftRight<8>(hn::ShiftLeft<8>(hn::BitCast(shorts, x)));
  const auto x_high = hn::ShiftRight<8>(hn::BitCast(shorts, x));
#if HWY_ARCH_X86
  // On x86 the two products of a lane stay there.
  hn::Vec<Integers> unused = hn::Zero(Integers());
  sum = hn::ReorderWidenMulAccumulate(Integers(), low, x_low, sum, unused);
  sum = hn::ReorderWidenMulAccumulate(Integers(), high, x_high, sum, unused);
#else
  const auto add = [&](auto a, auto b) {
    const auto wide_a = hn::BitCast(Integers(), a);
    const auto wide_b = hn::BitCast(Integers(), b);
    sum = hn::Add(sum, hn::Mul(hn::ShiftRight<16>(wide_a), hn::ShiftRight<16>(wide_b)));
    sum = hn::Add(
        sum, hn::Mul(hn::ShiftRight<16>(hn::ShiftLeft<16>(wide_a)), hn::ShiftRight<16>(hn::ShiftLeft<16>(wide_b))));
  };
  add(low, x_low);
  add(high, x_high);
#endif
#endif
}

// Adds the products of one plane to the sums [kTile, kColumnGroup] of two vectors of columns from `column` on. The
// weights of a quad are kPanel quads apart; those that are needed next are so many bytes `ahead`.
HWY_INLINE void AddPlane(const FixedPlane& plane, const uint8_t* weights, size_t ahead, int column, int32_t* sums) {
  const Integers d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  hn::Vec<Integers> sum[kTile][2];
  HWY_UNROLL(2)
  for (int half = 0; half < 2; ++half) {
    const auto total = hn::LoadU(d, plane.sums.data() + column + half * lanes);
    const auto bias = hn::Mul(total, hn::Set(d, -Int8Matrix::kBias));
    HWY_UNROLL(16)
    // NOLINTNEXTLINE(modernize-loop-convert): unrolled, so that the sums are registers.
    for (int o = 0; o < kTile; ++o) sum[o][half] = bias;
  }
  const uint32_t* values = plane.values.data() + column;
  for (const uint32_t quad : plane.quads) {
    const auto left = hn::BitCast(d, hn::LoadU(Words(), values));
    const auto right = hn::BitCast(d, hn::LoadU(Words(), values + lanes));
    values += kColumnGroup;
    hwy::Prefetch(values + kQuadsAhead * kColumnGroup);
    hwy::Prefetch(values + kQuadsAhead * kColumnGroup + kColumnGroup / 2);
    hwy::Prefetch(weights + size_t(quad) * Int8Matrix::kPanel * kQuad + ahead);
    const uint8_t* row = weights + size_t(quad) * Int8Matrix::kPanel * kQuad;
    HWY_UNROLL(16)
    for (int o = 0; o < kTile; ++o) {
      int32_t word;
      std::memcpy(&word, row + size_t(o) * kQuad, sizeof(word));
      const auto weight = hn::Set(d, word);
      AddQuad(weight, left, sum[o][0]);
      AddQuad(weight, right, sum[o][1]);
    }
  }
  HWY_UNROLL(2)
  for (int half = 0; half < 2; ++half) {
    const auto shift = hn::LoadU(d, plane.shifts.data() + column + half * lanes);
    HWY_UNROLL(16)
    for (int o = 0; o < kTile; ++o) {
      int32_t* const to = sums + o * kColumnGroup + column + half * lanes;
      hn::StoreU(hn::Add(hn::LoadU(d, to), hn::Shl(sum[o][half], shift)), d, to);
    }
  }
}

// y[columns of the group] += scale * units * sums, of one output.
HWY_INLINE void AddOutput(const int32_t* sums, const float* units, float scale, float* y) {
  const Integers d;
  const Floats df;
  for (int c = 0; c < kColumnGroup; c += static_cast<int>(hn::Lanes(d))) {
    const auto factor = hn::Mul(hn::Set(df, scale), hn::LoadU(df, units + c));
    hn::StoreU(hn::MulAdd(hn::ConvertTo(df, hn::LoadU(d, sums + c)), factor, hn::LoadU(df, y + c)), df, y + c);
  }
}

// Asks for the outputs of a group of columns, which are needed when the sums are done.
HWY_INLINE void PrefetchOutputs(const float* y, size_t columns, int outputs) {
  constexpr int kCacheLine = 64 / sizeof(float);
  for (int o = 0; o < outputs; ++o, y += columns) {
    for (int c = 0; c < kColumnGroup; c += kCacheLine) hwy::Prefetch(y + c);
  }
}

// `units` are those of each column.
void AddProductImpl(const Int8Matrix& matrix, const std::vector<FixedPointGroup>& x, const float* units, float* y) {
  const int step = 2 * static_cast<int>(hn::Lanes(Integers()));
  const size_t columns = x.size() * kColumnGroup;
  HWY_ALIGN int32_t sums[kTile * kColumnGroup];
  for (int first = 0; first < matrix.outputs(); first += kTile) {
    const int place = first % Int8Matrix::kPanel;
    const uint8_t* weights = matrix.panel(first - place) + place * kQuad;
    const bool is_last = first + Int8Matrix::kPanel >= matrix.outputs();
    const size_t ahead = is_last ? 0 : size_t(matrix.quads()) * Int8Matrix::kPanel * kQuad;
    for (size_t g = 0; g < x.size(); ++g) {
      const int outputs = std::min(kTile, matrix.outputs() - first);
      float* const to = y + size_t(first) * columns + g * kColumnGroup;
      PrefetchOutputs(to, columns, outputs);
      std::fill(sums, sums + kTile * kColumnGroup, 0);
      for (const FixedPlane& plane : x[g].planes) {
        for (int column = 0; column < kColumnGroup; column += step) AddPlane(plane, weights, ahead, column, sums);
      }
      for (int o = 0; o < outputs; ++o) {
        AddOutput(sums + o * kColumnGroup, units + g * kColumnGroup, matrix.scales()[first + o], to + o * columns);
      }
    }
  }
}

}  // namespace quicksave::compressor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::compressor {
namespace {

int Padded(int count, int multiple) { return (count + multiple - 1) / multiple * multiple; }

// What a one counts in the sums of each column.
std::vector<float> UnitsOf(const std::vector<FixedPointGroup>& x, float unit) {
  std::vector<float> units;
  for (const FixedPointGroup& group : x) {
    for (const int exponent : group.exponents) units.push_back(std::ldexp(unit, -exponent));
  }
  return units;
}

}  // namespace

Int8Matrix::Int8Matrix(int inputs, int outputs, absl::Span<const int8_t> values, std::vector<float> scales)
    : inputs_(inputs),
      outputs_(outputs),
      packed_(static_cast<size_t>(Padded(inputs, kQuad)) * Padded(outputs, kPanel), uint8_t{kBias}),
      scales_(std::move(scales)) {
  for (int i = 0; i < inputs; ++i) {
    const int8_t* row = values.data() + static_cast<size_t>(i) * outputs;
    for (int o = 0; o < outputs; ++o) packed_[Place(i, o)] = static_cast<uint8_t>(row[o] + kBias);
  }
}

Int8Matrix Int8Matrix::Nearest(int inputs, int outputs, absl::Span<const float> values, int refined) {
  std::vector<float> scales(outputs);
  for (int i = 0; i < inputs; ++i) {
    const float* row = values.data() + static_cast<size_t>(i) * outputs;
    for (int o = 0; o < outputs; ++o) scales[o] = std::max(scales[o], std::abs(row[o]));
  }
  // No scale is zero or so small that it has no inverse.
  for (float& scale : scales) scale = scale < 1e-30f ? 1.0f : scale / kLargest;
  const auto nearest = [](float value) {
    return static_cast<int8_t>(std::clamp(std::nearbyint(value), -float{kLargest}, float{kLargest}));
  };
  std::vector<int8_t> integers;
  for (size_t k = 0; k < values.size(); ++k) integers.push_back(nearest(values[k] / scales[k % outputs]));
  for (size_t k = 0; k < static_cast<size_t>(refined) * outputs; ++k) {
    integers.push_back(nearest(kRefinement * (values[k] / scales[k % outputs] - integers[k])));
  }
  return {inputs + refined, outputs, integers, std::move(scales)};
}

std::vector<int8_t> Int8Matrix::RowMajor() const {
  std::vector<int8_t> values;
  values.reserve(static_cast<size_t>(inputs_) * outputs_);
  for (int i = 0; i < inputs_; ++i) {
    for (int o = 0; o < outputs_; ++o) values.push_back(static_cast<int8_t>(value(i, o)));
  }
  return values;
}

size_t Int8Matrix::Place(int input, int output) const {
  const size_t quad = static_cast<size_t>(output / kPanel) * quads() + input / kQuad;
  return (quad * kPanel + output % kPanel) * kQuad + input % kQuad;
}

HWY_EXPORT(AddProductImpl);

void AddProduct(const Int8Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float unit,
                float* y) {
  AddProduct(matrix, ToFixedPoint(used, x, columns, kLeastExponent), unit, y);
}

void AddProduct(const Int8Matrix& matrix, const std::vector<FixedPointGroup>& x, float unit, float* y) {
  const std::vector<float> units = UnitsOf(x, unit);
  HWY_DYNAMIC_DISPATCH(AddProductImpl)(matrix, x, units.data(), y);
}

}  // namespace quicksave::compressor
#endif
