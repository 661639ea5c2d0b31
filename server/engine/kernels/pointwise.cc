#include <algorithm>
#include <cmath>

#include "server/engine/kernels/cpu_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/engine/kernels/pointwise.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// The vector math needs the target's definitions above it.
#include "hwy/contrib/math/math-inl.h"
#include "server/engine/kernels/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 1 / sqrt(mean(x^2) + epsilon).
HWY_INLINE float InverseRootMeanSquare(const float* x, int width, float epsilon) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  float partial[kSums] = {};
  for (int i = 0; i < width; i += kSums) {
    for (int lane = 0; lane < kSums; lane += lanes) {
      const auto value = hn::LoadU(d, x + i + lane);
      hn::StoreU(hn::MulAdd(value, value, hn::LoadU(d, partial + lane)), d, partial + lane);
    }
  }
  return 1.0f / std::sqrt(SumPairwise(partial) / static_cast<float>(width) + epsilon);
}

void RmsNormImpl(const float* x, const float* weight, int rows, int width, float epsilon, float* y, Rounding rounding) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int row = 0; row < rows; ++row, x += width, y += width) {
    const float scale = InverseRootMeanSquare(x, width, epsilon);
    for (int i = 0; i < width; i += lanes) {
      const auto normal = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
      hn::StoreU(Rounded(d, hn::Mul(normal, hn::LoadU(d, weight + i)), rounding), d, y + i);
    }
  }
}

void RmsNormInPlaceImpl(float* x, const Groups& groups, const float* weight, float epsilon) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int row = 0; row < groups.rows; ++row, x += groups.x_stride) {
    for (int group = 0; group < groups.count; ++group) {
      float* values = x + size_t(group) * groups.width;
      const auto scale = hn::Set(d, InverseRootMeanSquare(values, groups.width, epsilon));
      for (int i = 0; i < groups.width; i += lanes) {
        const auto normal = hn::Mul(hn::LoadU(d, values + i), scale);
        hn::StoreU(hn::Mul(normal, hn::LoadU(d, weight + i)), d, values + i);
      }
    }
  }
}

void RopeImpl(float* x, int x_stride, int rows, int heads, int head_dim, const int32_t* positions,
              const float* cos_sin) {
  // Half a head is a multiple of 8.
  const hn::CappedTag<float, 8> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int half = head_dim / 2;
  for (int row = 0; row < rows; ++row) {
    const float* cosines = cos_sin + size_t(positions[row]) * head_dim;
    const float* sines = cosines + half;
    for (int head = 0; head < heads; ++head) {
      float* low = x + size_t(row) * x_stride + head * head_dim;
      float* high = low + half;
      for (int i = 0; i < half; i += lanes) {
        const auto a = hn::LoadU(d, low + i);
        const auto b = hn::LoadU(d, high + i);
        const auto c = hn::LoadU(d, cosines + i);
        const auto s = hn::LoadU(d, sines + i);
        hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, low + i);
        hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, high + i);
      }
    }
  }
}

// x / (1 + exp(-z)).
template <class D>
HWY_INLINE hn::Vec<D> TimesSigmoid(D d, hn::Vec<D> x, hn::Vec<D> z) {
  // Above this Exp is undefined; here it is infinite already.
  const auto most = hn::Set(d, 104.0f);
  return hn::Div(x, hn::Add(hn::Set(d, 1.0f), hn::Exp(d, hn::Min(hn::Neg(z), most))));
}

struct Silu {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, hn::Vec<D> x) const {
    return TimesSigmoid(d, x, x);
  }
};

// x * (1 + tanh(z / 2)) / 2, which is x times the sigmoid of z, with z = sqrt(8 / pi) * (x + 0.044715 x^3).
struct GeluTanh {
  template <class D>
  HWY_INLINE hn::Vec<D> operator()(D d, hn::Vec<D> x) const {
    const auto cubic = hn::MulAdd(hn::Mul(hn::Mul(x, x), hn::Set(d, 0.044715f)), x, x);
    return TimesSigmoid(d, x, hn::Mul(cubic, hn::Set(d, 1.5957691216057308f)));
  }
};

// y = rounded(activation(gate) * up).
template <class ActivationFunction>
void Glu(const float* gate_up, int rows, int width, float* y, Rounding rounding, ActivationFunction activation) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int row = 0; row < rows; ++row, gate_up += 2 * size_t(width), y += width) {
    for (int i = 0; i < width; i += lanes) {
      const auto gate = hn::LoadU(d, gate_up + i);
      const auto up = hn::LoadU(d, gate_up + width + i);
      hn::StoreU(Rounded(d, hn::Mul(activation(d, gate), up), rounding), d, y + i);
    }
  }
}

void SwiGluImpl(const float* gate_up, int rows, int width, float* y, Rounding rounding) {
  Glu(gate_up, rows, width, y, rounding, Silu());
}
void GeGluImpl(const float* gate_up, int rows, int width, float* y, Rounding rounding) {
  Glu(gate_up, rows, width, y, rounding, GeluTanh());
}

void SoftCapImpl(float* x, size_t count, float cap) {
  const Floats d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(SoftCapped(d, hn::LoadU(d, x + i), hn::Set(d, cap)), d, x + i);
  }
  if (i == count) return;
  float rest[kSums] = {};
  std::copy(x + i, x + count, rest);
  hn::StoreU(SoftCapped(d, hn::LoadU(d, rest), hn::Set(d, cap)), d, rest);
  std::copy_n(rest, count - i, x + i);
}

void AddImpl(float* x, const float* y, size_t count) {
  const Floats d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  for (; i < count; ++i) x[i] += y[i];
}

void RoundToBf16Impl(float* x, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] = Bf16ToFloat(Bf16Bits(x[i]));
}

}  // namespace quicksave::engine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quicksave::engine::cpu {

HWY_EXPORT(RmsNormImpl);
HWY_EXPORT(RmsNormInPlaceImpl);
HWY_EXPORT(RopeImpl);
HWY_EXPORT(SwiGluImpl);
HWY_EXPORT(GeGluImpl);
HWY_EXPORT(SoftCapImpl);
HWY_EXPORT(AddImpl);
HWY_EXPORT(RoundToBf16Impl);

std::string InstructionSet() { return hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets()); }

#if defined(__x86_64__)
namespace {
constexpr unsigned kFlushToZero = 0x8000;
constexpr unsigned kDenormalsAreZero = 0x0040;
}  // namespace

ScopedFlushDenormals::ScopedFlushDenormals() : saved_(_mm_getcsr()) {
  _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero);
}
ScopedFlushDenormals::~ScopedFlushDenormals() { _mm_setcsr(saved_); }
#else
ScopedFlushDenormals::ScopedFlushDenormals() : saved_(0) {}
ScopedFlushDenormals::~ScopedFlushDenormals() = default;
#endif

void RmsNorm(const float* x, const float* weight, int rows, int width, float epsilon, float* y, Rounding rounding) {
  HWY_DYNAMIC_DISPATCH(RmsNormImpl)(x, weight, rows, width, epsilon, y, rounding);
}
void RmsNormInPlace(float* x, const Groups& groups, const float* weight, float epsilon) {
  HWY_DYNAMIC_DISPATCH(RmsNormInPlaceImpl)(x, groups, weight, epsilon);
}
void Rope(float* x, int x_stride, int rows, int heads, int head_dim, const int32_t* positions, const float* cos_sin) {
  HWY_DYNAMIC_DISPATCH(RopeImpl)(x, x_stride, rows, heads, head_dim, positions, cos_sin);
}
void SwiGlu(const float* gate_up, int rows, int width, float* y, Rounding rounding) {
  HWY_DYNAMIC_DISPATCH(SwiGluImpl)(gate_up, rows, width, y, rounding);
}
void GeGlu(const float* gate_up, int rows, int width, float* y, Rounding rounding) {
  HWY_DYNAMIC_DISPATCH(GeGluImpl)(gate_up, rows, width, y, rounding);
}
void SoftCap(float* x, size_t count, float cap) { HWY_DYNAMIC_DISPATCH(SoftCapImpl)(x, count, cap); }
void AddBias(float* x, const float* bias, int rows, int width) {
  for (int row = 0; row < rows; ++row) Add(x + size_t(row) * width, bias, width);
}
void Add(float* x, const float* y, size_t count) { HWY_DYNAMIC_DISPATCH(AddImpl)(x, y, count); }
void RoundToBf16(float* x, size_t count) { HWY_DYNAMIC_DISPATCH(RoundToBf16Impl)(x, count); }

}  // namespace quicksave::engine::cpu
#endif
