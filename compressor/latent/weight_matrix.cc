#include "compressor/latent/weight_matrix.h"

#include <algorithm>
#include <cmath>

namespace quicksave::compressor {

bool IsSound(const Bf16Matrix& matrix) {
  return matrix.values.size() == static_cast<size_t>(matrix.inputs) * matrix.outputs &&
         std::all_of(matrix.values.begin(), matrix.values.end(),
                     [](uint16_t bits) { return (bits & 0x7f80) != 0x7f80; });
}

bool WeightMatrix::empty() const {
  return std::visit([](const auto& matrix) { return matrix.empty(); }, form_);
}

int WeightMatrix::inputs() const { return bf16() != nullptr ? bf16()->inputs : int8()->inputs(); }

int WeightMatrix::outputs() const { return bf16() != nullptr ? bf16()->outputs : int8()->outputs(); }

double WeightMatrix::at(int input, int output) const {
  if (bf16() != nullptr) return WidenBf16(bf16()->values[static_cast<size_t>(input) * outputs() + output]);
  return static_cast<double>(int8()->scales()[output]) * int8()->value(input, output);
}

bool WeightMatrix::IsSound() const {
  if (int8() != nullptr) {
    return std::all_of(int8()->scales().begin(), int8()->scales().end(),
                       [](float scale) { return scale > 0 && std::isfinite(scale); });
  }
  return compressor::IsSound(*bf16());
}

void WeightMatrix::AddProduct(absl::Span<const int> used, const float* x, int columns, float unit, float* y) const {
  if (int8() != nullptr) return compressor::AddProduct(*int8(), used, x, columns, unit, y);
  if (unit == 1) return compressor::AddProduct(*bf16(), used, x, columns, y);
  std::vector<float> scaled(x, x + used.size() * columns);
  for (float& value : scaled) value *= unit;
  compressor::AddProduct(*bf16(), used, scaled.data(), columns, y);
}

}  // namespace quicksave::compressor
