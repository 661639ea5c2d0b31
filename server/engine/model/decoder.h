#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_DECODER_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_DECODER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/kernels/fp32_matmul.h"
#include "server/engine/kernels/int8_matmul.h"
#include "server/engine/kernels/thread_pool.h"
#include "server/engine/model/model_config.h"
#include "server/engine/model/safetensors.h"
#include "server/engine/model/weight_format.h"
#include "server/engine/model/weight_rows.h"
#include "server/engine/page_pool.h"

namespace quicksave::engine {

// Which rows of a slice need logits.
enum class LogitsWanted { kNone, kLast, kAll };

// Where hidden states of a slice's tokens go. Nothing is captured where `rows` is empty.
struct SliceTaps {
  absl::Span<const int> layers;        // as in TapSpec
  absl::Span<float* const> rows = {};  // for each token [layers, hidden_size], or null
};

// One sequence's part of a forward pass: consecutive tokens, one while decoding, many while prefilling. The decoder
// does not tell them apart.
struct Slice {
  absl::Span<const int32_t> tokens;
  int first_position = 0;              // tokens before these are in the pages already
  absl::Span<std::byte* const> pages;  // of the whole sequence; the new tokens' slots are written
  LogitsWanted logits = LogitsWanted::kLast;
  SliceTaps taps = {};
  // Set, below the model's layers: the slice leaves the pass when layer `split` has made its K and V. So K and V of the
  // layers up to `split` are written, hidden states of the layers up to `split` are captured, all with the bits of a
  // whole pass; the rest stays as it is, and there are no logits.
  std::optional<int> split = {};
};

// The frozen model: a decoder-only transformer with weights in one of three formats and bf16 KV, fp32 elsewhere. What
// ModelConfig says is all that it knows of the model's family. One thread at a time.
//
// K, V, logits and hidden states of a row are a pure function of the tokens up to it: not of the batch, the chunks, the
// pages or the number of threads.
class Decoder {
 public:
  // Loads a Hugging Face directory. Errors are those of LoadModelConfig and SafetensorsModel, and UNIMPLEMENTED for
  // weights that `format` cannot be made from (bf16: only from bf16), tensors that have no place in the model (naming
  // the first), or a CPU without AVX2; INVALID_ARGUMENT for weights to quantise that are not finite. `threads` must
  // outlive the decoder.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const std::string& model_dir, ThreadPool* threads,
                                                       WeightFormat format = WeightFormat::kBf16);

  const ModelConfig& config() const { return config_; }
  WeightFormat weight_format() const { return format_; }
  // Memory of the weights that each forward pass reads: those of products, the head among them.
  size_t weight_bytes() const;
  KvShape kv_shape() const { return {config_.layers, config_.kv_heads, config_.head_dim}; }

  // Writes K and V of all slices' tokens into their pages, and the hidden states where slices want them. Returns the
  // logits of the wanted rows, in order: [wanted rows, vocab_size]. Slices with a split come last, the smallest split
  // at the end. Tokens are ids of the vocabulary, positions below context_length: the caller has checked them.
  absl::Span<const float> Forward(absl::Span<const Slice> slices);

 private:
  // y = W x + bias.
  struct Linear {
    std::variant<cpu::PackedMatrix, cpu::Int8Matrix, cpu::Fp32Matrix> weights;
    std::vector<float> bias;  // [outputs], or empty
  };
  // Norms that the model does not have are empty.
  struct Layer {
    int index;
    LayerOptions options;
    std::vector<float> attention_norm;        // [hidden]
    Linear query_key_value;                   // [query_width + 2 * kv_width, hidden]
    std::vector<float> query_norm;            // [head_dim]
    std::vector<float> key_norm;              // [head_dim]
    Linear attention_out;                     // [hidden, query_width]
    std::vector<float> after_attention_norm;  // [hidden]
    std::vector<float> mlp_norm;              // [hidden]
    Linear gate_up;                           // [2 * intermediate, hidden]
    Linear down;                              // [hidden, intermediate]
    std::vector<float> after_mlp_norm;        // [hidden]
  };
  class Loader;
  // A part of one slice's attention: some of its rows, for one KV head.
  struct AttentionItem {
    const Slice* slice;
    int first_row;  // of the slice, in the batch
    int begin;      // rows of the slice
    int end;
    int kv_head;
  };

  Decoder(ModelConfig config, ThreadPool* threads, WeightFormat format)
      : config_(std::move(config)), threads_(threads), format_(format) {}
  void Prepare(absl::Span<const Slice> slices);
  void Embed(absl::Span<const Slice> slices);
  void RotateQueriesAndKeys(const Layer& layer);
  void StoreKeysAndValues(absl::Span<const Slice> slices, const Layer& layer);
  // Takes the slices that have their split at this layer out of the pass; returns the others.
  absl::Span<const Slice> WithoutSplitAt(const Layer& layer, absl::Span<const Slice> slices);
  void Attend(const Layer& layer);
  // Gives the slices the hidden states after so many layers, when some slice wants hidden states.
  void Capture(absl::Span<const Slice> slices, int layers_done);
  void Apply(const Linear& linear, const std::vector<float>& x, int rows, std::vector<float>& y);
  void Normalise(int rows, const std::vector<float>& weight);
  void Activate();
  void AddToResidual(const std::vector<float>& norm);
  void ForRows(int rows, absl::FunctionRef<void(int begin, int end)> work);
  absl::Span<const float> Head(absl::Span<const Slice> slices);

  ModelConfig config_;
  ThreadPool* threads_;
  const WeightFormat format_;
  std::unique_ptr<SafetensorsModel> weights_;
  WeightRows embedding_;  // [vocab, hidden]
  std::vector<Layer> layers_;
  std::vector<float> final_norm_;
  Linear head_;
  std::vector<std::vector<float>> ropes_;  // a table for each of ModelConfig::ropes

  // Floats from row to row of a product's inputs: padded with zeros as products want it.
  static int InputStride(int inputs) { return (inputs + 31) / 32 * 32; }
  int attended_stride() const { return InputStride(config_.query_width()); }
  // Int8 products have inputs of 16 bits, which lose less when they are not rounded to bf16 first.
  cpu::Rounding rounding() const {
    return format_ == WeightFormat::kBf16 ? cpu::Rounding::kBf16 : cpu::Rounding::kNone;
  }

  // One forward pass's activations, kept so that a step allocates nothing. All fp32, [rows, width].
  int rows_ = 0;
  bool tapped_ = false;  // some slice wants hidden states
  std::vector<int32_t> positions_;
  std::vector<float> residual_;
  std::vector<float> normal_;  // of the residual stream
  std::vector<float> query_key_value_;
  std::vector<float> attended_;
  std::vector<float> gate_up_;
  std::vector<float> activated_;
  std::vector<float> product_;  // what is to be added to the residual stream
  cpu::FixedPointRows fixed_;   // the inputs of an int8 product
  std::vector<AttentionItem> items_;
  std::vector<std::vector<float>> scratch_;
  std::vector<float> logits_;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_DECODER_H_
