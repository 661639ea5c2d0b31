#include <cstring>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
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
    decoder_.final_norm_ = Norm("model.norm", config_.hidden_size);
    const uint16_t* head =
        config_.tied_head ? embedding : Matrix("lm_head.weight", config_.vocab_size, config_.hidden_size);
    CheckAllUsed();
    if (!status_.ok()) return status_;
    decoder_.head_ = {cpu::PackedMatrix(head, config_.vocab_size, config_.hidden_size), {}};
    for (const RopeOptions& rope : config_.ropes) {
      decoder_.ropes_.push_back(RopeTable(rope, config_.head_dim, config_.context_length));
    }
    return absl::OkStatus();
  }

 private:
  struct Part {
    std::string name;
    int outputs;
  };

  Layer LoadLayer(int index) {
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const auto norm = [&](const std::string& name) {
      return name.empty() ? std::vector<float>() : Norm(prefix + name, config_.hidden_size);
    };
    const auto head_norm = [&](const char* name) {
      return config_.query_key_norms ? Norm(prefix + name, config_.head_dim) : std::vector<float>();
    };
    const int hidden = config_.hidden_size;
    return {.index = index,
            .options = config_.layer_options[index],
            .attention_norm = norm(config_.norms.before_attention),
            .query_key_value = LoadLinear({{prefix + "self_attn.q_proj", config_.query_width()},
                                           {prefix + "self_attn.k_proj", config_.kv_width()},
                                           {prefix + "self_attn.v_proj", config_.kv_width()}},
                                          hidden, config_.query_key_value_bias),
            .query_norm = head_norm("self_attn.q_norm"),
            .key_norm = head_norm("self_attn.k_norm"),
            .attention_out =
                LoadLinear({{prefix + "self_attn.o_proj", hidden}}, config_.query_width(), config_.attention_out_bias),
            .after_attention_norm = norm(config_.norms.after_attention),
            .mlp_norm = norm(config_.norms.before_mlp),
            .gate_up = LoadLinear({{prefix + "mlp.gate_proj", config_.intermediate_size},
                                   {prefix + "mlp.up_proj", config_.intermediate_size}},
                                  hidden, config_.mlp_bias),
            .down = LoadLinear({{prefix + "mlp.down_proj", hidden}}, config_.intermediate_size, config_.mlp_bias),
            .after_mlp_norm = norm(config_.norms.after_mlp)};
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

  // Matrices with the same inputs, one below the other, and their biases.
  Linear LoadLinear(const std::vector<Part>& parts, int inputs, bool has_bias) {
    std::vector<uint16_t> stacked;
    std::vector<float> bias;
    int outputs = 0;
    for (const Part& part : parts) {
      const uint16_t* matrix = Matrix(part.name + ".weight", part.outputs, inputs);
      if (matrix == nullptr) return {};
      stacked.insert(stacked.end(), matrix, matrix + size_t(part.outputs) * inputs);
      outputs += part.outputs;
      if (!has_bias) continue;
      const std::vector<float> values = Vector(part.name + ".bias", part.outputs);
      bias.insert(bias.end(), values.begin(), values.end());
    }
    return {cpu::PackedMatrix(stacked.data(), outputs, inputs), std::move(bias)};
  }

  std::vector<float> Norm(const std::string& name, int size) {
    std::vector<float> weight = Vector(name + ".weight", size);
    // Not by 0, which would turn -0 into 0.
    if (config_.norm_weight_offset != 0) {
      for (float& value : weight) value += config_.norm_weight_offset;
    }
    return weight;
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
    used_.insert(name);
    found_ = *std::move(tensor);
    return &found_;
  }

  // A tensor that nothing reads belongs to a feature that nothing computes, unless it repeats what is known anyway: the
  // frequencies of RoPE, or the embedding as the head.
  void CheckAllUsed() {
    for (const auto& [name, tensor] : decoder_.weights_->tensors()) {
      const bool repeated =
          absl::EndsWith(name, ".rotary_emb.inv_freq") || (config_.tied_head && name == "lm_head.weight");
      if (used_.contains(name) || repeated) continue;
      return Fail(absl::UnimplementedError(
          absl::StrCat("tensor ", name, " has no place in a model of architecture ", config_.architecture,
                       " with this config.json: it needs a feature that this engine does not have")));
    }
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  Decoder& decoder_;
  const ModelConfig& config_;
  TensorView found_;
  std::set<std::string> used_;
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
