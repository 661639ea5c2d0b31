#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_INT8_MATMUL_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_INT8_MATMUL_H_

// Products with weights of 8 bits: y = x W^T, where each 32 inputs of an output share a scale. Inputs become 16-bit
// integers that share a power of two, so the sum of a group is an integer and exact in any order; only the sum over
// the groups rounds, in one order. See cpu_kernels.h for what all kernels promise.
//
//   Int8Matrix w(outputs, inputs);
//   for (int i = 0; i < outputs; ++i) w.SetOutput(i, row(i));
//   FixedPointRows x;
//   x.Resize(rows, inputs);
//   FixPoint(values, stride, 0, rows, x);
//   MatMul(x, w, 0, w.panels(), y, outputs);

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/engine/kernels/device_buffer.h"

namespace quicksave::engine::cpu {

// Weights [outputs, inputs] in 8 bits, symmetric: w = q * scale with q in [-127, 127], scale = the group's largest
// magnitude / 127, rounded to bf16. Repacked for MatMul in panels of 32 outputs, group after group: bf16 scales [32],
// then pairs of inputs side by side [kGroup / 2][32][2]. Padded with zeros.
class Int8Matrix {
 public:
  static constexpr int kPanel = 32;
  static constexpr int kGroup = 32;

  Int8Matrix() = default;
  // All weights are 0.
  Int8Matrix(int outputs, int inputs, DeviceMemory& memory = HostMemory());

  // Quantises the weights [inputs] of one output. They are finite.
  void SetOutput(int output, const float* weights);
  // What the weights [inputs] of an output have become.
  std::vector<float> Output(int output) const;

  int outputs() const { return outputs_; }
  int inputs() const { return inputs_; }
  int groups() const { return (inputs_ + kGroup - 1) / kGroup; }
  int panels() const { return (outputs_ + kPanel - 1) / kPanel; }
  size_t bytes() const { return data_.size(); }
  const int8_t* panel(int index) const { return data_.data() + size_t(index) * groups() * kGroupBytes; }

  static constexpr size_t kScaleBytes = kPanel * sizeof(uint16_t);
  static constexpr size_t kGroupBytes = kScaleBytes + size_t{kGroup} * kPanel;

 private:
  int outputs_ = 0;
  int inputs_ = 0;
  DeviceBuffer<int8_t> data_;
};

// Rows of inputs as 16-bit integers: x = q * scale, a scale for each kGroup inputs of a row. The scale is the power of
// two with which the group's largest magnitude is in [2^14, 2^15): bf16 values down to 1/128 of it are exact.
struct FixedPointRows {
  int rows = 0;
  int inputs = 0;
  std::vector<int16_t> values;  // [rows, stride()], zeros from `inputs`
  std::vector<float> scales;    // [rows, groups()]

  // Keeps what memory it has. What was in it is lost.
  void Resize(int new_rows, int new_inputs);
  int groups() const { return (inputs + Int8Matrix::kGroup - 1) / Int8Matrix::kGroup; }
  int stride() const { return groups() * Int8Matrix::kGroup; }
};

// Fills rows [begin, end) of `to` from x, fp32, `x_stride` floats apart. to.inputs is a multiple of 16.
void FixPoint(const float* x, int x_stride, int begin, int end, FixedPointRows& to);

// y[rows, outputs] = x * W^T for the outputs of panels [first_panel, last_panel). Order: group after group from zero,
// y = fused multiply-add of the group's exact integer sum, rounded to fp32, with the product of the two scales.
void MatMul(const FixedPointRows& x, const Int8Matrix& w, int first_panel, int last_panel, float* y, int y_stride);

}  // namespace quicksave::engine::cpu

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_INT8_MATMUL_H_
