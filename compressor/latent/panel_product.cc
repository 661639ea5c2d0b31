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

// Two vectors of columns of `kOutputs` outputs; packed[inputs][kOutputs].
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
    const auto left = hn::LoadU(d, x + i * columns);
    const auto right = hn::LoadU(d, x + i * columns + lanes);
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

template <int kOutputs>
void Panel(const Bf16Matrix& matrix, absl::Span<const int> used, int first_output, const float* x, int columns,
           float* y) {
  float packed[kInputBlock * kOutputs];
  for (size_t i = 0; i < used.size(); ++i) {
    const uint16_t* row = matrix.values.data() + size_t(used[i]) * matrix.outputs + first_output;
    for (int o = 0; o < kOutputs; ++o) packed[i * kOutputs + o] = WidenBf16(row[o]);
  }
  const int step = 2 * static_cast<int>(hn::Lanes(Floats()));
  float* to = y + size_t(first_output) * columns;
  for (int column = 0; column < columns; column += step)
    Tile<kOutputs>(packed, used.size(), x + column, columns, to + column);
}

void AddProductImpl(const Bf16Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float* y) {
  for (size_t first = 0; first < used.size(); first += kInputBlock) {
    const absl::Span<const int> block = used.subspan(first, kInputBlock);
    const float* rows = x + first * columns;
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
