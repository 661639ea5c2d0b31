#include "server/engine/model/model_families.h"

namespace quicksave::engine {
namespace {

const Family kFamilies[] = {
    // Llama 2 and 3, SmolLM2.
    {.architecture = "LlamaForCausalLM", .may_have_attention_bias = true, .may_have_mlp_bias = true},
    // Mistral 7B and what has its form.
    {.architecture = "MistralForCausalLM", .windows = Windows::kAll},
    // Qwen 2 and 2.5.
    {.architecture = "Qwen2ForCausalLM", .always_query_key_value_bias = true, .windows = Windows::kOnRequest},
    {.architecture = "Qwen3ForCausalLM",
     .default_head_dim = 128,
     .may_have_attention_bias = true,
     .query_key_norms = true,
     .windows = Windows::kOnRequest},
    {.architecture = "Gemma2ForCausalLM",
     .activation_field = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .default_head_dim = 256,
     .default_tied_head = true,
     .may_have_attention_bias = true,
     .norms_after = true,
     .norm_weight_offset = 1,
     .scaled_embedding = true,
     .query_pre_attn_scalar = true,
     .attention_soft_cap = 50,
     .logit_soft_cap = 30,
     .windows = Windows::kAlternating,
     .default_window_pattern = 2},
    // The text model of Gemma 3. The reference library ignores attn_logit_softcapping here, so a model that has it is
    // refused.
    {.architecture = "Gemma3ForCausalLM",
     .activation_field = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .default_head_dim = 256,
     .default_tied_head = true,
     .may_have_attention_bias = true,
     .query_key_norms = true,
     .norms_after = true,
     .norm_weight_offset = 1,
     .scaled_embedding = true,
     .query_pre_attn_scalar = true,
     .logit_soft_cap = 0,
     .windows = Windows::kAlternating,
     .default_window_pattern = 6,
     .default_rope_theta = 1e6,
     .default_local_rope_theta = 1e4},
};

}  // namespace

absl::Span<const Family> Families() { return kFamilies; }

const Family* FindFamily(const std::string& architecture) {
  for (const Family& family : kFamilies) {
    if (architecture == family.architecture) return &family;
  }
  return nullptr;
}

}  // namespace quicksave::engine
