#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_FP32_MATMUL_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_FP32_MATMUL_H_

#include <cstddef>

#include "server/engine/kernels/device_buffer.h"

namespace quicksave::engine::cpu {

// Weights [outputs, inputs] in fp32, repacked for MatMul in panels of 32 outputs: [panel][inputs][32]. Inputs are
// padded to a multiple of 32 and outputs to one of 32, with zeros.
class Fp32Matrix {
 public:
  static constexpr int kPanel = 32;

  Fp32Matrix() = default;
  // All weights are 0.
  Fp32Matrix(int outputs, int inputs, DeviceMemory& memory = HostMemory());

  // Sets the weights [inputs] of one output.
  void SetOutput(int output, const float* weights);

  int outputs() const { return outputs_; }
  int inputs() const { return inputs_; }
  int padded_inputs() const { return (inputs_ + 31) / 32 * 32; }
  int panels() const { return (outputs_ + kPanel - 1) / kPanel; }
  size_t bytes() const { return data_.size() * sizeof(float); }
  const float* panel(int index) const { return data_.data() + size_t(index) * kPanel * padded_inputs(); }

 private:
  int outputs_ = 0;
  int inputs_ = 0;
  DeviceBuffer<float> data_;
};

// As MatMul of a PackedMatrix (cpu_kernels.h), in the same order; x need not be bf16-representable, so that products
// round, too.
void MatMul(const float* x, int x_stride, int rows, const Fp32Matrix& w, int first_panel, int last_panel, float* y,
            int y_stride);

}  // namespace quicksave::engine::cpu

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_FP32_MATMUL_H_
