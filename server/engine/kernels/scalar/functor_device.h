#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_FUNCTOR_DEVICE_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_FUNCTOR_DEVICE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <variant>

#include "server/engine/kernels/device.h"
#include "server/engine/kernels/scalar/attention.h"
#include "server/engine/kernels/scalar/products.h"
#include "server/engine/kernels/scalar/rows.h"

namespace quicksave::engine::scalar {

// All operations of a Device by the functors of this folder. `Target`, which derives from it (CRTP), says how a functor
// is called with each index of a range: in a loop, or as a kernel on a GPU. It has
//   template <class Functor> void ForEach(int64_t count, const Functor& functor);
// which may return early; calls take effect in their order.
template <class Target>
class FunctorDevice : public Device {
 public:
  void MatMul(const float* x, int rows, const Matrix& w, float* y) override {
    std::visit([&](const auto& matrix) { Multiply(x, rows, matrix, y); }, w);
  }

  void RmsNorm(const float* x, const float* weight, int rows, int width, float epsilon, float* y,
               cpu::Rounding rounding) override {
    NormaliseGroups(x, {rows, 1, width, width}, weight, epsilon, rounding, y);
  }
  void RmsNormInPlace(float* x, const cpu::Groups& groups, const float* weight, float epsilon) override {
    NormaliseGroups(x, groups, weight, epsilon, cpu::Rounding::kNone, x);
  }

  void Rope(float* x, int x_stride, int heads, int head_dim, const Batch& batch, const float* cos_sin) override {
    ForEach(int64_t{batch.rows} * heads * head_dim / 2,
            RotatePair{x, x_stride, heads, head_dim, batch.positions, cos_sin});
  }

  void SwiGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) override {
    ForEach(int64_t{rows} * width, Glu<false>{gate_up, width, rounding, y});
  }
  void GeGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) override {
    ForEach(int64_t{rows} * width, Glu<true>{gate_up, width, rounding, y});
  }

  void Add(float* x, const float* y, int rows, int width) override { ForEach(int64_t{rows} * width, AddElement{x, y}); }
  void AddBias(float* x, const float* bias, int rows, int width) override {
    ForEach(int64_t{rows} * width, AddBiasElement{x, bias, width});
  }
  void SoftCap(float* x, size_t count, float cap) override { ForEach(static_cast<int64_t>(count), CapElement{x, cap}); }
  void Gather(const float* x, const int32_t* rows, int count, int width, float* y) override {
    ForEach(int64_t{count} * width, GatherElement{x, rows, width, y});
  }

  void StoreKeyValues(const float* key_value, int stride, const Batch& batch, const cpu::HeadShape& shape,
                      const LayerOffsets& offsets) override {
    ForEach(int64_t{batch.rows} * shape.kv_heads * shape.head_dim,
            StoreKeyValue{key_value, stride, batch, shape, offsets});
  }

  void Attention(const float* query, int query_stride, const Batch& batch, const cpu::HeadShape& shape,
                 const LayerOffsets& offsets, const cpu::AttentionOptions& options, float* out,
                 int out_stride) override {
    const int most = options.window > 0 ? std::min(batch.longest, options.window + cpu::kPageTokens) : batch.longest;
    const int width = (most + cpu::kPageTokens - 1) / cpu::kPageTokens * cpu::kPageTokens;
    const auto floats_of_row = static_cast<int>(size_t(shape.query_heads) * (width + 2 * kSums));
    const int rows_at_once = std::clamp(kMostScratch / floats_of_row, 1, std::max(1, batch.rows));
    Reserve(scratch_, size_t(rows_at_once) * floats_of_row);
    for (int begin = 0; begin < batch.rows; begin += rows_at_once) {
      const int count = std::min(rows_at_once, batch.rows - begin);
      const int64_t vectors = int64_t{count} * shape.query_heads;
      float* scores = scratch_.data();
      float* maxima = scores + vectors * width;
      const AttentionRows rows{{count, batch.longest, batch.positions + begin, batch.pages + begin},
                               shape,
                               offsets,
                               options,
                               width,
                               scores,
                               maxima,
                               maxima + vectors * kSums};
      ForEach(vectors * width, Scores{rows, query + int64_t{begin} * query_stride, query_stride});
      ForEach(vectors * kSums, Maxima{rows});
      ForEach(vectors * kSums, Exponentials{rows});
      ForEach(vectors * shape.head_dim, WeightedValues{rows, out + int64_t{begin} * out_stride, out_stride});
    }
  }

 protected:
  explicit FunctorDevice(DeviceMemory& memory)
      : fixed_values_(memory), fixed_scales_(memory), group_scales_(memory), scratch_(memory) {}

 private:
  // Floats of scratch that attention takes, unless one row needs more: 64 MiB.
  static constexpr int kMostScratch = 1 << 24;

  template <class Functor>
  void ForEach(int64_t count, const Functor& functor) {
    static_cast<Target*>(this)->ForEach(count, functor);
  }

  void Multiply(const float* x, int rows, const cpu::PackedMatrix& w, float* y) {
    ForEach(int64_t{rows} * w.outputs(), Bf16Product{x, w.panel(0), w.padded_inputs(), w.outputs(), y});
  }
  void Multiply(const float* x, int rows, const cpu::Fp32Matrix& w, float* y) {
    ForEach(int64_t{rows} * w.outputs(), Fp32Product{x, w.panel(0), w.padded_inputs(), w.outputs(), y});
  }
  void Multiply(const float* x, int rows, const cpu::Int8Matrix& w, float* y) {
    const int stride = w.groups() * kGroup;
    Reserve(fixed_values_, size_t(rows) * stride);
    Reserve(fixed_scales_, size_t(rows) * w.groups());
    ForEach(int64_t{rows} * w.groups(), FixPoint{x, w.inputs(), stride, fixed_values_.data(), fixed_scales_.data()});
    ForEach(int64_t{rows} * w.outputs(),
            Int8Product{fixed_values_.data(), fixed_scales_.data(), w.panel(0), w.groups(), w.outputs(), y});
  }

  void NormaliseGroups(const float* x, const cpu::Groups& groups, const float* weight, float epsilon,
                       cpu::Rounding rounding, float* y) {
    const int64_t count = int64_t{groups.rows} * groups.count;
    Reserve(group_scales_, count);
    ForEach(count, GroupScale{x, groups, epsilon, group_scales_.data()});
    ForEach(count * groups.width, ScaleGroups{x, groups, group_scales_.data(), weight, rounding, y});
  }

  // Makes a buffer that operations may be using at least so large.
  template <class Value>
  void Reserve(DeviceBuffer<Value>& buffer, size_t size) {
    if (buffer.size() >= size) return;
    Wait();
    buffer.Grow(size);
  }

  DeviceBuffer<int16_t> fixed_values_;  // the inputs of an int8 product
  DeviceBuffer<float> fixed_scales_;
  DeviceBuffer<float> group_scales_;  // of RMSNorm
  DeviceBuffer<float> scratch_;       // of attention
};

}  // namespace quicksave::engine::scalar

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_FUNCTOR_DEVICE_H_
