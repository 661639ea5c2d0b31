#include "server/sidecar/training/bridge.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "server/sidecar/training/adam.h"
#include "server/sidecar/training/tensor_file.h"

namespace quicksave::server {
namespace {

constexpr double kLastRate = 0.01;

at::Tensor RowsOf(absl::Span<const float> rows, int64_t width) {
  // from_blob takes a mutable pointer, but the tensor is only read.
  return at::from_blob(const_cast<float*>(rows.data()), {static_cast<int64_t>(rows.size()) / width, width}, at::kFloat);
}

}  // namespace

std::string_view NameOf(BridgeLoss loss) {
  switch (loss) {
    case BridgeLoss::kSquared:
      return "mse";
    case BridgeLoss::kSquaredAndCosine:
      return "mse+cosine";
    case BridgeLoss::kProgressive:
      return "progressive";
  }
  return "";
}

std::vector<float> Bridge::Restore(absl::Span<const float> rows) const {
  const auto width = static_cast<int64_t>(mean.size());
  const at::Tensor middle = ViewOf(mean, {width});
  const at::Tensor latent = RowsOf(rows, width).sub(middle).matmul(ViewOf(down, {width, rank}));
  return FloatsOf(latent.matmul(ViewOf(up, {rank, width})).add(middle));
}

Bridge PrincipalBridge(const std::vector<float>& rows, int width, int rank) {
  const at::Tensor x = RowsOf(rows, width).to(at::kDouble);
  const at::Tensor mean = x.mean(0);
  const at::Tensor centred = x.sub(mean);
  const auto [values, vectors] = at::linalg_eigh(centred.t().matmul(centred));
  const at::Tensor directions = vectors.flip(1).slice(1, 0, rank);
  return {.rank = rank, .mean = FloatsOf(mean), .down = FloatsOf(directions), .up = FloatsOf(directions.t())};
}

Bridge TrainBridge(const std::vector<float>& rows, int width, const BridgeOptions& options) {
  const at::Tensor x = RowsOf(rows, width);
  const at::Tensor mean = x.mean(0);
  const double variance = x.sub(mean).square().sum().item<double>() / static_cast<double>(x.size(0));
  // In units in which the weights of about 1 / sqrt(width) fit.
  const double unit = std::sqrt(variance / width);
  const at::Generator random = at::detail::createCPUGenerator(options.seed);
  const double deviation = 1 / std::sqrt(static_cast<double>(width));
  const at::Tensor down = at::randn({width, options.rank}, random).mul(deviation).set_requires_grad(true);
  const at::Tensor up = at::randn({options.rank, width}, random).mul(deviation).set_requires_grad(true);
  Adam adam({down, up});
  const int64_t batch = std::min<int64_t>(options.batch, x.size(0));
  const int64_t steps_of_epoch = x.size(0) / batch;
  const int64_t steps = steps_of_epoch * options.epochs;
  at::Tensor order;
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t place = step % steps_of_epoch;
    if (place == 0) order = at::randperm(x.size(0), random, at::kLong);
    const at::Tensor h = x.index_select(0, order.slice(0, place * batch, (place + 1) * batch));
    const at::Tensor centred = h.sub(mean).div(unit);
    const at::Tensor restored = centred.matmul(down).matmul(up);
    at::Tensor loss = restored.sub(centred).square().sum(1).mean().div(width);
    const double done = static_cast<double>(step) / static_cast<double>(steps);
    const bool cosine =
        options.loss == BridgeLoss::kSquaredAndCosine || (options.loss == BridgeLoss::kProgressive && done >= 0.5);
    if (cosine) {
      const at::Tensor whole = restored.mul(unit).add(mean);
      const at::Tensor lengths = h.square().sum(1).mul(whole.square().sum(1)).add(1e-12).sqrt();
      loss = loss.add(h.mul(whole).sum(1).div(lengths).neg().add(1).mean());
    }
    const double falling = (1 + std::cos(std::numbers::pi * done)) / 2;
    adam.Step(loss, options.learning_rate * (kLastRate + (1 - kLastRate) * falling));
  }
  return {.rank = options.rank, .mean = FloatsOf(mean), .down = FloatsOf(down), .up = FloatsOf(up)};
}

}  // namespace quicksave::server
