#include <algorithm>
#include <cstring>

#include "server/engine/kernels/cpu_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/engine/kernels/matmul.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanel = PackedMatrix::kPanel;
constexpr int kGroup = 32;
// How far ahead weights are fetched: 4 KiB, beyond which the processor's own prefetcher does not look.
constexpr int kPrefetchPairs = 1024;

using Floats = hn::CappedTag<float, 16>;
using Vector = hn::Vec<Floats>;
using Pairs = hn::RebindToUnsigned<Floats>;

// One block of `kRows` rows and `kVectors` vectors of outputs over all inputs: the register-blocked core.
template <int kRows, int kVectors>
HWY_INLINE void Block(const float* HWY_RESTRICT x, int x_stride, const uint16_t* HWY_RESTRICT panel, int inputs,
                      float* HWY_RESTRICT sums) {
  const Floats df;
  const Pairs du;
  const int lanes = static_cast<int>(hn::Lanes(df));
  const auto odd_mask = hn::Set(du, 0xffff0000u);
  for (int group = 0; group < inputs; group += kGroup) {
    Vector even[kRows][kVectors];
    Vector odd[kRows][kVectors];
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        even[r][v] = hn::Zero(df);
        odd[r][v] = hn::Zero(df);
      }
    }
    for (int k = group; k < group + kGroup; k += 2) {
      const auto* pairs = reinterpret_cast<const uint32_t*>(panel + size_t(k) * kPanel);
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) hwy::Prefetch(pairs + v * lanes + kPrefetchPairs);
      Vector even_weights[kVectors];
      Vector odd_weights[kVectors];
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        const auto both = hn::LoadU(du, pairs + v * lanes);
        even_weights[v] = hn::BitCast(df, hn::ShiftLeft<16>(both));
        odd_weights[v] = hn::BitCast(df, hn::And(both, odd_mask));
      }
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        const auto x_even = hn::Set(df, x[r * x_stride + k]);
        const auto x_odd = hn::Set(df, x[r * x_stride + k + 1]);
        HWY_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) {
          even[r][v] = hn::MulAdd(x_even, even_weights[v], even[r][v]);
          odd[r][v] = hn::MulAdd(x_odd, odd_weights[v], odd[r][v]);
        }
      }
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kRows; ++r) {
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        float* sum = sums + r * kPanel + v * lanes;
        hn::StoreU(hn::Add(hn::LoadU(df, sum), hn::Add(even[r][v], odd[r][v])), df, sum);
      }
    }
  }
}

// All outputs of a panel for `kRows` rows; narrower vectors take the panel in several passes to stay within the
// registers.
template <int kRows>
void RowBlock(const float* x, int x_stride, const uint16_t* panel, int inputs, float* sums) {
  constexpr int kVectors = 2;
  const int step = kVectors * static_cast<int>(hn::Lanes(Floats()));
  std::fill(sums, sums + kRows * kPanel, 0.0f);
  for (int output = 0; output < kPanel; output += step) {
    Block<kRows, kVectors>(x, x_stride, panel + 2 * output, inputs, sums + output);
  }
}

constexpr int kMaxRows = HWY_TARGET <= HWY_AVX3 ? 6 : 2;

void DispatchRows(int rows, const float* x, int x_stride, const uint16_t* panel, int inputs, float* sums) {
  if constexpr (kMaxRows == 6) {
    switch (rows) {
      case 6:
        return RowBlock<6>(x, x_stride, panel, inputs, sums);
      case 5:
        return RowBlock<5>(x, x_stride, panel, inputs, sums);
      case 4:
        return RowBlock<4>(x, x_stride, panel, inputs, sums);
      case 3:
        return RowBlock<3>(x, x_stride, panel, inputs, sums);
      default:
        break;
    }
  }
  if (rows == 2) return RowBlock<2>(x, x_stride, panel, inputs, sums);
  RowBlock<1>(x, x_stride, panel, inputs, sums);
}

void MatMulImpl(const float* x, int x_stride, int rows, const PackedMatrix& w, int first_panel, int last_panel,
                float* y, int y_stride) {
  const int blocks = (rows + kMaxRows - 1) / kMaxRows;
  float sums[kMaxRows * kPanel];
  for (int panel = first_panel; panel < last_panel; ++panel) {
    const int width = std::min(kPanel, w.outputs() - panel * kPanel);
    for (int block = 0; block < blocks; ++block) {
      // Blocks of equal size: 8 rows are 4 + 4, not 6 + 2.
      const int begin = rows * block / blocks;
      const int end = rows * (block + 1) / blocks;
      DispatchRows(end - begin, x + size_t(begin) * x_stride, x_stride, w.panel(panel), w.padded_inputs(), sums);
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

PackedMatrix::PackedMatrix(const uint16_t* weights, int outputs, int inputs)
    : outputs_(outputs), inputs_(inputs), padded_inputs_((inputs + 31) / 32 * 32) {
  data_.assign(size_t(panels()) * kPanel * padded_inputs_, 0);
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
