#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_TENSOR_FILE_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_TENSOR_FILE_H_

// Torch's tensors as this project's data, and in checkpoints. Included where Torch is, and nowhere else.

#include <ATen/core/Tensor.h>

#include <istream>
#include <ostream>
#include <vector>

#include "compressor/latent/panel_product.h"

namespace quicksave::server {

// fp32 values in order.
std::vector<float> FloatsOf(const at::Tensor& x);
// [inputs, outputs], rounded to bf16.
compressor::Bf16Matrix Bf16Of(const at::Tensor& x);
// The values as a tensor that does not own them.
at::Tensor ViewOf(const std::vector<float>& values, at::IntArrayRef shape);

// Writes the values of a contiguous tensor with their digest, and reads them into one of the same size; false for a
// stream that has another or is damaged.
void SaveTensor(std::ostream& stream, const at::Tensor& x);
bool LoadTensor(std::istream& stream, const at::Tensor& x);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_TENSOR_FILE_H_
