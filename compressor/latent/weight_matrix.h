// A matrix of a latent profile in either of the forms that profiles have it.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_WEIGHT_MATRIX_H_
#define QUICKSAVE_COMPRESSOR_LATENT_WEIGHT_MATRIX_H_

#include <utility>
#include <variant>
#include <vector>

#include "absl/types/span.h"
#include "compressor/latent/int8_matrix.h"
#include "compressor/latent/panel_product.h"

namespace quicksave::compressor {

// Whether there are as many numbers as it says, all finite.
bool IsSound(const Bf16Matrix& matrix);

// 8-bit integers, or bf16 as in profiles of version 1. Immutable; any thread.
class WeightMatrix {
 public:
  WeightMatrix() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): either form is one.
  WeightMatrix(Bf16Matrix matrix) : form_(std::move(matrix)) {}
  // NOLINTNEXTLINE(google-explicit-constructor)
  WeightMatrix(Int8Matrix matrix) : form_(std::move(matrix)) {}

  // The forms, or null.
  const Bf16Matrix* bf16() const { return std::get_if<Bf16Matrix>(&form_); }
  const Int8Matrix* int8() const { return std::get_if<Int8Matrix>(&form_); }

  bool empty() const;
  int inputs() const;
  int outputs() const;
  // Exact.
  double at(int input, int output) const;
  // Whether there are as many numbers as it says, all finite, and scales above 0.
  bool IsSound() const;

  // y[outputs, columns] += unit * matrix^T x; see the AddProduct of both forms. Rows of x are the inputs `used`.
  void AddProduct(absl::Span<const int> used, const float* x, int columns, float unit, float* y) const;

 private:
  std::variant<Bf16Matrix, Int8Matrix> form_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_WEIGHT_MATRIX_H_
