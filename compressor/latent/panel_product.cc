#include "compressor/latent/panel_product.h"

#include <algorithm>
#include <cmath>

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

// The values of a panel that are not zero: of each column, in the order of the inputs.
struct ColumnEntries {
  struct Entry {
    int input;  // of the matrix
    float value;
  };
  size_t most;                 // entries of a column
  std::vector<Entry> entries;  // [columns, most]
  std::vector<size_t> counts;  // of each column
};

// Columns are a multiple of the vector's lanes.
int CountNonzero(const float* row, int columns) {
  const Floats d;
  size_t zeros = 0;
  for (int c = 0; c < columns; c += static_cast<int>(hn::Lanes(d))) {
    zeros += hn::CountTrue(d, hn::Eq(hn::LoadU(d, row + c), hn::Zero(d)));
  }
  return columns - static_cast<int>(zeros);
}

ColumnEntries EntriesOf(absl::Span<const int> used, const float* x, int columns) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  ColumnEntries found{.most = used.size(),
                      .entries = std::vector<ColumnEntries::Entry>(used.size() * columns),
                      .counts = std::vector<size_t>(columns)};
  for (size_t i = 0; i < used.size(); ++i) {
    const float* row = x + i * columns;
    for (int c = 0; c < columns; c += lanes) {
      uint8_t bits[8] = {};
      hn::StoreMaskBits(d, hn::Ne(hn::LoadU(d, row + c), hn::Zero(d)), bits);
      for (uint32_t mask = bits[0] | uint32_t{bits[1]} << 8; mask != 0; mask &= mask - 1) {
        const int column = c + __builtin_ctz(mask);
        found.entries[column * found.most + found.counts[column]++] = {used[i], row[column]};
      }
    }
  }
  return found;
}

// Pairs of vectors of outputs whose sums of one column are in registers.
constexpr int kMostPairs = HWY_TARGET == HWY_AVX2 ? 6 : 8;

// The sums of a column of `kPairs` pairs of vectors: of the even outputs of two vectors, then of the odd ones, because
// so two of them are widened with one load.
template <int kPairs>
HWY_INLINE void SparseColumn(const Bf16Matrix& matrix, absl::Span<const ColumnEntries::Entry> entries, int first_output,
                             float* sums) {
  const Floats d;
  const Words words;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const uint16_t* weights = matrix.values.data() + first_output;
  hn::Vec<Floats> sum[kPairs][2];
  HWY_UNROLL(16)
  for (int p = 0; p < kPairs; ++p) {
    sum[p][0] = hn::LoadU(d, sums + 2 * p * lanes);
    sum[p][1] = hn::LoadU(d, sums + (2 * p + 1) * lanes);
  }
  const auto upper = hn::Set(words, 0xffff0000U);
  for (const ColumnEntries::Entry& entry : entries) {
    const auto* row = reinterpret_cast<const uint8_t*>(weights + size_t(entry.input) * matrix.outputs);
    const auto value = hn::Set(d, entry.value);
    HWY_UNROLL(16)
    for (int p = 0; p < kPairs; ++p) {
      const hn::Repartition<uint8_t, Words> bytes;
      const auto both = hn::BitCast(words, hn::LoadU(bytes, row + size_t(p) * lanes * sizeof(uint32_t)));
      sum[p][0] = hn::MulAdd(hn::BitCast(d, hn::ShiftLeft<16>(both)), value, sum[p][0]);
      sum[p][1] = hn::MulAdd(hn::BitCast(d, hn::And(both, upper)), value, sum[p][1]);
    }
  }
  HWY_UNROLL(16)
  for (int p = 0; p < kPairs; ++p) {
    hn::StoreU(sum[p][0], d, sums + 2 * p * lanes);
    hn::StoreU(sum[p][1], d, sums + (2 * p + 1) * lanes);
  }
}

template <int kPairs = kMostPairs>
void SparseTile(int pairs, const Bf16Matrix& matrix, const ColumnEntries& x, int first_output, size_t stride,
                float* sums) {
  if constexpr (kPairs > 1) {
    if (pairs < kPairs) return SparseTile<kPairs - 1>(pairs, matrix, x, first_output, stride, sums);
  }
  for (size_t c = 0; c < x.counts.size(); ++c) {
    SparseColumn<kPairs>(matrix, absl::MakeConstSpan(x.entries).subspan(c * x.most, x.counts[c]), first_output,
                         sums + c * stride);
  }
}

// y += matrix^T x. Outputs that fill no pair of vectors are summed one by one.
void AddEntries(const Bf16Matrix& matrix, const ColumnEntries& x, int columns, float* y) {
  const int lanes = static_cast<int>(hn::Lanes(Floats()));
  const int whole = matrix.outputs / (2 * lanes) * (2 * lanes);
  // Not a power of two, so that the columns of the turned tile do not fight for the same lines of the cache.
  const size_t stride = 2 * static_cast<size_t>(kMostPairs) * lanes + 16;
  std::vector<float> turned(stride * columns);
  for (int first = 0; first < whole; first += 2 * kMostPairs * lanes) {
    const int outputs = std::min(2 * kMostPairs * lanes, whole - first);
    // Calls use(y, turned) for each sum.
    const auto for_each_sum = [&](auto use) {
      for (int o = 0; o < outputs; ++o) {
        const int place = o / (2 * lanes) * 2 * lanes + o % 2 * lanes + o % (2 * lanes) / 2;
        float* row = y + size_t(first + o) * columns;
        for (int c = 0; c < columns; ++c) use(row[c], turned[c * stride + place]);
      }
    };
    for_each_sum([](float from, float& to) { to = from; });
    SparseTile(outputs / (2 * lanes), matrix, x, first, stride, turned.data());
    for_each_sum([](float& to, float from) { to = from; });
  }
  for (int c = 0; whole < matrix.outputs && c < columns; ++c) {
    for (const auto& entry : absl::MakeConstSpan(x.entries).subspan(c * x.most, x.counts[c])) {
      for (int o = whole; o < matrix.outputs; ++o) {
        float& sum = y[size_t(o) * columns + c];
        sum = std::fma(WidenBf16(matrix.values[size_t(entry.input) * matrix.outputs + o]), entry.value, sum);
      }
    }
  }
}

// What a product with one value costs beside one in a panel of many columns.
constexpr double kCostOfOne = 1.8;

void AddSparseProductImpl(const Bf16Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float* y) {
  // The input from which on values are multiplied one by one at the least cost.
  double cost = 0;
  double least = 0;
  size_t dense = used.size();
  for (size_t i = used.size(); i-- > 0;) {
    cost += kCostOfOne * CountNonzero(x + i * columns, columns) - columns;
    if (cost >= least) continue;
    least = cost;
    dense = i;
  }
  AddProductImpl(matrix, used.first(dense), x, columns, y);
  if (dense == used.size()) return;
  AddEntries(matrix, EntriesOf(used.subspan(dense), x + dense * columns, columns), columns, y);
}

}  // namespace quicksave::compressor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::compressor {

HWY_EXPORT(AddProductImpl);
HWY_EXPORT(AddSparseProductImpl);

void AddProduct(const Bf16Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float* y) {
  HWY_DYNAMIC_DISPATCH(AddProductImpl)(matrix, used, x, columns, y);
}

void AddSparseProduct(const Bf16Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float* y) {
  HWY_DYNAMIC_DISPATCH(AddSparseProductImpl)(matrix, used, x, columns, y);
}

}  // namespace quicksave::compressor
#endif
