#include "server/engine/model/weight_rows.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/engine/kernels/cpu_kernels.h"

namespace quicksave::engine {
namespace {

// IEEE 754 binary16, denormals too.
float HalfToFloat(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000U} << 16;
  const uint32_t exponent = bits >> 10 & 0x1fU;
  const uint32_t mantissa = bits & 0x3ffU;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -value : value;
  }
  const uint32_t wide_exponent = exponent == 31 ? 255 : exponent + 112;
  const uint32_t wide = sign | wide_exponent << 23 | mantissa << 13;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

}  // namespace

absl::StatusOr<WeightRows> WeightRows::Of(const TensorView& tensor) {
  WeightRows rows;
  if (tensor.dtype == "BF16") {
    rows.type_ = Type::kBf16;
  } else if (tensor.dtype == "F16") {
    rows.type_ = Type::kF16;
  } else if (tensor.dtype == "F32") {
    rows.type_ = Type::kF32;
  } else {
    return absl::UnimplementedError(absl::StrCat("it is ", tensor.dtype, ", not BF16, F16 or F32"));
  }
  rows.rows_ = tensor.shape.size() < 2 ? 1 : static_cast<int>(tensor.shape[0]);
  rows.width_ = tensor.shape.empty() ? 1 : static_cast<int>(tensor.shape.back());
  rows.data_ = tensor.data.data();
  return rows;
}

void WeightRows::Read(int index, float* to) const {
  const size_t first = size_t(index) * width_;
  if (type_ == Type::kF32) {
    std::memcpy(to, data_ + first * sizeof(float), width_ * sizeof(float));
    return;
  }
  const auto* bits = reinterpret_cast<const uint16_t*>(data_) + first;
  for (int i = 0; i < width_; ++i) to[i] = type_ == Type::kBf16 ? cpu::Bf16ToFloat(bits[i]) : HalfToFloat(bits[i]);
}

}  // namespace quicksave::engine
