#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ROWS_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ROWS_H_

// What the kernels do with rows beside products and attention. Each functor is called with each index of the range that
// it names, in any order and on any thread.

#include <cstddef>
#include <cstdint>

#include "server/engine/kernels/portable.h"
#include "server/engine/kernels/scalar/arithmetic.h"

namespace quicksave::engine::scalar {

// Which element of which row an index is.
struct Place {
  int64_t row;
  int column;
};
QUICKSAVE_PORTABLE inline Place PlaceOf(int64_t index, int width) {
  return {index / width, static_cast<int>(index % width)};
}

// scales[i] = 1 / sqrt(mean(x^2) + epsilon) of group i, in [0, rows * count).
struct GroupScale {
  const float* x;
  cpu::Groups groups;
  float epsilon;
  float* scales;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const Place place = PlaceOf(index, groups.count);
    const float* group = x + place.row * groups.x_stride + size_t(place.column) * groups.width;
    scales[index] = InverseRootMeanSquare(group, groups.width, epsilon);
  }
};

// Scales each group of x by its scale and the weights, into y of the same shape; [0, rows * count * width).
struct ScaleGroups {
  const float* x;
  cpu::Groups groups;
  const float* scales;
  const float* weight;  // [width]
  cpu::Rounding rounding;
  float* y;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const Place place = PlaceOf(index, groups.count * groups.width);
    const int64_t at = place.row * groups.x_stride + place.column;
    const float normal = x[at] * scales[index / groups.width];
    y[at] = Rounded(normal * weight[place.column % groups.width], rounding);
  }
};

// cpu::Rope of the pair of elements with this index in [0, rows * heads * head_dim / 2).
struct RotatePair {
  float* x;
  int x_stride;
  int heads;
  int head_dim;
  const int32_t* positions;
  const float* cos_sin;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const int half = head_dim / 2;
    const Place place = PlaceOf(index, heads * half);
    const int i = place.column % half;
    float* low = x + place.row * x_stride + size_t(place.column / half) * head_dim + i;
    float* high = low + half;
    const float* cosine = cos_sin + size_t(positions[place.row]) * head_dim + i;
    const float sine = cosine[half];
    const float a = *low;
    const float b = *high;
    *low = fmaf(-b, sine, a * *cosine);
    *high = fmaf(a, sine, b * *cosine);
  }
};

// y = rounded(activation(gate) * up), [0, rows * width).
template <bool kGelu>
struct Glu {
  const float* gate_up;
  int width;
  cpu::Rounding rounding;
  float* y;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const Place place = PlaceOf(index, width);
    const float* gate = gate_up + place.row * 2 * width + place.column;
    y[index] = Rounded((kGelu ? GeluTanh(*gate) : Silu(*gate)) * gate[width], rounding);
  }
};

struct AddElement {
  float* x;
  const float* y;
  QUICKSAVE_PORTABLE void operator()(int64_t index) const { x[index] += y[index]; }
};

struct AddBiasElement {
  float* x;
  const float* bias;
  int width;
  QUICKSAVE_PORTABLE void operator()(int64_t index) const { x[index] += bias[index % width]; }
};

struct CapElement {
  float* x;
  float cap;
  QUICKSAVE_PORTABLE void operator()(int64_t index) const { x[index] = SoftCapped(x[index], cap); }
};

struct GatherElement {
  const float* x;
  const int32_t* rows;
  int width;
  float* y;
  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const Place place = PlaceOf(index, width);
    y[index] = x[int64_t{rows[place.row]} * width + place.column];
  }
};

}  // namespace quicksave::engine::scalar

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ROWS_H_
