// What the vector kernels share, compiled once for each instruction set (Highway's foreach_target, hence the guard that
// toggles).
#if defined(QUICKSAVE_SERVER_ENGINE_KERNELS_VECTOR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUICKSAVE_SERVER_ENGINE_KERNELS_VECTOR_INL_H_
#undef QUICKSAVE_SERVER_ENGINE_KERNELS_VECTOR_INL_H_
#else
#define QUICKSAVE_SERVER_ENGINE_KERNELS_VECTOR_INL_H_
#endif

#include "hwy/highway.h"
#include "server/engine/kernels/cpu_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {

// At most 16 lanes, so that 16 interleaved partial sums are one vector on AVX-512 and two on AVX2.
using Floats = hwy::HWY_NAMESPACE::CappedTag<float, 16>;
constexpr int kSums = 16;

// Adds 16 partial sums pairwise: (0 + 8), (1 + 9), ... then in halves. The same order for every vector width.
HWY_INLINE float SumPairwise(const float* partial) {
  float sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = partial[i];
  for (int width = kSums / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

// Rounds finite lanes to bf16, to nearest even, and keeps them as fp32.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> RoundBf16(D d, hwy::HWY_NAMESPACE::Vec<D> value) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, value);
  const auto tie = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(bits, hn::Add(tie, hn::Set(du, 0x7fffu)));
  return hn::BitCast(d, hn::And(rounded, hn::Set(du, 0xffff0000u)));
}

template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> Rounded(D d, hwy::HWY_NAMESPACE::Vec<D> value, Rounding rounding) {
  return rounding == Rounding::kBf16 ? RoundBf16(d, value) : value;
}

// cap * tanh(value / cap). Needs Highway's math-inl.h above it.
template <class D>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<D> SoftCapped(D d, hwy::HWY_NAMESPACE::Vec<D> value,
                                                 hwy::HWY_NAMESPACE::Vec<D> cap) {
  namespace hn = hwy::HWY_NAMESPACE;
  return hn::Mul(cap, hn::Tanh(d, hn::Div(value, cap)));
}

}  // namespace quicksave::engine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_VECTOR_INL_H_
