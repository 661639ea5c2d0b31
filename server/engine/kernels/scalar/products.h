#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_PRODUCTS_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_PRODUCTS_H_

// Products with weights of each format, one output of one row at a time. The functors are called with each index in
// [0, rows * outputs), in any order and on any thread; sums are in the order that cpu_kernels.h and int8_matmul.h
// state.

#include <cstddef>
#include <cstdint>

#include "server/engine/kernels/int8_matmul.h"
#include "server/engine/kernels/portable.h"
#include "server/engine/kernels/scalar/arithmetic.h"

namespace quicksave::engine::scalar {

constexpr int kPanel = 32;
constexpr int kGroup = 32;

// The weights of one output of a cpu::PackedMatrix.
struct Bf16Weights {
  const uint16_t* panel;
  int lane;
  QUICKSAVE_PORTABLE float At(int input) const {
    return cpu::Bf16ToFloat(panel[size_t(input / 2) * 2 * kPanel + 2 * lane + input % 2]);
  }
};

// Those of one of a cpu::Fp32Matrix.
struct Fp32Weights {
  const float* panel;
  int lane;
  QUICKSAVE_PORTABLE float At(int input) const { return panel[size_t(input) * kPanel + lane]; }
};

// y[rows, outputs] = x W^T of weights in bf16 or fp32.
template <class Value, class Weights>
struct Product {
  const float* x;  // [rows, inputs]
  const Value* panels;
  int inputs;  // padded
  int outputs;
  float* y;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const auto output = static_cast<int>(index % outputs);
    const float* row = x + index / outputs * inputs;
    const Weights weights{panels + size_t(output / kPanel) * kPanel * inputs, output % kPanel};
    float sum = 0;
    for (int group = 0; group < inputs; group += kGroup) {
      float even = 0;
      float odd = 0;
      for (int k = group; k < group + kGroup; k += 2) {
        even = fmaf(row[k], weights.At(k), even);
        odd = fmaf(row[k + 1], weights.At(k + 1), odd);
      }
      sum += even + odd;
    }
    y[index] = sum;
  }
};
using Bf16Product = Product<uint16_t, Bf16Weights>;
using Fp32Product = Product<float, Fp32Weights>;

// Makes groups of inputs 16-bit integers, as cpu::FixPoint; called with each index in [0, rows * groups).
struct FixPoint {
  const float* x;  // [rows, stride]
  int inputs;
  int stride;       // inputs padded to whole groups
  int16_t* values;  // [rows, stride]
  float* scales;    // [rows, stride / kGroup]

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const int groups = stride / kGroup;
    const auto first = static_cast<int>(index % groups) * kGroup;
    const float* from = x + index / groups * stride;
    int16_t* to = values + index / groups * stride;
    const int last = first + kGroup < inputs ? first + kGroup : inputs;
    float largest = 0;
    for (int k = first; k < last; ++k) largest = fabsf(from[k]) > largest ? fabsf(from[k]) : largest;
    // Powers of two, by their biased exponents; none is a denormal.
    uint32_t exponent = BitsOf(largest) >> 23;
    exponent = exponent < 15 ? 15 : exponent > 254 ? 254 : exponent;
    const float inverse = FloatOf((268 - exponent) << 23);
    for (int k = first; k < first + kGroup; ++k) {
      const float steps = k < last ? rintf(from[k] * inverse) : 0.0F;
      to[k] = static_cast<int16_t>(steps < 32767.0F ? steps : 32767.0F);
    }
    scales[index] = FloatOf((exponent - 14) << 23);
  }
};

// y[rows, outputs] = x W^T of a cpu::Int8Matrix.
struct Int8Product {
  const int16_t* values;  // [rows, groups * kGroup]
  const float* scales;    // [rows, groups]
  const int8_t* panels;
  int groups;
  int outputs;
  float* y;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const auto output = static_cast<int>(index % outputs);
    const int lane = output % kPanel;
    const int64_t row = index / outputs;
    const int8_t* group = panels + size_t(output / kPanel) * groups * cpu::Int8Matrix::kGroupBytes;
    const int16_t* x = values + row * groups * kGroup;
    float sum = 0;
    for (int g = 0; g < groups; ++g, group += cpu::Int8Matrix::kGroupBytes, x += kGroup) {
      const int8_t* weights = group + cpu::Int8Matrix::kScaleBytes + 2 * lane;
      int32_t total = 0;
      for (int k = 0; k < kGroup; ++k) total += x[k] * weights[k / 2 * 2 * kPanel + k % 2];
      const float scale = cpu::Bf16ToFloat(reinterpret_cast<const uint16_t*>(group)[lane]);
      sum = fmaf(static_cast<float>(total), scale * scales[row * groups + g], sum);
    }
    y[index] = sum;
  }
};

}  // namespace quicksave::engine::scalar

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_PRODUCTS_H_
