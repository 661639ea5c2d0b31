#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_MODEL_CONFIG_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quicksave::engine {

// RoPE scaling of Llama 3.1: low frequencies are divided by `factor`, high ones kept, those between blended.
struct Llama3RopeScaling {
  double factor;
  double low_freq_factor;
  double high_freq_factor;
  double original_context_length;
};

// The frequencies of RoPE: theta^(-2 i / head_dim), scaled.
struct RopeOptions {
  double theta = 10000;
  double linear_factor = 1;  // all frequencies are divided by it
  std::optional<Llama3RopeScaling> llama3;
};

// The function in the MLP: y = down(activation(gate(x)) * up(x)).
enum class Activation { kSilu, kGeluTanh };

// In what a layer may differ from the others.
struct LayerOptions {
  int window = 0;  // a token attends to this many tokens, the last of them itself; 0: to all
  int rope = 0;    // index in ModelConfig::ropes
};

// What a layer's RMSNorms are called in the weights. An empty name: there is no such norm.
struct NormNames {
  std::string before_attention = "input_layernorm";
  std::string after_attention;  // of what attention adds to the residual stream
  std::string before_mlp = "post_attention_layernorm";
  std::string after_mlp;
};

// What a Hugging Face directory's config.json says of a decoder-only transformer. All differences between model
// families are here; the decoder knows no family.
struct ModelConfig {
  std::string name;          // of the directory
  std::string architecture;  // "LlamaForCausalLM"
  int layers = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int query_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  int context_length = 0;
  float rms_norm_epsilon = 0;
  bool tied_head = false;
  std::vector<int32_t> end_of_turn_ids;  // from generation_config.json, else config.json

  float embedding_scale = 1;
  NormNames norms;
  float norm_weight_offset = 0;  // is added to the weights of all RMSNorms
  bool query_key_value_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool query_key_norms = false;  // RMSNorm of each query and key head before RoPE
  float attention_scale = 0;     // of the products of queries and keys
  float attention_soft_cap = 0;  // scores s become cap * tanh(s / cap); 0: they do not
  float logit_soft_cap = 0;      // the same for logits
  Activation activation = Activation::kSilu;
  std::vector<RopeOptions> ropes;
  std::vector<LayerOptions> layer_options;  // one a layer

  int query_width() const { return query_heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  // The context, in tokens, with which a token's attention, had it no windows, would take as many operations as all
  // else in its layers.
  double attention_parity() const;
  // bf16 keys and values of all layers.
  int64_t kv_bytes_per_token() const { return int64_t{2} * layers * kv_width() * 2; }
};

// Reads config.json and generation_config.json of `model_dir`.
// NOT_FOUND without config.json; INVALID_ARGUMENT when it cannot be read; UNIMPLEMENTED, naming the feature, for what
// this engine cannot run: it is never run approximately.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);

// cos and sin of each position's angles: [context_length][2][head_dim / 2].
std::vector<float> RopeTable(const RopeOptions& rope, int head_dim, int context_length);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_MODEL_CONFIG_H_
