// Matrices of 8-bit integers and their products with the columns of a block: the arithmetic of the latent codec's
// decoder.
//
// Inputs become fixed-point numbers and all sums are exact integers, so a result's bits depend neither on the
// instruction set nor on the order of the sum, and four inputs that are zero for a group of columns cost nothing.
// docs/formats/latent_block.md defines the result.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_INT8_MATRIX_H_
#define QUICKSAVE_COMPRESSOR_LATENT_INT8_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compressor/latent/fixed_point.h"

namespace quicksave::compressor {

// A matrix [inputs, outputs] of integers from -kLargest to kLargest, times a scale for each output. Immutable; any
// thread.
class Int8Matrix {
 public:
  static constexpr int kLargest = 127;
  // A second row of an input counts one of so many parts of the first.
  static constexpr int kRefinement = 128;
  // Outputs whose weights are side by side.
  static constexpr int kPanel = 12;
  // What is added to the integers where they are kept, since the instruction wants one unsigned factor.
  static constexpr int kBias = 128;

  Int8Matrix() = default;
  // `values` are [inputs, outputs], the outputs of one input side by side, and none of them is -128; a scale for each
  // output.
  Int8Matrix(int inputs, int outputs, absl::Span<const int8_t> values, std::vector<float> scales);

  // The nearest such matrix to one of finite numbers [inputs, outputs]: the largest of an output becomes kLargest. What
  // that leaves of the first `refined` inputs, times kRefinement, follows as so many more inputs.
  static Int8Matrix Nearest(int inputs, int outputs, absl::Span<const float> values, int refined = 0);

  bool empty() const { return packed_.empty(); }
  int inputs() const { return inputs_; }
  int outputs() const { return outputs_; }
  const std::vector<float>& scales() const { return scales_; }
  int value(int input, int output) const { return packed_[Place(input, output)] - kBias; }
  // What the constructor was given.
  std::vector<int8_t> RowMajor() const;

  // The integers plus kBias: [quads][kPanel outputs][inputs of the quad], of the panel that begins with that output;
  // padded with zeros.
  const uint8_t* panel(int first_output) const { return packed_.data() + size_t(first_output) * quads() * kQuad; }
  int quads() const { return (inputs_ + kQuad - 1) / kQuad; }

 private:
  size_t Place(int input, int output) const;

  int inputs_ = 0;
  int outputs_ = 0;
  std::vector<uint8_t> packed_;
  std::vector<float> scales_;
};

// Bits behind the point that the x of AddProduct keeps at least.
inline constexpr int kLeastExponent = 3;

// y[outputs, columns] += unit * matrix^T x, where row i of x[used.size(), columns] is input used[i] of the matrix; the
// other inputs are zero. `used` ascends, `columns` is a multiple of kColumnGroup. x is rounded to fixed-point numbers
// as the format says, to a resolution of 1/8 or better where no value is larger than some thousand; what is no number
// counts as zero. No column depends on another one. Costs about inputs * outputs * columns / 110 cycles of a core with
// AVX-512 VNNI, less where x has zeros. Any thread.
void AddProduct(const Int8Matrix& matrix, absl::Span<const int> used, const float* x, int columns, float unit,
                float* y);
// The same of an x that several matrices are multiplied with.
void AddProduct(const Int8Matrix& matrix, const std::vector<FixedPointGroup>& x, float unit, float* y);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_INT8_MATRIX_H_
