#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ARITHMETIC_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ARITHMETIC_H_

// The functions of single numbers in the kernels, in plain code for the host and the GPU. Each does the very operations
// of the vector kernels, so the bits are theirs, provided that the compiler contracts no product and sum by itself
// (-ffp-contract=off, -fmad=false), that division and square root are IEEE 754's, and that denormals are flushed.
// Exp and Tanh are those of Highway 1.0.3, hwy/contrib/math/math-inl.h.

#include <cmath>
#include <cstdint>

#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/kernels/portable.h"

namespace quicksave::engine::scalar {

QUICKSAVE_PORTABLE inline uint32_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

QUICKSAVE_PORTABLE inline float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// 2^exponent, for normal numbers.
QUICKSAVE_PORTABLE inline float PowerOfTwo(int exponent) {
  return FloatOf(static_cast<uint32_t>(exponent + 127) << 23);
}

// e^x = 2^quotient * (1 + rest).
struct ExpParts {
  int quotient;
  float rest;
};

// Of x in [-104, 104].
QUICKSAVE_PORTABLE inline ExpParts SplitExp(float x) {
  const float half = FloatOf(0x3f000000U | (BitsOf(x) & 0x80000000U));
  const int quotient = static_cast<int>(fmaf(x, 1.442695040888963407359924681F, half));
  const auto whole = static_cast<float>(quotient);
  const float r = fmaf(whole, -1.428606765330187045e-6F, fmaf(whole, -0.693145751953125F, x));
  const float r2 = r * r;
  const float low = fmaf(r2, fmaf(0.00833336077630519866943359F, r, 0.0416664853692054748535156F),
                         fmaf(0.166666671633720397949219F, r, 0.5F));
  const float high = fmaf(0.000198527617612853646278381F, r, 0.00139304355252534151077271F);
  return {quotient, fmaf(fmaf(r2 * r2, high, low), r2, r)};
}

// value * 2^exponent, in two steps, so that neither power is out of range.
QUICKSAVE_PORTABLE inline float Scaled(float value, int exponent) {
  const int half = exponent >> 1;
  return value * PowerOfTwo(half) * PowerOfTwo(exponent - half);
}

// e^x of x up to 104; 0 below -104.
QUICKSAVE_PORTABLE inline float Exp(float x) {
  if (!(x >= -104.0F)) return 0;
  const ExpParts parts = SplitExp(x);
  return Scaled(parts.rest + 1, parts.quotient);
}

QUICKSAVE_PORTABLE inline float Tanh(float x) {
  const uint32_t sign = BitsOf(x) & 0x80000000U;
  const float magnitude = FloatOf(BitsOf(x) ^ sign);
  if (magnitude > 18.714973875F) return FloatOf(0x3f800000U | sign);
  const float twice = magnitude * 2;
  const ExpParts parts = SplitExp(twice);
  // e^twice - 1.
  const float grown = twice < 0.346573590279972654708616F ? parts.rest : Scaled(parts.rest + 1, parts.quotient) - 1;
  return FloatOf(BitsOf(grown / (grown + 2)) ^ sign);
}

// cap * tanh(value / cap).
QUICKSAVE_PORTABLE inline float SoftCapped(float value, float cap) { return cap * Tanh(value / cap); }

// x / (1 + e^-z).
QUICKSAVE_PORTABLE inline float TimesSigmoid(float x, float z) { return x / (1 + Exp(-z < 104.0F ? -z : 104.0F)); }

QUICKSAVE_PORTABLE inline float Silu(float x) { return TimesSigmoid(x, x); }

QUICKSAVE_PORTABLE inline float GeluTanh(float x) {
  return TimesSigmoid(x, fmaf(x * x * 0.044715F, x, x) * 1.5957691216057308F);
}

// Of finite values; the result stays fp32.
QUICKSAVE_PORTABLE inline float Rounded(float value, cpu::Rounding rounding) {
  if (rounding == cpu::Rounding::kNone) return value;
  const uint32_t bits = BitsOf(value);
  return FloatOf((bits + 0x7fffU + (bits >> 16 & 1U)) & 0xffff0000U);
}

// Partial sums of rows and softmaxes, by index modulo this.
constexpr int kSums = 16;

// Adds them pairwise: (0 + 8), (1 + 9), ... then in halves. Overwrites them.
QUICKSAVE_PORTABLE inline float SumPairwise(float* sums) {
  for (int width = kSums / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

// 1 / sqrt(mean(x^2) + epsilon).
QUICKSAVE_PORTABLE inline float InverseRootMeanSquare(const float* x, int width, float epsilon) {
  float sums[kSums] = {};
  for (int i = 0; i < width; i += kSums) {
    for (int k = 0; k < kSums; ++k) sums[k] = fmaf(x[i + k], x[i + k], sums[k]);
  }
  return 1.0F / sqrtf(SumPairwise(sums) / static_cast<float>(width) + epsilon);
}

}  // namespace quicksave::engine::scalar

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ARITHMETIC_H_
