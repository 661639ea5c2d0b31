#include "compressor/latent/panel_product.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compressor/latent/panel_product.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::compressor::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Outputs that are computed together: with two vectors of columns, as many sums as there is room for in registers.
constexpr int kTile = HWY_TARGET == HWY_AVX2 ? 6 : 12;
// Inputs whose part of x stays in the cache while all outputs pass by.
constexpr size_t kInputBlock = 256;

using Floats = hn::CappedTag<float, 16>;
using Words = hn::RebindToUnsigned<Floats>;
using Halves = hn::Rebind<uint16_t, Floats>;

// Two vectors of columns of `kOutputs` outputs; packed[inputs][kOutputs], x[inputs][two vectors].
template <int kOutputs>
HWY_INLINE void Tile(const float* packed, size_t inputs, const float* x, int columns, float* y) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  hn::Vec<Floats> sums[kOutputs][2];
  HWY_UNROLL(16)
  for (int o = 0; o < kOutputs; ++o) {
    sums[o][0] = hn::LoadU(d, y + size_t(o) * columns);
    sums[o][1] = hn::LoadU(d, y + size_t(o) * columns + lanes);
  }
  for (size_t i = 0; i < inputs; ++i) {
    const auto left = hn::LoadU(d, x + 2 * i * lanes);
    const auto right = hn::LoadU(d, x + (2 * i + 1) * lanes);
    HWY_UNROLL(16)
    for (int o = 0; o < kOutputs; ++o) {
      const auto weight = hn::Set(d, packed[i * kOutputs + o]);
      sums[o][0] = hn::MulAdd(weight, left, sums[o][0]);
      sums[o][1] = hn::MulAdd(weight, right, sums[o][1]);
    }
  }
  HWY_UNROLL(16)
  for (int o = 0; o < kOutputs; ++o) {
    hn::StoreU(sums[o][0], d, y + size_t(o) * columns);
    hn::StoreU(sums[o][1], d, y + size_t(o) * columns + lanes);
  }
}

// Widens kOutputs weights to `packed`, which has room for two vectors more; so has `row` when `whole` is set.
template <int kOutputs>
HWY_INLINE void Widen(const uint16_t* row, bool whole, float* packed) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  if (!whole) {
    for (int o = 0; o < kOutputs; ++o) packed[o] = WidenBf16(row[o]);
    return;
  }
  for (int o = 0; o < kOutputs; o += lanes) {
    const auto wide = hn::ShiftLeft<16>(hn::PromoteTo(Words(), hn::LoadU(Halves(), row + o)));
    hn::StoreU(hn::BitCast(d, wide), d, packed + o);
  }
}

// x[columns / step][used.size()][step], with steps of two vectors.
template <int kOutputs>
void Panel(const Bf16Matrix& matrix, absl::Span<const int> used, int first_output, const float* x, int columns,
           float* y) {
  constexpr size_t kBeyond = 2 * 16;
  float packed[kInputBlock * kOutputs + kBeyond];
  for (size_t i = 0; i < used.size(); ++i) {
    const size_t begin = size_t(used[i]) * matrix.outputs + first_output;
    Widen<kOutputs>(matrix.values.data() + begin, begin + kOutputs + kBeyond <= matrix.values.size(),
                    packed + i * kOutputs);
  }
  const int step = 2 * static_cast<int>(hn::Lanes(Floats()));
  float* to = y + size_t(first_output) * columns;
  for (int column = 0; column < columns; column += step) {
    Tile<kOutputs>(packed, used.size(), x + column * used.size(), columns, to + column);
  }
}

void AddProductImpl(const Bf16Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float* y) {
  const int step = 2 * static_cast<int>(hn::Lanes(Floats()));
  std::vector<float> turned(std::min(used.size(), kInputBlock) * columns);
  for (size_t first = 0; first < used.size(); first += kInputBlock) {
    const absl::Span<const int> block = used.subspan(first, kInputBlock);
    // What a tile reads is side by side.
    float* to = turned.data();
    for (int column = 0; column < columns; column += step) {
      for (size_t i = 0; i < block.size(); ++i, to += step) std::copy_n(x + (first + i) * columns + column, step, to);
    }
    const float* rows = turned.data();
    int output = 0;
    for (; output + kTile <= matrix.outputs; output += kTile) {
      Panel<kTile>(matrix, block, output, rows, columns, y);
    }
    for (; output < matrix.outputs; ++output) Panel<1>(matrix, block, output, rows, columns, y);
  }
}

}  // namespace quicksave::compressor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::compressor {

HWY_EXPORT(AddProductImpl);

void AddProduct(const Bf16Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float* y) {
  HWY_DYNAMIC_DISPATCH(AddProductImpl)(matrix, used, x, columns, y);
}

}  // namespace quicksave::compressor
#endif
