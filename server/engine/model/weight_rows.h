#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_WEIGHT_ROWS_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_WEIGHT_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "server/engine/model/safetensors.h"

namespace quicksave::engine {

// Rows of a checkpoint's tensor, read as fp32 without loss. Valid while the tensor's SafetensorsModel lives.
class WeightRows {
 public:
  WeightRows() = default;
  // UNIMPLEMENTED for other types than BF16, F16 and F32. A tensor of one dimension is one row.
  static absl::StatusOr<WeightRows> Of(const TensorView& tensor);

  int rows() const { return rows_; }
  int width() const { return width_; }
  // Writes row `index` [width].
  void Read(int index, float* to) const;
  // The bits [rows, width], or null when they are not bf16.
  const uint16_t* bf16() const { return type_ == Type::kBf16 ? reinterpret_cast<const uint16_t*>(data_) : nullptr; }

 private:
  enum class Type { kBf16, kF16, kF32 };

  Type type_ = Type::kBf16;
  int rows_ = 0;
  int width_ = 0;
  const std::byte* data_ = nullptr;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_WEIGHT_ROWS_H_
