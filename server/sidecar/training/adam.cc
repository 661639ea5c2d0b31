#include "server/sidecar/training/adam.h"

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "server/sidecar/training/tensor_file.h"

namespace quicksave::server {
namespace {

constexpr double kFirstDecay = 0.9;
constexpr double kSecondDecay = 0.999;
constexpr double kEpsilon = 1e-8;

}  // namespace

Adam::Adam(std::vector<at::Tensor> parameters) : parameters_(std::move(parameters)) {
  for (const at::Tensor& parameter : parameters_) {
    first_.push_back(at::zeros_like(parameter));
    second_.push_back(at::zeros_like(parameter));
    steps_.push_back(at::zeros({}, at::kFloat));
  }
}

void Adam::Step(const at::Tensor& loss, double learning_rate) {
  std::vector<at::Tensor> gradients = torch::autograd::grad({loss}, parameters_, {}, std::nullopt,
                                                            /*create_graph=*/false, /*allow_unused=*/true);
  std::vector<at::Tensor> used[4];
  std::vector<at::Tensor> with_gradient;
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].defined()) continue;
    with_gradient.push_back(gradients[i].contiguous());
    used[0].push_back(parameters_[i].detach());
    used[1].push_back(first_[i]);
    used[2].push_back(second_[i]);
    used[3].push_back(steps_[i].add_(1));
  }
  const c10::NoGradGuard no_gradients;
  at::_fused_adam_(used[0], with_gradient, used[1], used[2], {}, used[3], learning_rate, kFirstDecay, kSecondDecay,
                   /*weight_decay=*/0, kEpsilon, /*amsgrad=*/false, /*maximize=*/false);
}

void Adam::Save(std::ostream& stream) const {
  for (const auto* list : {&parameters_, &first_, &second_, &steps_}) {
    for (const at::Tensor& tensor : *list) SaveTensor(stream, tensor);
  }
}

bool Adam::Load(std::istream& stream) {
  for (const auto* list : {&parameters_, &first_, &second_, &steps_}) {
    for (const at::Tensor& tensor : *list) {
      if (!LoadTensor(stream, tensor)) return false;
    }
  }
  return true;
}

}  // namespace quicksave::server
