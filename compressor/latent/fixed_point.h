// Columns of real numbers as planes of bytes, four inputs side by side.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_
#define QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compressor/latent/panel_product.h"

namespace quicksave::compressor {

// Inputs of a column that share an exponent: from a multiple of this on.
inline constexpr int kExponentInputs = 128;
// Numbers are multiples of 2^-kFinestExponent or of something coarser.
inline constexpr int kFinestExponent = 5;
// Inputs whose bytes make a word, the first one's in the lowest bits.
inline constexpr int kQuad = 4;

// A number for each column of a group.
using PerColumn = std::array<int32_t, kColumnGroup>;

// One signed byte of the numbers of some inputs. A column's value counts 2^(its shift - its exponent).
struct FixedPlane {
  PerColumn shifts{};  // 0 or more
  // The sum of each column's values.
  PerColumn sums{};
  // The quads that are not zero in all columns, ascending: of the inputs from kQuad times that on.
  std::vector<uint32_t> quads;
  std::vector<uint32_t> values;  // [quads, kColumnGroup]
};

// kColumnGroup columns. The sum of the planes is x, rounded; no column depends on another one.
struct FixedPointGroup {
  // Sums of products with integers of up to 127, in units of 2^-exponent, stay below 2^31.
  PerColumn exponents{};
  std::vector<FixedPlane> planes;
};

// x[used.size(), columns], whose row i is input used[i], ascending, by groups of columns, of which there is a whole
// number; docs/formats/latent_block.md, "Fixed point". Numbers of which a byte would keep less than `least_exponent`
// bits behind the point get two.
std::vector<FixedPointGroup> ToFixedPoint(absl::Span<const int> used, const float* x, int columns, int least_exponent);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_H_
