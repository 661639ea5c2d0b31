#include "server/sidecar/training/tensor_file.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "compressor/block.h"

namespace quicksave::server {

std::vector<float> FloatsOf(const at::Tensor& x) {
  const at::Tensor flat = x.detach().to(at::kFloat).contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

compressor::Bf16Matrix Bf16Of(const at::Tensor& x) {
  const std::vector<float> values = FloatsOf(x);
  compressor::Bf16Matrix matrix{.inputs = static_cast<int>(x.size(0)), .outputs = static_cast<int>(x.size(1))};
  matrix.values.resize(values.size());
  std::transform(values.begin(), values.end(), matrix.values.begin(), compressor::NarrowToBf16);
  return matrix;
}

at::Tensor ViewOf(const std::vector<float>& values, at::IntArrayRef shape) {
  // from_blob takes a mutable pointer, but the tensor is only read.
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat);
}

void SaveTensor(std::ostream& stream, const at::Tensor& x) {
  const std::string_view bytes(static_cast<const char*>(x.const_data_ptr()), x.nbytes());
  stream << bytes << compressor::ComputeDigest(bytes).ToBytes();
}

bool LoadTensor(std::istream& stream, const at::Tensor& x) {
  auto* data = static_cast<char*>(x.mutable_data_ptr());
  std::string digest(compressor::Digest128().ToBytes().size(), '\0');
  stream.read(data, static_cast<std::streamsize>(x.nbytes()));
  stream.read(digest.data(), static_cast<std::streamsize>(digest.size()));
  return stream.good() && compressor::ComputeDigest({data, x.nbytes()}).ToBytes() == digest;
}

}  // namespace quicksave::server
