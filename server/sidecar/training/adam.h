#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_ADAM_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_ADAM_H_

// Torch's fused Adam over a list of parameters, with a state that can be kept. Included where Torch is.

#include <ATen/core/Tensor.h>

#include <istream>
#include <ostream>
#include <vector>

namespace quicksave::server {

// Kingma and Ba 2015 (arXiv:1412.6980), with its usual constants. One thread at a time.
class Adam {
 public:
  // Parameters are leaves that want gradients; they are changed in place.
  explicit Adam(std::vector<at::Tensor> parameters);

  // One step against the gradient of a scalar loss; parameters that the loss does not depend on stay.
  void Step(const at::Tensor& loss, double learning_rate);

  const std::vector<at::Tensor>& parameters() const { return parameters_; }

  // Writes parameters and moments, and reads them back bit for bit; false for another list's or damage.
  void Save(std::ostream& stream) const;
  bool Load(std::istream& stream);

 private:
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> first_;
  std::vector<at::Tensor> second_;
  std::vector<at::Tensor> steps_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_ADAM_H_
