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

// What a Hugging Face directory's config.json says of a decoder-only transformer.
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
  double rope_theta = 0;
  std::optional<Llama3RopeScaling> rope_scaling;
  bool tied_head = false;
  std::vector<int32_t> end_of_turn_ids;  // from generation_config.json, else config.json

  int query_width() const { return query_heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
  // bf16 keys and values of all layers.
  int64_t kv_bytes_per_token() const { return int64_t{2} * layers * kv_width() * 2; }
};

// Reads config.json and generation_config.json of `model_dir`.
// NOT_FOUND without config.json; INVALID_ARGUMENT when it cannot be read; UNIMPLEMENTED, naming the feature, for what
// this engine cannot run: it is never run approximately.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);

// cos and sin of each position's RoPE angles: [context_length][2][head_dim / 2].
std::vector<float> RopeTable(const ModelConfig& config);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_MODEL_CONFIG_H_
