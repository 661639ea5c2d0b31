// Products of a bf16 matrix with the columns of a block: the arithmetic of the latent codec's encoder, of profiles of
// version 1 and of learned sidecars.
//
// A result's bits depend neither on the vector width nor on the other columns, so that every machine decodes a latent
// to the same values.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_PANEL_PRODUCT_H_
#define QUICKSAVE_COMPRESSOR_LATENT_PANEL_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace quicksave::compressor {

// A matrix [inputs, outputs] of bf16 bits, the outputs of one input side by side.
struct Bf16Matrix {
  int inputs = 0;
  int outputs = 0;
  std::vector<uint16_t> values;

  bool empty() const { return values.empty(); }
};

// fp32 bits of a bf16 number.
inline float WidenBf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof(value));
  return value;
}
// A finite number rounded to bf16, to nearest even.
inline uint16_t NarrowToBf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Columns of a panel come in groups of this many.
inline constexpr int kColumnGroup = 32;
inline int PaddedColumns(int columns) { return (columns + kColumnGroup - 1) / kColumnGroup * kColumnGroup; }

// y[outputs, columns] += matrix^T x, where row i of x[used.size(), columns] is input used[i] of the matrix; the other
// inputs are zero. `columns` is a multiple of kColumnGroup. Each element is a chain of fused multiply-adds in the order
// of `used`. Any thread.
void AddProduct(const Bf16Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float* y);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_PANEL_PRODUCT_H_
