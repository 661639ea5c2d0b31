#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/engine/model/decoder.h"

namespace quicksave::engine {

// Reads tensors of the Hugging Face naming into a Decoder; remembers the first error, after which it returns empty
// ones.
class Decoder::Loader {
 public:
  explicit Loader(Decoder& decoder) : decoder_(decoder), config_(decoder.config_) {}

  absl::Status Run() {
    const uint16_t* embedding = Matrix("model.embed_tokens.weight", config_.vocab_size, config_.hidden_size);
    decoder_.embedding_ = embedding;
    for (int i = 0; i < config_.layers && status_.ok(); ++i) decoder_.layers_.push_back(LoadLayer(i));
    decoder_.final_norm_ = Vector("model.norm.weight", config_.hidden_size);
    const uint16_t* head =
        config_.tied_head ? embedding : Matrix("lm_head.weight", config_.vocab_size, config_.hidden_size);
    if (!status_.ok()) return status_;
    decoder_.head_ = cpu::PackedMatrix(head, config_.vocab_size, config_.hidden_size);
    decoder_.rope_ = RopeTable(config_);
    return absl::OkStatus();
  }

 private:
  struct Part {
    std::string name;
    int outputs;
  };

  Layer LoadLayer(int index) {
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    Layer layer;
    layer.attention_norm = Vector(prefix + "input_layernorm.weight", config_.hidden_size);
    layer.mlp_norm = Vector(prefix + "post_attention_layernorm.weight", config_.hidden_size);
    layer.query_key_value = Packed({{prefix + "self_attn.q_proj.weight", config_.query_width()},
                                    {prefix + "self_attn.k_proj.weight", config_.kv_width()},
                                    {prefix + "self_attn.v_proj.weight", config_.kv_width()}},
                                   config_.hidden_size);
    layer.attention_out = Packed({{prefix + "self_attn.o_proj.weight", config_.hidden_size}}, config_.query_width());
    layer.gate_up = Packed({{prefix + "mlp.gate_proj.weight", config_.intermediate_size},
                            {prefix + "mlp.up_proj.weight", config_.intermediate_size}},
                           config_.hidden_size);
    layer.down = Packed({{prefix + "mlp.down_proj.weight", config_.hidden_size}}, config_.intermediate_size);
    return layer;
  }

  // bf16 bits [outputs, inputs] inside the mapped file.
  const uint16_t* Matrix(const std::string& name, int outputs, int inputs) {
    const TensorView* tensor = Find(name, {outputs, inputs});
    if (tensor == nullptr) return nullptr;
    if (tensor->dtype != "BF16") {
      Fail(absl::UnimplementedError(absl::StrCat("tensor ", name, " is ", tensor->dtype,
                                                 "; this engine runs bf16 weights, convert the model first")));
      return nullptr;
    }
    return reinterpret_cast<const uint16_t*>(tensor->data.data());
  }

  // Matrices with the same inputs, one below the other.
  cpu::PackedMatrix Packed(const std::vector<Part>& parts, int inputs) {
    std::vector<uint16_t> stacked;
    int outputs = 0;
    for (const Part& part : parts) {
      const uint16_t* matrix = Matrix(part.name, part.outputs, inputs);
      if (matrix == nullptr) return {};
      stacked.insert(stacked.end(), matrix, matrix + size_t(part.outputs) * inputs);
      outputs += part.outputs;
    }
    return cpu::PackedMatrix(stacked.data(), outputs, inputs);
  }

  std::vector<float> Vector(const std::string& name, int size) {
    const TensorView* tensor = Find(name, {size});
    if (tensor == nullptr) return {};
    std::vector<float> values(size);
    if (tensor->dtype == "F32") {
      std::memcpy(values.data(), tensor->data.data(), size * sizeof(float));
    } else if (tensor->dtype == "BF16") {
      const auto* bits = reinterpret_cast<const uint16_t*>(tensor->data.data());
      for (int i = 0; i < size; ++i) values[i] = cpu::Bf16ToFloat(bits[i]);
    } else {
      Fail(absl::UnimplementedError(absl::StrCat("tensor ", name, " is ", tensor->dtype, ", not bf16 or fp32")));
    }
    return values;
  }

  const TensorView* Find(const std::string& name, const std::vector<int64_t>& shape) {
    absl::StatusOr<TensorView> tensor = decoder_.weights_->Tensor(name, shape);
    if (!tensor.ok()) {
      Fail(tensor.status());
      return nullptr;
    }
    found_ = *std::move(tensor);
    return &found_;
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  Decoder& decoder_;
  const ModelConfig& config_;
  TensorView found_;
  absl::Status status_;
};

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Load(const std::string& model_dir, ThreadPool* threads) {
  if (!cpu::IsSupported()) {
    return absl::UnimplementedError("this CPU lacks AVX2 or FMA, which the engine's kernels need");
  }
  absl::StatusOr<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  auto decoder = std::unique_ptr<Decoder>(new Decoder(*std::move(config), threads));
  absl::StatusOr<std::unique_ptr<SafetensorsModel>> weights = SafetensorsModel::Open(model_dir);
  if (!weights.ok()) return weights.status();
  decoder->weights_ = *std::move(weights);
  if (absl::Status status = Loader(*decoder).Run(); !status.ok()) return status;
  return decoder;
}

}  // namespace quicksave::engine
