#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_DEVICE_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_DEVICE_H_

// Where a decoder computes: the operations of a forward pass on whole batches, and memory for their operands.
//
// Whatever the device, each operation computes each output in the order that cpu_kernels.h and the headers of the
// products state, so all devices give the same bits, and a state that one has computed goes on with another.

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>

#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/kernels/device_buffer.h"
#include "server/engine/kernels/fp32_matmul.h"
#include "server/engine/kernels/int8_matmul.h"

namespace quicksave::engine {

// The weights of a product, in one of the formats.
using Matrix = std::variant<cpu::PackedMatrix, cpu::Int8Matrix, cpu::Fp32Matrix>;

// The rows of a forward pass: tokens of one or several sequences. Rows of a sequence are neighbours, in order.
struct Batch {
  int rows = 0;
  int longest = 0;                           // tokens of the longest sequence, those of its rows included
  const int32_t* positions = nullptr;        // [rows]
  std::byte* const* const* pages = nullptr;  // [rows], the pages of the row's sequence; one table a sequence
};

// Where a layer's keys and values stand in a page, in bytes from its base. Their layout is that of cpu::LayerPages.
struct LayerOffsets {
  size_t keys;
  size_t values;
};

// All pointers but those of Matrix are to memory(). Operations run in the order in which they are asked for, and may go
// on after the call returns: the host may look at, or change, what they use after Wait(). One thread at a time, with
// denormals flushed (cpu::ScopedFlushDenormals).
class Device {
 public:
  virtual ~Device() = default;

  // For people, for example "cpu avx-512".
  virtual std::string name() const = 0;
  virtual DeviceMemory& memory() = 0;
  // Returns when everything that was asked for is done.
  virtual void Wait() = 0;

  // y[rows, outputs] = x W^T, cpu::MatMul; x[rows, inputs padded with zeros to a multiple of 32].
  virtual void MatMul(const float* x, int rows, const Matrix& w, float* y) = 0;
  // The functions of cpu_kernels.h of the same names.
  virtual void RmsNorm(const float* x, const float* weight, int rows, int width, float epsilon, float* y,
                       cpu::Rounding rounding) = 0;
  virtual void RmsNormInPlace(float* x, const cpu::Groups& groups, const float* weight, float epsilon) = 0;
  virtual void Rope(float* x, int x_stride, int heads, int head_dim, const Batch& batch, const float* cos_sin) = 0;
  virtual void SwiGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) = 0;
  virtual void GeGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) = 0;
  virtual void Add(float* x, const float* y, int rows, int width) = 0;
  virtual void AddBias(float* x, const float* bias, int rows, int width) = 0;
  virtual void SoftCap(float* x, size_t count, float cap) = 0;
  // y[i, width] = x[rows[i], width] for `count` rows; x and y do not overlap.
  virtual void Gather(const float* x, const int32_t* rows, int count, int width, float* y) = 0;
  // Writes each row's keys and values, fp32 [kv_heads, head_dim] each and side by side in key_value[rows, stride], to
  // its slot of its page.
  virtual void StoreKeyValues(const float* key_value, int stride, const Batch& batch, const cpu::HeadShape& shape,
                              const LayerOffsets& offsets) = 0;
  // cpu::Attention of all rows and heads. query[rows, query_stride] and out[rows, out_stride], heads side by side.
  virtual void Attention(const float* query, int query_stride, const Batch& batch, const cpu::HeadShape& shape,
                         const LayerOffsets& offsets, const cpu::AttentionOptions& options, float* out,
                         int out_stride) = 0;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_DEVICE_H_
