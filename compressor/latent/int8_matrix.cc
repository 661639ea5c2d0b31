#include "compressor/latent/int8_matrix.h"

#include <algorithm>
#include <cmath>
#include <utility>

// Also for the instruction vpdpbusd, which that target has.
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compressor/latent/int8_matrix.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::compressor::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kQuad = Int8Matrix::kQuad;
constexpr int kTile = Int8Matrix::kTile;
// Vectors of outputs whose sums are in registers.
constexpr int kVectors = HWY_TARGET == HWY_AVX2 ? 8 : 16;
// Not a power of two, so that the columns of a tile's sums do not fight for the same lines of the cache.
constexpr int kSumStride = kTile + 16;

// Aligned to lines of the cache.
struct alignas(64) SumLine {
  static constexpr int kSums = 16;
  int32_t sums[kSums] = {};
};

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

// One column of one plane: adds the products of its quads, shifted, to the sums of `kCount` vectors of outputs. The
// weights of a quad are `quad_bytes` apart.
template <int kCount>
HWY_INLINE void AddColumn(absl::Span<const FixedQuad> quads, const uint8_t* weights, size_t quad_bytes, int shift,
                          int32_t* sums) {
  const Integers d;
  const hn::Repartition<uint8_t, Integers> bytes;
  const int lanes = static_cast<int>(hn::Lanes(d));
  hn::Vec<Integers> sum[kCount];
  HWY_UNROLL(16)
  for (int v = 0; v < kCount; ++v) sum[v] = hn::Zero(d);
  for (const FixedQuad& quad : quads) {
    const uint8_t* row = weights + quad.quad * quad_bytes;
    const auto x = hn::Set(d, static_cast<int32_t>(quad.values));
    HWY_UNROLL(16)
    for (int v = 0; v < kCount; ++v) {
      AddQuad(hn::BitCast(d, hn::LoadU(bytes, row + size_t(v) * lanes * kQuad)), x, sum[v]);
    }
  }
  HWY_UNROLL(16)
  for (int v = 0; v < kCount; ++v) {
    int32_t* const to = sums + v * lanes;
    hn::StoreU(hn::Add(hn::LoadU(d, to), hn::ShiftLeftSame(sum[v], shift)), d, to);
  }
}

template <int kCount = kVectors>
void AddPlane(int vectors, const FixedPlane& plane, const uint8_t* weights, size_t quad_bytes, int32_t* sums) {
  if constexpr (kCount > 1) {
    if (vectors < kCount) return AddPlane<kCount - 1>(vectors, plane, weights, quad_bytes, sums);
  }
  for (size_t c = 0; c < plane.sums.size(); ++c) {
    const auto quads = absl::MakeConstSpan(plane.quads).subspan(plane.begins[c], plane.begins[c + 1] - plane.begins[c]);
    if (quads.empty()) continue;
    AddColumn<kCount>(quads, weights, quad_bytes, plane.shifts[c], sums + c * kSumStride);
  }
}

// y[columns] += scale * units[columns] * (sum - bias) of one output, sums being kSumStride apart.
HWY_INLINE void AddOutput(const int32_t* sums, const int32_t* biases, const float* units, int columns, float scale,
                          float* y) {
  const Integers d;
  const Floats df;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto places = hn::Mul(hn::Iota(d, 0), hn::Set(d, kSumStride));
  for (int c = 0; c < columns; c += lanes) {
    const auto sum = hn::Sub(hn::GatherIndex(d, sums + size_t(c) * kSumStride, places), hn::LoadU(d, biases + c));
    const auto factor = hn::Mul(hn::Set(df, scale), hn::LoadU(df, units + c));
    hn::StoreU(hn::MulAdd(hn::ConvertTo(df, sum), factor, hn::LoadU(df, y + c)), df, y + c);
  }
}

// `biases` and `units` are those of each column.
void AddProductImpl(const Int8Matrix& matrix, const FixedPointColumns& x, const int32_t* biases, const float* units,
                    float* y) {
  const int lanes = static_cast<int>(hn::Lanes(Integers()));
  const int columns = static_cast<int>(x.exponents.size());
  std::vector<SumLine> lines(size_t(columns) * kSumStride / SumLine::kSums);
  int32_t* const sums = lines.front().sums;
  for (int first = 0; first < matrix.outputs(); first += kTile) {
    const int width = matrix.tile_width(first);
    std::fill(lines.begin(), lines.end(), SumLine());
    for (const FixedPlane& plane : x.planes) {
      for (int o = 0; o < width; o += kVectors * lanes) {
        AddPlane(std::min((width - o) / lanes, kVectors), plane, matrix.tile(first) + size_t(o) * kQuad,
                 size_t(width) * kQuad, sums + o);
      }
    }
    for (int o = 0; o < std::min(kTile, matrix.outputs() - first); ++o) {
      AddOutput(sums + o, biases, units, columns, matrix.scales()[first + o], y + size_t(first + o) * columns);
    }
  }
}

}  // namespace quicksave::compressor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::compressor {
namespace {

int Padded(int count, int multiple) { return (count + multiple - 1) / multiple * multiple; }

// What kBias adds to the sums of each column.
std::vector<int32_t> BiasesOf(const FixedPointColumns& x) {
  std::vector<uint32_t> biases(x.exponents.size());
  for (const FixedPlane& plane : x.planes) {
    for (size_t c = 0; c < biases.size(); ++c) {
      biases[c] += static_cast<uint32_t>(plane.sums[c]) * uint32_t{Int8Matrix::kBias} << plane.shifts[c];
    }
  }
  return {biases.begin(), biases.end()};
}

// What a one counts in the sums of each column.
std::vector<float> UnitsOf(const FixedPointColumns& x, float unit) {
  std::vector<float> units;
  for (const int exponent : x.exponents) units.push_back(std::ldexp(unit, -exponent));
  return units;
}

}  // namespace

Int8Matrix::Int8Matrix(int inputs, int outputs, absl::Span<const int8_t> values, std::vector<float> scales)
    : inputs_(inputs),
      outputs_(outputs),
      lines_(static_cast<size_t>(Padded(inputs, kQuad)) * Padded(outputs, kVector) / sizeof(Line)),
      scales_(std::move(scales)) {
  auto* const packed = reinterpret_cast<uint8_t*>(lines_.data());
  std::fill_n(packed, lines_.size() * sizeof(Line), uint8_t{kBias});
  for (int i = 0; i < inputs; ++i) {
    const int8_t* row = values.data() + static_cast<size_t>(i) * outputs;
    for (int o = 0; o < outputs; ++o) packed[Place(i, o)] = static_cast<uint8_t>(row[o] + kBias);
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

int Int8Matrix::tile_width(int first_output) const { return std::min(kTile, Padded(outputs_, kVector) - first_output); }

size_t Int8Matrix::Place(int input, int output) const {
  const int first = output / kTile * kTile;
  const size_t quad = static_cast<size_t>(input / kQuad) * tile_width(first);
  return static_cast<size_t>(first) * quads() * kQuad + (quad + output - first) * kQuad + input % kQuad;
}

HWY_EXPORT(AddProductImpl);

void AddProduct(const Int8Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float unit,
                float* y) {
  AddProduct(matrix, ToFixedPoint(used, x, columns, kLeastExponent), unit, y);
}

void AddProduct(const Int8Matrix& matrix, const FixedPointColumns& x, float unit, float* y) {
  if (x.planes.empty()) return;
  const std::vector<int32_t> biases = BiasesOf(x);
  const std::vector<float> units = UnitsOf(x, unit);
  HWY_DYNAMIC_DISPATCH(AddProductImpl)(matrix, x, biases.data(), units.data(), y);
}

}  // namespace quicksave::compressor
#endif
