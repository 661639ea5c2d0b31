#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_CPU_DEVICE_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_CPU_DEVICE_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "server/engine/kernels/device.h"
#include "server/engine/kernels/thread_pool.h"

namespace quicksave::engine {

// The kernels of cpu_kernels.h on a few threads. Operations are done when they return.
class CpuDevice : public Device {
 public:
  // `threads` must outlive it. `memory` may be another device's.
  explicit CpuDevice(ThreadPool* threads, DeviceMemory& memory = HostMemory()) : threads_(threads), memory_(memory) {}

  std::string name() const override;
  DeviceMemory& memory() override { return memory_; }
  void Wait() override {}

  void MatMul(const float* x, int rows, const Matrix& w, float* y) override;
  void RmsNorm(const float* x, const float* weight, int rows, int width, float epsilon, float* y,
               cpu::Rounding rounding) override;
  void RmsNormInPlace(float* x, const cpu::Groups& groups, const float* weight, float epsilon) override;
  void Rope(float* x, int x_stride, int heads, int head_dim, const Batch& batch, const float* cos_sin) override;
  void SwiGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) override;
  void GeGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) override;
  void Add(float* x, const float* y, int rows, int width) override;
  void AddBias(float* x, const float* bias, int rows, int width) override;
  void SoftCap(float* x, size_t count, float cap) override;
  void Gather(const float* x, const int32_t* rows, int count, int width, float* y) override;
  void StoreKeyValues(const float* key_value, int stride, const Batch& batch, const cpu::HeadShape& shape,
                      const LayerOffsets& offsets) override;
  void Attention(const float* query, int query_stride, const Batch& batch, const cpu::HeadShape& shape,
                 const LayerOffsets& offsets, const cpu::AttentionOptions& options, float* out,
                 int out_stride) override;

 private:
  // A part of the attention: some rows of one sequence, for one KV head.
  struct AttentionItem {
    int begin;
    int end;
    int kv_head;
  };

  // Rows in as many parts as are worth a thread.
  void ForRows(int rows, absl::FunctionRef<void(int begin, int end)> work);
  void ListAttentionItems(const Batch& batch, int kv_heads);

  ThreadPool* const threads_;
  DeviceMemory& memory_;
  cpu::FixedPointRows fixed_;  // the inputs of an int8 product
  std::vector<AttentionItem> items_;
  std::vector<std::vector<float>> scratch_;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_CPU_DEVICE_H_
