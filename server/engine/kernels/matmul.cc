#include <algorithm>
#include <cstring>

#include "server/engine/kernels/cpu_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/engine/kernels/matmul.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanel = PackedMatrix::kPanel;
constexpr int kGroup = 32;
constexpr int kPairs = kGroup / 2;
constexpr int kVectors = 2;
// Rows whose sums the registers hold, and rows that share one pass over a panel.
constexpr int kMaxRows = HWY_TARGET <= HWY_AVX3 ? 8 : 4;
constexpr int kTileRows = 16;
// How far ahead weights are fetched, in pairs of inputs: 8 KiB. The processor's own prefetching stops at each 4 KiB and
// leaves the memory idle while a large tile is multiplied.
constexpr int kPairsAhead = 64;

using Floats = hn::CappedTag<float, 16>;
using Vector = hn::Vec<Floats>;
using Pairs = hn::RebindToUnsigned<Floats>;

// The weights of a pair's even or odd inputs.
template <bool kOdd>
HWY_INLINE Vector HalfOf(hn::Vec<Pairs> both) {
  if constexpr (kOdd) return hn::BitCast(Floats(), hn::And(both, hn::Set(Pairs(), 0xffff0000u)));
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(both));
}

// Sums the even or the odd inputs of one group, from zero.
template <int kRows, bool kOdd>
HWY_INLINE void SumHalf(const float* HWY_RESTRICT x, int x_stride, const uint32_t* HWY_RESTRICT pairs,
                        Vector (&sums)[kRows][kVectors]) {
  const Floats df;
  const int lanes = static_cast<int>(hn::Lanes(df));
  const uint32_t* ahead = pairs + (kPairsAhead + (kOdd ? kPairs / 2 : 0)) * kPanel;
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(df);
  }
  for (int pair = 0; pair < kPairs; ++pair) {
    // A pair of the panel is two cache lines; either half of the work fetches half of the group's.
    __builtin_prefetch(ahead + pair * kPanel / 2, 0, 2);
    Vector weights[kVectors];
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = HalfOf<kOdd>(hn::LoadU(Pairs(), pairs + pair * kPanel + v * lanes));
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      const auto input = hn::Set(df, x[r * x_stride + 2 * pair + (kOdd ? 1 : 0)]);
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(input, weights[v], sums[r][v]);
    }
  }
}

// sums[kRows][kPanel] += the products of some groups of inputs: the register-blocked core. Even and odd inputs take
// turns, so that the registers hold the sums of twice as many rows. Narrow vectors take the panel in several passes.
template <int kRows>
void Block(const float* x, int x_stride, const uint16_t* panel, int groups, float* sums) {
  const Floats df;
  const int lanes = static_cast<int>(hn::Lanes(df));
  const auto* pairs = reinterpret_cast<const uint32_t*>(panel);
  for (int group = 0; group < groups; ++group, x += kGroup, pairs += kPairs * kPanel) {
    for (int output = 0; output < kPanel; output += kVectors * lanes) {
      HWY_ALIGN float even[kRows * kPanel];
      Vector half[kRows][kVectors];
      SumHalf<kRows, false>(x, x_stride, pairs + output, half);
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) hn::Store(half[r][v], df, even + r * kPanel + v * lanes);
      }
      SumHalf<kRows, true>(x, x_stride, pairs + output, half);
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          float* sum = sums + r * kPanel + output + v * lanes;
          const auto both = hn::Add(hn::Load(df, even + r * kPanel + v * lanes), half[r][v]);
          hn::StoreU(hn::Add(hn::LoadU(df, sum), both), df, sum);
        }
      }
    }
  }
}

using BlockFunction = void (*)(const float* x, int x_stride, const uint16_t* panel, int groups, float* sums);

template <int kRows = kMaxRows>
BlockFunction BlockOf(int rows) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return BlockOf<kRows - 1>(rows);
  }
  return &Block<kRows>;
}

// All outputs of a panel for up to kTileRows rows. The rows' blocks take turns at each group, so that the panel is read
// from memory at an even pace.
void Tile(const float* x, int x_stride, int rows, const uint16_t* panel, int inputs, float* sums) {
  std::fill(sums, sums + rows * kPanel, 0.0f);
  const int blocks = (rows + kMaxRows - 1) / kMaxRows;
  const int groups = blocks == 1 ? inputs / kGroup : 1;
  for (int k = 0; k < inputs; k += groups * kGroup) {
    for (int block = 0; block < blocks; ++block) {
      // Of equal size: 9 rows are 4 + 5, not 8 + 1.
      const int begin = rows * block / blocks;
      const int count = rows * (block + 1) / blocks - begin;
      BlockOf(count)(x + size_t(begin) * x_stride + k, x_stride, panel + size_t(k) * kPanel, groups,
                     sums + begin * kPanel);
    }
  }
}

void MatMulImpl(const float* x, int x_stride, int rows, const PackedMatrix& w, int first_panel, int last_panel,
                float* y, int y_stride) {
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  float sums[kTileRows * kPanel];
  for (int panel = first_panel; panel < last_panel; ++panel) {
    const int width = std::min(kPanel, w.outputs() - panel * kPanel);
    for (int tile = 0; tile < tiles; ++tile) {
      const int begin = rows * tile / tiles;
      const int end = rows * (tile + 1) / tiles;
      Tile(x + size_t(begin) * x_stride, x_stride, end - begin, w.panel(panel), w.padded_inputs(), sums);
      for (int row = begin; row < end; ++row) {
        std::memcpy(y + size_t(row) * y_stride + size_t(panel) * kPanel, sums + (row - begin) * kPanel,
                    width * sizeof(float));
      }
    }
  }
}

}  // namespace quicksave::engine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::engine::cpu {

HWY_EXPORT(MatMulImpl);

PackedMatrix::PackedMatrix(const uint16_t* weights, int outputs, int inputs, DeviceMemory& memory)
    : outputs_(outputs),
      inputs_(inputs),
      padded_inputs_((inputs + 31) / 32 * 32),
      data_(size_t(panels()) * kPanel * padded_inputs_, memory) {
  for (int output = 0; output < outputs; ++output) {
    uint16_t* to = data_.data() + size_t(output / kPanel) * kPanel * padded_inputs_ + size_t(output % kPanel) * 2;
    const uint16_t* from = weights + size_t(output) * inputs;
    for (int k = 0; k < inputs; ++k) to[size_t(k / 2) * 2 * kPanel + k % 2] = from[k];
  }
}

void MatMul(const float* x, int x_stride, int rows, const PackedMatrix& w, int first_panel, int last_panel, float* y,
            int y_stride) {
  HWY_DYNAMIC_DISPATCH(MatMulImpl)(x, x_stride, rows, w, first_panel, last_panel, y, y_stride);
}

}  // namespace quicksave::engine::cpu
#endif
