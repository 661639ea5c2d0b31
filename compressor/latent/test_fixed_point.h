// Reading fixed-point numbers back, for tests.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_TEST_FIXED_POINT_H_
#define QUICKSAVE_COMPRESSOR_LATENT_TEST_FIXED_POINT_H_

#include <cmath>
#include <vector>

#include "compressor/latent/fixed_point.h"

namespace quicksave::compressor {

// What the planes of an input and a column add up to.
inline double FixedValue(const std::vector<FixedPointGroup>& fixed, int input, int column) {
  const FixedPointGroup& group = fixed[column / kColumnGroup];
  const int c = column % kColumnGroup;
  double value = 0;
  for (const FixedPlane& plane : group.planes) {
    for (size_t q = 0; q < plane.quads.size(); ++q) {
      if (static_cast<int>(plane.quads[q]) != input / kQuad) continue;
      const auto byte = static_cast<int8_t>(plane.values[q * kColumnGroup + c] >> (8 * (input % kQuad)));
      value += std::ldexp(static_cast<double>(byte), plane.shifts[c] - group.exponents[c]);
    }
  }
  return value;
}

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_TEST_FIXED_POINT_H_
