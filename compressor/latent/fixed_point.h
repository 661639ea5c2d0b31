// Columns of real numbers as planes of bytes, and of those only what is not zero.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_
#define QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace quicksave::compressor {

// Inputs of a column that share an exponent: from a multiple of this on.
inline constexpr int kExponentInputs = 128;
// Numbers are multiples of 2^-kFinestExponent or of something coarser.
inline constexpr int kFinestExponent = 5;

// Four values of one column: of the inputs from 4 * quad on, each a signed byte.
struct FixedQuad {
  uint32_t quad;
  uint32_t values;
};

// One byte of the numbers of some inputs. A column's value counts 2^(its shift - its exponent).
struct FixedPlane {
  std::vector<int> shifts;  // of each column, 0 or more
  // The quads that are not zero, of each column by ascending quad, and where each column's begin: [columns + 1].
  std::vector<FixedQuad> quads;
  std::vector<uint32_t> begins;
  // The sum of each column's values.
  std::vector<int32_t> sums;
};

// The sum of the planes is x, rounded; no column depends on another one.
struct FixedPointColumns {
  // Of each column. Sums of products with integers of up to 127, in units of 2^-exponent, stay below 2^31.
  std::vector<int> exponents;
  std::vector<FixedPlane> planes;
};

// x[used.size(), columns], whose row i is input used[i], ascending; docs/formats/latent_block.md, "Fixed point".
// Numbers of which a byte would keep less than `least_exponent` bits behind the point get two.
FixedPointColumns ToFixedPoint(absl::Span<const int> used, const float* x, int columns, int least_exponent);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_
