#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_DECODER_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_DECODER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/kernels/device.h"
#include "server/engine/kernels/device_buffer.h"
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
// ModelConfig says is all that it knows of the model's family, what Device says all of where it runs. One thread at a
// time.
//
// K, V, logits and hidden states of a row are a pure function of the tokens up to it: not of the batch, the chunks, the
// pages, the number of threads or the device.
class Decoder {
 public:
  // Loads a Hugging Face directory. Errors are those of LoadModelConfig and SafetensorsModel, and UNIMPLEMENTED for
  // weights that `format` cannot be made from (bf16: only from bf16), tensors that have no place in the model (naming
  // the first), or a CPU without AVX2; INVALID_ARGUMENT for weights to quantise that are not finite;
  // RESOURCE_EXHAUSTED when the device's memory does not hold the weights. `threads` load the weights.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const std::string& model_dir, std::unique_ptr<Device> device,
                                                       ThreadPool* threads, WeightFormat format);
  // On the CPU, with these threads, which must outlive the decoder.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const std::string& model_dir, ThreadPool* threads,
                                                       WeightFormat format = WeightFormat::kBf16);

  const ModelConfig& config() const { return config_; }
  WeightFormat weight_format() const { return format_; }
  Device& device() const { return *device_; }
  // Goes on with another device of the same memory; returns the one before.
  std::unique_ptr<Device> ExchangeDevice(std::unique_ptr<Device> device) {
    return std::exchange(device_, std::move(device));
  }
  // Memory of the weights that each forward pass reads: those of products, the head among them.
  size_t weight_bytes() const;
  KvShape kv_shape() const { return {config_.layers, config_.kv_heads, config_.head_dim}; }

  // Writes K and V of all slices' tokens into their pages, which are in the device's memory, and the hidden states
  // where slices want them. Returns the logits of the wanted rows, in order: [wanted rows, vocab_size]. Slices with a
  // split come last, the smallest split at the end. Tokens are ids of the vocabulary, positions below context_length:
  // the caller has checked them.
  absl::Span<const float> Forward(absl::Span<const Slice> slices);

 private:
  // y = W x + bias.
  struct Linear {
    Matrix weights;
    DeviceBuffer<float> bias;  // [outputs], or empty

    int outputs() const {
      return std::visit([](const auto& matrix) { return matrix.outputs(); }, weights);
    }
  };
  // Norms that the model does not have are empty.
  struct Layer {
    int index;
    LayerOptions options;
    DeviceBuffer<float> attention_norm;        // [hidden]
    Linear query_key_value;                    // [query_width + 2 * kv_width, hidden]
    DeviceBuffer<float> query_norm;            // [head_dim]
    DeviceBuffer<float> key_norm;              // [head_dim]
    Linear attention_out;                      // [hidden, query_width]
    DeviceBuffer<float> after_attention_norm;  // [hidden]
    DeviceBuffer<float> mlp_norm;              // [hidden]
    Linear gate_up;                            // [2 * intermediate, hidden]
    Linear down;                               // [hidden, intermediate]
    DeviceBuffer<float> after_mlp_norm;        // [hidden]
  };
  class Loader;

  Decoder(ModelConfig config, std::unique_ptr<Device> device, WeightFormat format)
      : config_(std::move(config)), device_(std::move(device)), format_(format) {}
  void Prepare(absl::Span<const Slice> slices);
  void Embed(absl::Span<const Slice> slices);
  void RotateQueriesAndKeys(const Layer& layer);
  void StoreKeysAndValues(const Layer& layer);
  // Takes the slices that have their split at this layer out of the pass; returns the others.
  absl::Span<const Slice> WithoutSplitAt(const Layer& layer, absl::Span<const Slice> slices);
  void Attend(const Layer& layer);
  // Gives the slices the hidden states after so many layers, when some slice wants hidden states.
  void Capture(absl::Span<const Slice> slices, int layers_done);
  void Apply(const Linear& linear, const DeviceBuffer<float>& x, int rows, DeviceBuffer<float>& y);
  void Normalise(const DeviceBuffer<float>& x, int rows, const DeviceBuffer<float>& weight);
  void Activate();
  void AddToResidual(const DeviceBuffer<float>& norm);
  absl::Span<const float> Head(absl::Span<const Slice> slices);

  ModelConfig config_;
  std::unique_ptr<Device> device_;
  const WeightFormat format_;
  std::unique_ptr<SafetensorsModel> weights_;
  WeightRows embedding_;  // [vocab, hidden]
  std::vector<Layer> layers_;
  DeviceBuffer<float> final_norm_;
  Linear head_;
  std::vector<DeviceBuffer<float>> ropes_;  // a table for each of ModelConfig::ropes

  // Floats from row to row of a product's inputs: padded with zeros as products want it.
  static int InputStride(int inputs) { return (inputs + 31) / 32 * 32; }
  int attended_stride() const { return InputStride(config_.query_width()); }
  int query_key_value_width() const { return config_.query_width() + 2 * config_.kv_width(); }
  cpu::HeadShape heads() const { return {config_.query_heads, config_.kv_heads, config_.head_dim}; }
  LayerOffsets OffsetsOf(const Layer& layer) const {
    return {kv_shape().key_offset(layer.index), kv_shape().value_offset(layer.index)};
  }
  // Int8 products have inputs of 16 bits, which lose less when they are not rounded to bf16 first.
  cpu::Rounding rounding() const {
    return format_ == WeightFormat::kBf16 ? cpu::Rounding::kBf16 : cpu::Rounding::kNone;
  }

  // One forward pass's rows and activations, kept so that a step allocates nothing; all in the device's memory.
  Batch batch_;
  bool tapped_ = false;  // some slice wants hidden states
  DeviceBuffer<int32_t> positions_{device_->memory()};
  DeviceBuffer<std::byte* const*> row_pages_{device_->memory()};  // of each row, in page_table_
  DeviceBuffer<std::byte*> page_table_{device_->memory()};        // of all slices
  DeviceBuffer<int32_t> wanted_{device_->memory()};               // rows whose logits are wanted
  // Activations, fp32 [rows, width].
  DeviceBuffer<float> residual_{device_->memory()};
  DeviceBuffer<float> normal_{device_->memory()};  // of the residual stream
  DeviceBuffer<float> query_key_value_{device_->memory()};
  DeviceBuffer<float> attended_{device_->memory()};
  DeviceBuffer<float> gate_up_{device_->memory()};
  DeviceBuffer<float> activated_{device_->memory()};
  DeviceBuffer<float> product_{device_->memory()};  // what is to be added to the residual stream
  DeviceBuffer<float> logits_{device_->memory()};
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_DECODER_H_
