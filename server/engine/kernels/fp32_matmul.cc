#include "server/engine/kernels/fp32_matmul.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/engine/kernels/fp32_matmul.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanel = Fp32Matrix::kPanel;
constexpr int kGroup = 32;
// How far ahead weights are fetched.
constexpr int kPrefetchFloats = 1024;

using Floats = hn::CappedTag<float, 16>;
using Vector = hn::Vec<Floats>;

// One group of inputs for `kRows` rows and `kVectors` vectors of outputs.
template <int kRows, int kVectors>
HWY_INLINE void Group(const float* HWY_RESTRICT x, int x_stride, const float* HWY_RESTRICT weights,
                      float* HWY_RESTRICT sums) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  Vector halves[2][kRows][kVectors];  // of the even and of the odd inputs
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) halves[0][r][v] = halves[1][r][v] = hn::Zero(d);
  }
  for (int k = 0; k < kGroup; k += 2) {
    HWY_UNROLL(2)
    for (int half = 0; half < 2; ++half) {
      const float* from = weights + (k + half) * kPanel;
      Vector w[kVectors];
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        hwy::Prefetch(from + v * lanes + kPrefetchFloats);
        w[v] = hn::LoadU(d, from + v * lanes);
      }
      HWY_UNROLL(8)
      for (int r = 0; r < kRows; ++r) {
        const auto input = hn::Set(d, x[r * x_stride + k + half]);
        HWY_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) halves[half][r][v] = hn::MulAdd(input, w[v], halves[half][r][v]);
      }
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      float* sum = sums + r * kPanel + v * lanes;
      hn::StoreU(hn::Add(hn::LoadU(d, sum), hn::Add(halves[0][r][v], halves[1][r][v])), d, sum);
    }
  }
}

// All outputs of a panel for `kRows` rows.
template <int kRows>
void RowBlock(const float* x, int x_stride, const float* panel, int inputs, float* sums) {
  constexpr int kVectors = 2;
  const int step = kVectors * static_cast<int>(hn::Lanes(Floats()));
  std::fill(sums, sums + kRows * kPanel, 0.0F);
  for (int group = 0; group < inputs; group += kGroup) {
    for (int output = 0; output < kPanel; output += step) {
      Group<kRows, kVectors>(x + group, x_stride, panel + size_t(group) * kPanel + output, sums + output);
    }
  }
}

constexpr int kMaxRows = HWY_TARGET <= HWY_AVX3 ? 6 : 2;

template <int kRows = kMaxRows>
void DispatchRows(int rows, const float* x, int x_stride, const float* panel, int inputs, float* sums) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return DispatchRows<kRows - 1>(rows, x, x_stride, panel, inputs, sums);
  }
  RowBlock<kRows>(x, x_stride, panel, inputs, sums);
}

void Fp32MatMulImpl(const float* x, int x_stride, int rows, const Fp32Matrix& w, int first_panel, int last_panel,
                    float* y, int y_stride) {
  const int blocks = (rows + kMaxRows - 1) / kMaxRows;
  float sums[kMaxRows * kPanel];
  for (int panel = first_panel; panel < last_panel; ++panel) {
    const int width = std::min(kPanel, w.outputs() - panel * kPanel);
    for (int block = 0; block < blocks; ++block) {
      // Blocks of equal size.
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

HWY_EXPORT(Fp32MatMulImpl);

Fp32Matrix::Fp32Matrix(int outputs, int inputs, DeviceMemory& memory)
    : outputs_(outputs), inputs_(inputs), data_(size_t(panels()) * kPanel * padded_inputs(), memory) {}

void Fp32Matrix::SetOutput(int output, const float* weights) {
  float* to = data_.data() + size_t(output / kPanel) * kPanel * padded_inputs() + output % kPanel;
  for (int i = 0; i < inputs_; ++i) to[size_t(i) * kPanel] = weights[i];
}

void MatMul(const float* x, int x_stride, int rows, const Fp32Matrix& w, int first_panel, int last_panel, float* y,
            int y_stride) {
  HWY_DYNAMIC_DISPATCH(Fp32MatMulImpl)(x, x_stride, rows, w, first_panel, last_panel, y, y_stride);
}

}  // namespace quicksave::engine::cpu
#endif
