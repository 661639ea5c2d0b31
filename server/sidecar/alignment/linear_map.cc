#include "server/sidecar/alignment/linear_map.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace quicksave::server {
namespace {

at::Tensor View(const float* data, size_t rows, size_t columns) {
  // from_blob takes a mutable pointer, but the tensor is only read.
  return at::from_blob(const_cast<float*>(data), {static_cast<int64_t>(rows), static_cast<int64_t>(columns)},
                       at::kFloat);
}

std::vector<float> ToVector(const at::Tensor& x) {
  const at::Tensor flat = x.to(at::kFloat).contiguous();
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

}  // namespace

LinearMap LinearMap::Fit(const metrics::Rows& x, const metrics::Rows& y, double ridge) {
  const at::Tensor mean = View(x.values.data(), x.count(), x.width).mean(0, /*keepdim=*/true, at::kDouble);
  const at::Tensor offset = View(y.values.data(), y.count(), y.width).mean(0, /*keepdim=*/true, at::kDouble);
  const auto width = static_cast<int64_t>(x.width);
  at::Tensor products = at::zeros({width, width}, at::kDouble);
  at::Tensor cross = at::zeros({width, static_cast<int64_t>(y.width)}, at::kDouble);
  // Some rows at a time: copies in double are large.
  constexpr size_t kRows = 4096;
  for (size_t first = 0; first < x.count(); first += kRows) {
    const size_t rows = std::min(kRows, x.count() - first);
    const at::Tensor inputs = View(x.values.data() + first * x.width, rows, x.width).to(at::kDouble).sub(mean);
    const at::Tensor outputs = View(y.values.data() + first * y.width, rows, y.width).to(at::kDouble).sub(offset);
    products.addmm_(inputs.t(), inputs);
    cross.addmm_(inputs.t(), outputs);
  }
  const double unit = std::max(products.diagonal().mean().item<double>(), 1e-30);
  products.diagonal().add_(ridge * unit);
  LinearMap map;
  map.mean_ = ToVector(mean);
  map.offset_ = ToVector(offset);
  map.weights_ = ToVector(at::linalg_solve(products, cross));
  return map;
}

std::vector<float> LinearMap::Apply(const metrics::Rows& x) const {
  const at::Tensor centred = View(x.values.data(), x.count(), x.width).sub(View(mean_.data(), 1, mean_.size()));
  return ToVector(
      centred.matmul(View(weights_.data(), mean_.size(), offset_.size())).add(View(offset_.data(), 1, offset_.size())));
}

}  // namespace quicksave::server
