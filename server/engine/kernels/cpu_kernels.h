#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_CPU_KERNELS_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_CPU_KERNELS_H_

// The arithmetic of the CPU decoder: plain functions on plain pointers, one thread each.
//
// Every function computes a row's result from that row alone, in an order of operations that depends neither on the
// other rows of the call, nor on the split of the work between threads, nor on the vector width. So K, V and logits are
// a pure function of the token ids: prefill, decode and any batch give the same bits, on AVX2 and on AVX-512.
// docs/engine.md explains why; the orders are stated at each function. Changing one of them changes kNumericsVersion.
//
// All functions are thread-safe (they keep no state) and need denormals flushed, see ScopedFlushDenormals.
// Sources of the operations: RMSNorm, Zhang and Sennrich 2019; RoPE, Su et al. 2021; SwiGLU and GEGLU, Shazeer 2020;
// attention with grouped queries, Ainslie et al. 2023; windows, Beltagy et al. 2020; soft caps, Gemma 2 (2024); paged
// KV, Kwon et al. 2023.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "server/engine/kernels/device_buffer.h"
#include "server/engine/kernels/portable.h"

namespace quicksave::engine::cpu {

// Part of the model fingerprint: states computed by different versions are never mixed.
inline constexpr char kNumericsVersion[] = "bf16-e1o1-32";

// Tokens of a KV page. The attention kernel works on one page's keys at a time.
inline constexpr int kPageTokens = 16;

// Whether this CPU has the instructions that the kernels were compiled for (x86: AVX2 and FMA).
bool IsSupported();

// Name of the instruction set in use, for example "AVX3".
std::string InstructionSet();

// Sets flush-to-zero and denormals-are-zero for the calling thread while it lives.
class ScopedFlushDenormals {
 public:
  ScopedFlushDenormals();
  ~ScopedFlushDenormals();
  ScopedFlushDenormals(const ScopedFlushDenormals&) = delete;
  ScopedFlushDenormals& operator=(const ScopedFlushDenormals&) = delete;

 private:
  unsigned saved_;
};

// A bf16 weight matrix [outputs, inputs] repacked for MatMul: panels of 32 outputs, pairs of inputs side by side:
// [panel][inputs / 2][32][2]. Inputs are padded to a multiple of 32 and outputs to one of 32, with zeros.
class PackedMatrix {
 public:
  static constexpr int kPanel = 32;

  PackedMatrix() = default;
  // `weights` is row-major [outputs, inputs], bf16 bits.
  PackedMatrix(const uint16_t* weights, int outputs, int inputs, DeviceMemory& memory = HostMemory());

  int outputs() const { return outputs_; }
  int inputs() const { return inputs_; }
  int padded_inputs() const { return padded_inputs_; }
  int panels() const { return (outputs_ + kPanel - 1) / kPanel; }
  size_t bytes() const { return data_.size() * sizeof(uint16_t); }
  const uint16_t* panel(int index) const { return data_.data() + size_t(index) * kPanel * padded_inputs_; }

 private:
  int outputs_ = 0;
  int inputs_ = 0;
  int padded_inputs_ = 0;
  DeviceBuffer<uint16_t> data_;
};

// y[rows, outputs] = x[rows, inputs] * W^T for the outputs of panels [first_panel, last_panel).
// x: fp32 whose values are bf16-representable, `x_stride` floats apart, padded with zeros to W.padded_inputs(). y:
// fp32. Order, the one of the AMX instruction TDPBF16PS: inputs in groups of 32; within a group the even and the odd
// inputs are summed apart, in order, by fused multiply-add from zero; then y += even + odd.
void MatMul(const float* x, int x_stride, int rows, const PackedMatrix& w, int first_panel, int last_panel, float* y,
            int y_stride);

// How a result that a product takes is rounded. It stays an fp32 number.
enum class Rounding { kBf16, kNone };

// y[i] = rounded(x[i] / sqrt(mean(x^2) + epsilon)) * ... : normalises each row of x[rows, width] and scales by
// weight[width], then rounds. The squares are summed in 16 interleaved partial sums, added pairwise.
void RmsNorm(const float* x, const float* weight, int rows, int width, float epsilon, float* y, Rounding rounding);

// Normalises each group of `width` elements in x[rows, x_stride] in place and scales it by weight[width]: as RmsNorm,
// but not rounded. For the heads of queries and keys, and for what a layer adds to the residual stream.
struct Groups {
  int rows;
  int count;     // groups in a row, side by side from its begin
  int width;     // a multiple of 16
  int x_stride;  // floats from row to row
};
void RmsNormInPlace(float* x, const Groups& groups, const float* weight, float epsilon);

// Rotates each head of `heads` in x[rows, x_stride] by its row's position: halves (i, i + head_dim / 2) with the
// angles' cosines and sines cos_sin[position][2][head_dim / 2]. head_dim is a multiple of 16.
void Rope(float* x, int x_stride, int rows, int heads, int head_dim, const int32_t* positions, const float* cos_sin);

// y[rows, width] = rounded(silu(gate) * up); gate_up[rows, 2 * width] holds gate, then up.
void SwiGlu(const float* gate_up, int rows, int width, float* y, Rounding rounding = Rounding::kBf16);

// The same with gelu in its approximation by tanh (Hendrycks and Gimpel 2016) instead of silu.
void GeGlu(const float* gate_up, int rows, int width, float* y, Rounding rounding = Rounding::kBf16);

// x[i] += y[i].
void Add(float* x, const float* y, size_t count);

// Adds bias[width] to each row of x[rows, width].
void AddBias(float* x, const float* bias, int rows, int width);

// x[i] = cap * tanh(x[i] / cap).
void SoftCap(float* x, size_t count, float cap);

// x[i] = x[i] rounded to bf16, to nearest even.
void RoundToBf16(float* x, size_t count);

// Bits of a float rounded to bf16, to nearest even. NaN stays NaN.
QUICKSAVE_PORTABLE inline uint16_t Bf16Bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
QUICKSAVE_PORTABLE inline float Bf16ToFloat(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof(value));
  return value;
}

// Where one layer's keys and values stand within a page. bf16.
//   keys   [kv_heads][head_dim][kPageTokens]   (token is the fastest index)
//   values [kv_heads][kPageTokens][head_dim]
struct LayerPages {
  const std::byte* const* pages;  // base address of each page of the sequence
  size_t key_offset;              // from a page's base to this layer's keys, in bytes
  size_t value_offset;            // from a page's base to this layer's values, in bytes
};

// The heads of a model.
struct HeadShape {
  int query_heads;
  int kv_heads;
  int head_dim;  // a multiple of 16, at most 256
};

// Writes the bf16 bits of one token's keys and values (fp32 [kv_heads, head_dim] each) to its slot of a page.
void StoreKeyValue(const float* key, const float* value, const HeadShape& shape, int slot, std::byte* page_keys,
                   std::byte* page_values);

// How a layer attends.
struct AttentionOptions {
  float scale;                          // of the products of queries and keys
  int window = 0;                       // a token attends to this many tokens, the last of them itself; 0: to all
  float soft_cap = 0;                   // scaled scores s become cap * tanh(s / cap); 0: they do not
  Rounding rounding = Rounding::kBf16;  // of the result
};

// Floats of scratch that Attention needs for a sequence of `length` tokens.
size_t AttentionScratchSize(int length);

// Causal attention of `rows` consecutive tokens, the first at `first_position`, for one KV head and its group of query
// heads. query: fp32 [rows, stride], heads side by side; out the same shape, rounded. The pages hold keys and
// values of all positions up to the last row's; those of pages before the first row's window are not read. Scores are
// summed over head_dim in order by fused multiply-add; the softmax's denominator in 16 interleaved partial sums (by
// position modulo 16), added pairwise; values over positions in order by fused multiply-add. What a row does not see
// has weight 0, which changes no sum: so the result does not depend on the rows that share a call.
void Attention(const float* query, int query_stride, int rows, int first_position, const LayerPages& kv,
               const HeadShape& shape, int kv_head, const AttentionOptions& options, float* scratch, float* out,
               int out_stride);

}  // namespace quicksave::engine::cpu

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_CPU_KERNELS_H_
