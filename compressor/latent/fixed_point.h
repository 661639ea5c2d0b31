// Columns of real numbers as 8-bit planes of fixed-point numbers, and only those that are not zero.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_
#define QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace quicksave::compressor {

// Inputs that share an exponent: from a multiple of this on.
inline constexpr int kExponentInputs = 128;
// Numbers are multiples of 2^-kFinestExponent or of something coarser.
inline constexpr int kFinestExponent = 5;

// Four values of one column: of the inputs from 4 * quad on, each a signed byte.
struct FixedQuad {
  uint32_t quad;
  uint32_t values;
};

// One plane of up to kExponentInputs inputs. A value counts 2^-exponent.
struct FixedPlane {
  int exponent = 0;
  // The quads that are not zero, of each column by ascending quad, and where each column's begin: [columns + 1].
  std::vector<FixedQuad> quads;
  std::vector<uint32_t> begins;
  // The sum of each column's values.
  std::vector<int32_t> sums;
};

// Planes by ascending exponent. Their sum is x.
struct FixedPointColumns {
  // No plane's is larger. Sums of products with integers of up to 127, in units of 2^-exponent, stay below 2^31.
  int exponent = kFinestExponent;
  std::vector<FixedPlane> planes;
};

// x[used.size(), columns], whose row i is input used[i], ascending; docs/formats/latent_block.md, "Fixed point".
FixedPointColumns ToFixedPoint(absl::Span<const int> used, const float* x, int columns);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_
