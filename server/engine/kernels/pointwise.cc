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

void RmsNormImpl(const float* x, const float* weight, int rows, int width, float epsilon, float* y) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int row = 0; row < rows; ++row, x += width, y += width) {
    float partial[kSums] = {};
    for (int i = 0; i < width; i += kSums) {
      for (int lane = 0; lane < kSums; lane += lanes) {
        const auto value = hn::LoadU(d, x + i + lane);
        hn::StoreU(hn::MulAdd(value, value, hn::LoadU(d, partial + lane)), d, partial + lane);
      }
    }
    const float scale = 1.0f / std::sqrt(SumPairwise(partial) / static_cast<float>(width) + epsilon);
    for (int i = 0; i < width; i += lanes) {
      const auto normal = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale));
      hn::StoreU(RoundBf16(d, hn::Mul(normal, hn::LoadU(d, weight + i))), d, y + i);
    }
  }
}

void RopeImpl(float* x, int x_stride, int rows, int heads, int head_dim, const int32_t* positions,
              const float* cos_sin) {
  const Floats d;
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

void SwiGluImpl(const float* gate_up, int rows, int width, float* y) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto one = hn::Set(d, 1.0f);
  // Above this Exp is undefined; here it is infinite already.
  const auto most = hn::Set(d, 104.0f);
  for (int row = 0; row < rows; ++row, gate_up += 2 * size_t(width), y += width) {
    for (int i = 0; i < width; i += lanes) {
      const auto gate = hn::LoadU(d, gate_up + i);
      const auto up = hn::LoadU(d, gate_up + width + i);
      const auto silu = hn::Div(gate, hn::Add(one, hn::Exp(d, hn::Min(hn::Neg(gate), most))));
      hn::StoreU(RoundBf16(d, hn::Mul(silu, up)), d, y + i);
    }
  }
}

void AddImpl(float* x, const float* y, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] += y[i];
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
HWY_EXPORT(RopeImpl);
HWY_EXPORT(SwiGluImpl);
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

uint16_t Bf16Bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void RmsNorm(const float* x, const float* weight, int rows, int width, float epsilon, float* y) {
  HWY_DYNAMIC_DISPATCH(RmsNormImpl)(x, weight, rows, width, epsilon, y);
}
void Rope(float* x, int x_stride, int rows, int heads, int head_dim, const int32_t* positions, const float* cos_sin) {
  HWY_DYNAMIC_DISPATCH(RopeImpl)(x, x_stride, rows, heads, head_dim, positions, cos_sin);
}
void SwiGlu(const float* gate_up, int rows, int width, float* y) {
  HWY_DYNAMIC_DISPATCH(SwiGluImpl)(gate_up, rows, width, y);
}
void Add(float* x, const float* y, size_t count) { HWY_DYNAMIC_DISPATCH(AddImpl)(x, y, count); }
void RoundToBf16(float* x, size_t count) { HWY_DYNAMIC_DISPATCH(RoundToBf16Impl)(x, count); }

}  // namespace quicksave::engine::cpu
#endif
