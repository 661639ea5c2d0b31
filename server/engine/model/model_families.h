#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_MODEL_FAMILIES_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_MODEL_FAMILIES_H_

// What tells the model families apart, as one table: how each writes its config.json, and what its layers have.

#include <optional>
#include <string>

#include "absl/types/span.h"
#include "server/engine/model/model_config.h"

namespace quicksave::engine {

// Which layers attend to a window only.
enum class Windows {
  kNone,         // none
  kAll,          // all, when `sliding_window` is not null
  kOnRequest,    // with `use_sliding_window`, those from `max_window_layers` on, or as `layer_types` says
  kAlternating,  // all but each `sliding_window_pattern`th, or as `layer_types` says
};

// One family. Defaults are those of the reference library, Hugging Face transformers, for fields that a config.json may
// leave out.
struct Family {
  const char* architecture;  // the entry of `architectures`
  const char* activation_field = "hidden_act";
  const char* activation = "silu";
  std::optional<int> default_head_dim = {};  // without: hidden_size / num_attention_heads
  bool default_tied_head = false;

  bool always_query_key_value_bias = false;
  bool may_have_attention_bias = false;  // of all four matrices, by `attention_bias`
  bool may_have_mlp_bias = false;        // by `mlp_bias`
  bool query_key_norms = false;
  bool norms_after = false;            // norms of what attention and MLP add, and Gemma's names of norms
  float norm_weight_offset = 0;        // stored weights are relative to it
  bool scaled_embedding = false;       // by the square root of hidden_size
  bool query_pre_attn_scalar = false;  // gives the scale of attention
  std::optional<double> attention_soft_cap =
      {};                                     // default of `attn_logit_softcapping`, 0 for none; absent: no such field
  std::optional<double> logit_soft_cap = {};  // the same of `final_logit_softcapping`

  Windows windows = Windows::kNone;
  int default_window = 4096;
  int default_window_pattern = 0;
  double default_rope_theta = 10000;
  std::optional<double> default_local_rope_theta = {};  // layers with a window have frequencies of their own
};

// All families that the engine runs.
absl::Span<const Family> Families();

// The family of this architecture, or nullptr.
const Family* FindFamily(const std::string& architecture);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_MODEL_FAMILIES_H_
