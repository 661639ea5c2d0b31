#include "server/engine/kernels/int8_matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "server/engine/kernels/cpu_kernels.h"

// Also for the instruction vpdpwssd, which that target has.
#define HWY_WANT_AVX3_DL
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/engine/kernels/int8_matmul.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kPanel = Int8Matrix::kPanel;
constexpr int kGroup = Int8Matrix::kGroup;
// How far ahead weights are fetched.
constexpr int kPrefetchBytes = 2048;

using Floats = hn::CappedTag<float, 16>;
using Integers = hn::RebindToSigned<Floats>;
using Pairs = hn::Repartition<int16_t, Integers>;
using Weights = hn::Rebind<int8_t, Pairs>;

// sum += w0 * x0 + w1 * x1 in each lane, for the pair of weights there and the pair of inputs at `x`.
HWY_INLINE void AddProducts(hn::Vec<Pairs> weights, const int16_t* x, hn::Vec<Integers>& sum) {
#if HWY_TARGET == HWY_AVX3_DL
  using Two = const int16_t[2];
  asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum.raw) : "v"(weights.raw), "m"(*reinterpret_cast<Two*>(x)));
#else
  // On x86 the two products of a lane stay there.
  int32_t both;
  std::memcpy(&both, x, sizeof(both));
  hn::Vec<Integers> unused = hn::Zero(Integers());
  sum =
      hn::ReorderWidenMulAccumulate(Integers(), weights, hn::BitCast(Pairs(), hn::Set(Integers(), both)), sum, unused);
#endif
}

// sums[row, output] of `kRows` rows and `kVectors` vectors of outputs grow by one group. `kChains` sums of each, added
// at the end, let the processor work on them side by side.
template <int kRows, int kVectors, int kChains>
HWY_INLINE void Group(const int16_t* HWY_RESTRICT x, int x_stride, const float* HWY_RESTRICT x_scales, int groups,
                      const int8_t* HWY_RESTRICT weights, const uint16_t* HWY_RESTRICT scales,
                      float* HWY_RESTRICT sums) {
  const Floats df;
  const Integers di;
  const int lanes = static_cast<int>(hn::Lanes(df));
  hn::Vec<Integers> totals[kRows][kVectors][kChains];
  HWY_UNROLL(16)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(8)
    for (int v = 0; v < kVectors; ++v) {
      HWY_UNROLL(8)
      for (int c = 0; c < kChains; ++c) totals[r][v][c] = hn::Zero(di);
    }
  }
  for (int k = 0; k < kGroup; k += 2 * kChains) {
    HWY_UNROLL(8)
    for (int c = 0; c < kChains; ++c) {
      hwy::Prefetch(weights + (k + 2 * c) * kPanel + kPrefetchBytes);
      hn::Vec<Pairs> pairs[kVectors];
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        pairs[v] = hn::PromoteTo(Pairs(), hn::LoadU(Weights(), weights + (k + 2 * c) * kPanel + 2 * v * lanes));
      }
      HWY_UNROLL(16)
      for (int r = 0; r < kRows; ++r) {
        HWY_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) AddProducts(pairs[v], x + r * x_stride + k + 2 * c, totals[r][v][c]);
      }
    }
  }
  const hn::Rebind<uint16_t, Integers> narrow;
  const hn::RebindToUnsigned<Floats> wide;
  HWY_UNROLL(8)
  for (int v = 0; v < kVectors; ++v) {
    const auto bits = hn::PromoteTo(wide, hn::LoadU(narrow, scales + v * lanes));
    const auto scale = hn::BitCast(df, hn::ShiftLeft<16>(bits));
    HWY_UNROLL(16)
    for (int r = 0; r < kRows; ++r) {
      auto total = totals[r][v][0];
      for (int c = 1; c < kChains; ++c) total = hn::Add(total, totals[r][v][c]);
      float* sum = sums + r * kPanel + v * lanes;
      const auto both = hn::Mul(scale, hn::Set(df, x_scales[r * groups]));
      hn::StoreU(hn::MulAdd(hn::ConvertTo(df, total), both, hn::LoadU(df, sum)), df, sum);
    }
  }
}

// All outputs of a panel for `kRows` rows of x, the first of which is `row`.
template <int kRows>
void RowBlock(const FixedPointRows& x, int row, const int8_t* panel, float* sums) {
  constexpr int kVectors = 2;
  constexpr int kChains = kRows <= 2 ? 2 : 1;
  const int step = kVectors * static_cast<int>(hn::Lanes(Floats()));
  const int groups = x.groups();
  std::fill(sums, sums + kRows * kPanel, 0.0F);
  for (int group = 0; group < groups; ++group, panel += Int8Matrix::kGroupBytes) {
    const int16_t* values = x.values.data() + size_t(row) * x.stride() + size_t(group) * kGroup;
    const auto* scales = reinterpret_cast<const uint16_t*>(panel);
    const float* x_scales = x.scales.data() + size_t(row) * groups + group;
    for (int output = 0; output < kPanel; output += step) {
      Group<kRows, kVectors, kChains>(values, x.stride(), x_scales, groups,
                                      panel + Int8Matrix::kScaleBytes + 2 * output, scales + output, sums + output);
    }
  }
}

constexpr int kMaxRows = HWY_TARGET <= HWY_AVX3 ? 12 : 4;

template <int kRows = kMaxRows>
void DispatchRows(int rows, const FixedPointRows& x, int row, const int8_t* panel, float* sums) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return DispatchRows<kRows - 1>(rows, x, row, panel, sums);
  }
  RowBlock<kRows>(x, row, panel, sums);
}

void Int8MatMulImpl(const FixedPointRows& x, const Int8Matrix& w, int first_panel, int last_panel, float* y,
                    int y_stride) {
  const int blocks = (x.rows + kMaxRows - 1) / kMaxRows;
  float sums[kMaxRows * kPanel];
  for (int panel = first_panel; panel < last_panel; ++panel) {
    const int width = std::min(kPanel, w.outputs() - panel * kPanel);
    for (int block = 0; block < blocks; ++block) {
      // Blocks of equal size.
      const int begin = x.rows * block / blocks;
      const int end = x.rows * (block + 1) / blocks;
      DispatchRows(end - begin, x, begin, w.panel(panel), sums);
      for (int row = begin; row < end; ++row) {
        std::memcpy(y + size_t(row) * y_stride + size_t(panel) * kPanel, sums + (row - begin) * kPanel,
                    width * sizeof(float));
      }
    }
  }
}

// One group of a row: 16-bit integers and their scale.
HWY_INLINE float FixGroup(const float* x, int count, int16_t* to) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto largest = hn::Zero(d);
  for (int i = 0; i < count; i += lanes) largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
  const float top = hn::GetLane(hn::MaxOfLanes(d, largest));
  uint32_t bits;
  std::memcpy(&bits, &top, sizeof(bits));
  // Powers of two, by their biased exponents; none is a denormal.
  const uint32_t exponent = std::clamp(bits >> 23, 15U, 254U);
  const uint32_t scale_bits = (exponent - 14) << 23;
  const uint32_t inverse_bits = (268 - exponent) << 23;
  float scale;
  float inverse;
  std::memcpy(&scale, &scale_bits, sizeof(scale));
  std::memcpy(&inverse, &inverse_bits, sizeof(inverse));
  const hn::Rebind<int16_t, Floats> narrow;
  for (int i = 0; i < count; i += lanes) {
    const auto fixed = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse)));
    hn::StoreU(hn::DemoteTo(narrow, fixed), narrow, to + i);
  }
  return scale;
}

void FixPointImpl(const float* x, int x_stride, int begin, int end, FixedPointRows& to) {
  for (int row = begin; row < end; ++row) {
    int16_t* values = to.values.data() + size_t(row) * to.stride();
    for (int group = 0; group < to.groups(); ++group) {
      const int first = group * kGroup;
      const int count = std::min(kGroup, to.inputs - first);
      to.scales[size_t(row) * to.groups() + group] =
          FixGroup(x + size_t(row) * x_stride + first, count, values + first);
    }
    std::fill(values + to.inputs, values + to.stride(), int16_t{0});
  }
}

}  // namespace quicksave::engine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::engine::cpu {

HWY_EXPORT(Int8MatMulImpl);
HWY_EXPORT(FixPointImpl);

Int8Matrix::Int8Matrix(int outputs, int inputs, DeviceMemory& memory)
    : outputs_(outputs), inputs_(inputs), data_(size_t(panels()) * groups() * kGroupBytes, memory) {}

void Int8Matrix::SetOutput(int output, const float* weights) {
  int8_t* group_begin = data_.data() + size_t(output / kPanel) * groups() * kGroupBytes;
  const int lane = output % kPanel;
  for (int first = 0; first < inputs_; first += kGroup, group_begin += kGroupBytes) {
    const int count = std::min(kGroup, inputs_ - first);
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weights[first + i]));
    // Weights that no scale but a denormal one could hold are 0.
    const float exact_scale = largest / 127;
    const uint16_t scale_bits = exact_scale < std::numeric_limits<float>::min() ? 0 : Bf16Bits(exact_scale);
    std::memcpy(group_begin + lane * sizeof(scale_bits), &scale_bits, sizeof(scale_bits));
    const float scale = Bf16ToFloat(scale_bits);
    const float inverse = scale > 0 ? 1 / scale : 0;
    int8_t* to = group_begin + kScaleBytes + size_t{2} * lane;
    for (int i = 0; i < count; ++i) {
      // Written so that NaN becomes a number, too.
      const float steps = std::max(-127.0F, std::min(127.0F, std::nearbyint(weights[first + i] * inverse)));
      to[size_t(i / 2) * 2 * kPanel + i % 2] = static_cast<int8_t>(steps);
    }
  }
}

std::vector<float> Int8Matrix::Output(int output) const {
  std::vector<float> weights(inputs_);
  const int lane = output % kPanel;
  for (int i = 0; i < inputs_; ++i) {
    const int8_t* group = panel(output / kPanel) + size_t(i / kGroup) * kGroupBytes;
    uint16_t scale_bits;
    std::memcpy(&scale_bits, group + lane * sizeof(scale_bits), sizeof(scale_bits));
    const int8_t step = group[kScaleBytes + size_t{2} * lane + size_t(i % kGroup / 2) * 2 * kPanel + i % 2];
    weights[i] = static_cast<float>(step) * Bf16ToFloat(scale_bits);
  }
  return weights;
}

void FixedPointRows::Resize(int new_rows, int new_inputs) {
  rows = new_rows;
  inputs = new_inputs;
  const size_t count = rows;
  if (values.size() < count * stride()) values.resize(count * stride());
  if (scales.size() < count * groups()) scales.resize(count * groups());
}

void FixPoint(const float* x, int x_stride, int begin, int end, FixedPointRows& to) {
  HWY_DYNAMIC_DISPATCH(FixPointImpl)(x, x_stride, begin, end, to);
}

void MatMul(const FixedPointRows& x, const Int8Matrix& w, int first_panel, int last_panel, float* y, int y_stride) {
  HWY_DYNAMIC_DISPATCH(Int8MatMulImpl)(x, w, first_panel, last_panel, y, y_stride);
}

}  // namespace quicksave::engine::cpu
#endif
