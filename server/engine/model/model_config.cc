#include "server/engine/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numbers>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "server/engine/model/config_fields.h"
#include "server/engine/model/model_families.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

constexpr char kFullAttention[] = "full_attention";
constexpr char kSlidingAttention[] = "sliding_attention";

absl::StatusOr<Json> ReadJson(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path.string()));
  Json json = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(path.string(), " is not a JSON object"));
  return json;
}

const Family* ReadFamily(ConfigFields& fields) {
  const Json architectures = fields.Get("architectures");
  const bool one = architectures.is_array() && architectures.size() == 1 && architectures[0].is_string();
  const Family* family = one ? FindFamily(architectures[0].get<std::string>()) : nullptr;
  if (family == nullptr) {
    const auto name = [](std::string* out, const Family& known) { out->append(known.architecture); };
    fields.Refuse(
        absl::StrCat("architectures ", architectures.dump(), " (known: ", absl::StrJoin(Families(), ", ", name), ")"));
  }
  return family;
}

// Features that a config.json can ask for and no family here has, with the values that mean that it does not.
void RefuseFeatures(const Family& family, ConfigFields& fields) {
  static const std::pair<const char*, Json> kFeatures[] = {
      {"quantization_config", nullptr},
      {"pretraining_tp", {1}},
      {"partial_rotary_factor", {1.0}},
      {"rotary_pct", {1.0}},
      {"use_mrope", {false}},
      {"alibi", {false}},
      {"use_alibi", {false}},
      {"position_embedding_type", {"rope"}},
      {"no_rope_layers", nullptr},
      {"attention_sinks", {false, 0}},
      {"attention_chunk_size", nullptr},
      {"use_bidirectional_attention", {false}},
      {"is_causal", {true}},
      {"is_encoder_decoder", {false}},
      {"num_experts", {0, 1}},
      {"num_local_experts", {0, 1}},
      {"n_routed_experts", {0}},
      {"moe_intermediate_size", {0}},
      {"vision_config", nullptr},
      {"audio_config", nullptr},
  };
  for (const auto& [name, off] : kFeatures) {
    const Json value = fields.Get(name);
    if (!value.is_null() && std::find(off.begin(), off.end(), value) == off.end()) fields.Refuse(name);
  }
  const Json activation = fields.Get(family.activation_field);
  if (!activation.is_null() && activation != family.activation) {
    fields.Refuse(absl::StrCat(family.activation_field, " ", activation.dump()));
  }
  if (!family.attention_soft_cap && fields.Has("attn_logit_softcapping")) fields.Refuse("attn_logit_softcapping");
  if (!family.logit_soft_cap && fields.Has("final_logit_softcapping")) fields.Refuse("final_logit_softcapping");
}

// A flag that some families read: others must not have it.
bool ReadFlag(const char* name, bool known, ConfigFields& fields) {
  const bool value = fields.Bool(name, false);
  if (value && !known) fields.Refuse(name);
  return value;
}

void ReadShape(const Family& family, ConfigFields& fields, ModelConfig& config) {
  config.layers = fields.Integer("num_hidden_layers", {}, 1, 1000);
  config.hidden_size = fields.Integer("hidden_size", {}, 16, 1 << 20);
  config.intermediate_size = fields.Integer("intermediate_size", {}, 16, 1 << 22);
  config.query_heads = fields.Integer("num_attention_heads", {}, 1, 4096);
  config.kv_heads = fields.Integer("num_key_value_heads", config.query_heads, 1, 4096);
  const int head_dim = family.default_head_dim.value_or(config.hidden_size / std::max(1, config.query_heads));
  config.head_dim = fields.Integer("head_dim", head_dim, 1, 256);
  config.vocab_size = fields.Integer("vocab_size", {}, 1, 1 << 24);
  config.context_length = fields.Integer("max_position_embeddings", {}, 1, 1 << 24);
  config.rms_norm_epsilon = static_cast<float>(fields.Number("rms_norm_eps", 1e-6, 0, 1));
  config.tied_head = fields.Bool("tie_word_embeddings", family.default_tied_head);
  if (!fields.status().ok()) return;
  if (config.query_heads % config.kv_heads != 0) {
    fields.Fail("config.json: num_attention_heads is not a multiple of num_key_value_heads");
  }
  if (config.head_dim % 16 != 0) {
    fields.Refuse(absl::StrCat("head_dim ", config.head_dim, ", not a multiple of 16"));
  }
  if (config.hidden_size % 32 != 0 || config.intermediate_size % 32 != 0) {
    fields.Refuse("hidden_size or intermediate_size that is not a multiple of 32");
  }
}

void ReadOptions(const Family& family, ConfigFields& fields, ModelConfig& config) {
  if (family.scaled_embedding) config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
  if (family.norms_after) {
    config.norms = {.before_attention = "input_layernorm",
                    .after_attention = "post_attention_layernorm",
                    .before_mlp = "pre_feedforward_layernorm",
                    .after_mlp = "post_feedforward_layernorm"};
  }
  config.norm_weight_offset = family.norm_weight_offset;
  const bool attention_bias = ReadFlag("attention_bias", family.may_have_attention_bias, fields);
  config.query_key_value_bias = attention_bias || family.always_query_key_value_bias;
  config.attention_out_bias = attention_bias;
  config.mlp_bias = ReadFlag("mlp_bias", family.may_have_mlp_bias, fields);
  config.query_key_norms = family.query_key_norms;
  double scalar = config.head_dim;
  if (family.query_pre_attn_scalar) scalar = fields.Number("query_pre_attn_scalar", 256, 1e-3, 1e6);
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(scalar));
  const auto soft_cap = [&](const char* name, const std::optional<double>& preset) {
    if (!preset || (fields.json().contains(name) && !fields.Has(name))) return 0.0f;
    return static_cast<float>(fields.Number(name, preset, fields.Has(name) ? 1e-3 : 0, 1e9));
  };
  config.attention_soft_cap = soft_cap("attn_logit_softcapping", family.attention_soft_cap);
  config.logit_soft_cap = soft_cap("final_logit_softcapping", family.logit_soft_cap);
  config.activation = family.activation == std::string("silu") ? Activation::kSilu : Activation::kGeluTanh;
}

// The window of the layers that have one; 0 for none.
int ReadWindow(const Family& family, ConfigFields& fields) {
  const bool given_as_null = fields.json().contains("sliding_window") && !fields.Has("sliding_window");
  const bool asked = family.windows != Windows::kOnRequest || fields.Bool("use_sliding_window", false);
  if (family.windows == Windows::kNone || given_as_null || !asked) return 0;
  return fields.Integer("sliding_window", family.default_window, 1, 1 << 24);
}

// Whether each layer has a window, where config.json does not list it.
bool IsWindowed(const Family& family, ConfigFields& fields, int layer, int window) {
  switch (family.windows) {
    case Windows::kNone:
      return false;
    case Windows::kAll:
      return window > 0;
    case Windows::kOnRequest:
      return window > 0 && layer >= fields.Integer("max_window_layers", 28, 0, 1 << 24);
    case Windows::kAlternating:
      return (layer + 1) % fields.Integer("sliding_window_pattern", family.default_window_pattern, 1, 1 << 24) != 0;
  }
  return false;
}

void ReadLayers(const Family& family, ConfigFields& fields, ModelConfig& config) {
  if (family.windows == Windows::kNone && fields.Has("sliding_window")) fields.Refuse("sliding_window");
  const int window = ReadWindow(family, fields);
  const Json types = fields.Get("layer_types");
  if (!types.is_null() && (!types.is_array() || types.size() != static_cast<size_t>(config.layers))) {
    return fields.Fail("config.json: layer_types is not a list with an entry for each layer");
  }
  const bool listed = types.is_array();
  const bool may_differ = family.windows == Windows::kOnRequest || family.windows == Windows::kAlternating;
  for (int i = 0; i < config.layers && fields.status().ok(); ++i) {
    const bool by_default = IsWindowed(family, fields, i, window);
    const Json type = listed ? types[i] : Json(by_default ? kSlidingAttention : kFullAttention);
    if (type != kFullAttention && type != kSlidingAttention) {
      return fields.Refuse(absl::StrCat("layers of type ", type.dump()));
    }
    const bool windowed = type == kSlidingAttention;
    if (windowed != by_default && !may_differ) return fields.Refuse(absl::StrCat("layer_types with ", type.dump()));
    if (windowed && window == 0) return fields.Fail("config.json: layers with a window, but no sliding_window");
    const int rope = windowed && family.default_local_rope_theta ? 1 : 0;
    config.layer_options.push_back({.window = windowed ? window : 0, .rope = rope});
  }
}

Llama3RopeScaling ReadLlama3Scaling(ConfigFields& rope) {
  const Llama3RopeScaling scaling = {
      .factor = rope.Number("factor", {}, 1.0, 1e6),
      .low_freq_factor = rope.Number("low_freq_factor", {}, 1e-3, 1e6),
      .high_freq_factor = rope.Number("high_freq_factor", {}, 1e-3, 1e6),
      .original_context_length = rope.Number("original_max_position_embeddings", {}, 1, 1e9)};
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    rope.Fail("config.json: high_freq_factor of the RoPE scaling is not above its low_freq_factor");
  }
  return scaling;
}

// One set of frequencies from `json`: a rope_parameters or rope_scaling object, or null.
RopeOptions ReadRope(const Json& json, double default_theta, ConfigFields& fields) {
  static const Json kSettings = {"rope_type",
                                 "type",
                                 "rope_theta",
                                 "factor",
                                 "low_freq_factor",
                                 "high_freq_factor",
                                 "original_max_position_embeddings",
                                 "partial_rotary_factor"};
  const Json object = json.is_object() ? json : Json::object();
  ConfigFields rope(object);
  RopeOptions options;
  options.theta = rope.Number("rope_theta", default_theta, 1.0, 1e12);
  const Json type = rope.Has("rope_type") ? rope.Get("rope_type")
                    : rope.Has("type")    ? rope.Get("type")
                                          : Json("default");
  if (type == "llama3") {
    options.llama3 = ReadLlama3Scaling(rope);
  } else if (type == "linear") {
    options.linear_factor = rope.Number("factor", {}, 1.0, 1e6);
  } else if (type != "default") {
    rope.Refuse(absl::StrCat("RoPE scaling of type ", type.dump()));
  }
  if (rope.Number("partial_rotary_factor", 1.0, 0, 1) != 1.0) rope.Refuse("partial_rotary_factor");
  for (const auto& [name, value] : object.items()) {
    const bool known = std::find(kSettings.begin(), kSettings.end(), name) != kSettings.end();
    if (!known && !value.is_null()) rope.Refuse(absl::StrCat("the RoPE setting ", name));
  }
  fields.Fail(rope.status());
  return options;
}

// transformers 5 writes rope_parameters {rope_type, rope_theta, ...}, one for each type of layer where they differ;
// earlier ones rope_theta, rope_local_base_freq, and rope_scaling, which is for full attention only.
void ReadRopes(const Family& family, ConfigFields& fields, ModelConfig& config) {
  const double theta = fields.Number("rope_theta", family.default_rope_theta, 1.0, 1e12);
  const Json parameters = fields.Get("rope_parameters");
  if (!family.default_local_rope_theta) {
    config.ropes = {ReadRope(parameters.is_object() ? parameters : fields.Get("rope_scaling"), theta, fields)};
    return;
  }
  const double local_theta = fields.Number("rope_local_base_freq", family.default_local_rope_theta, 1.0, 1e12);
  if (!parameters.is_object()) {
    config.ropes = {ReadRope(fields.Get("rope_scaling"), theta, fields), {.theta = local_theta}};
    return;
  }
  for (const auto& [type, value] : parameters.items()) {
    if (type != kFullAttention && type != kSlidingAttention) fields.Refuse(absl::StrCat("rope_parameters of ", type));
  }
  config.ropes = {ReadRope(parameters.value(kFullAttention, Json()), theta, fields),
                  ReadRope(parameters.value(kSlidingAttention, Json()), local_theta, fields)};
}

absl::Status ReadEndOfTurn(const Json& json, ModelConfig& config) {
  const auto it = json.find("eos_token_id");
  if (it == json.end() || it->is_null()) return absl::OkStatus();
  const Json list = it->is_array() ? *it : Json::array({*it});
  config.end_of_turn_ids.clear();
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= config.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("eos_token_id ", id.dump(), " is not a token id"));
    }
    config.end_of_turn_ids.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ReadConfig(const Json& json) {
  ConfigFields fields(json);
  ModelConfig config;
  const Family* family = ReadFamily(fields);
  if (family == nullptr) return fields.status();
  config.architecture = family->architecture;
  RefuseFeatures(*family, fields);
  for (const auto read : {ReadShape, ReadOptions, ReadLayers, ReadRopes}) {
    read(*family, fields, config);
    if (!fields.status().ok()) return fields.status();
  }
  return config;
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  const std::filesystem::path dir(model_dir);
  absl::StatusOr<Json> json = ReadJson(dir / "config.json");
  if (!json.ok()) return json.status();
  absl::StatusOr<ModelConfig> config = ReadConfig(*json);
  if (!config.ok()) return config.status();
  config->name = std::filesystem::weakly_canonical(dir).filename().string();
  if (absl::Status status = ReadEndOfTurn(*json, *config); !status.ok()) return status;
  if (std::filesystem::exists(dir / "generation_config.json")) {
    absl::StatusOr<Json> generation = ReadJson(dir / "generation_config.json");
    if (!generation.ok()) return generation.status();
    if (absl::Status status = ReadEndOfTurn(*generation, *config); !status.ok()) return status;
  }
  return config;
}

std::vector<float> RopeTable(const RopeOptions& rope, int head_dim, int context_length) {
  const int half = head_dim / 2;
  std::vector<double> frequencies(half);
  for (int i = 0; i < half; ++i) {
    double frequency = 1.0 / std::pow(rope.theta, 2.0 * i / head_dim);
    if (rope.llama3) {
      const Llama3RopeScaling& scaling = *rope.llama3;
      const double wavelength = 2.0 * std::numbers::pi / frequency;
      const double turns = scaling.original_context_length / wavelength;
      const double smooth = std::clamp(
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0, 1.0);
      frequency = (1.0 - smooth) * frequency / scaling.factor + smooth * frequency;
    }
    // transformers keeps the frequencies as fp32 and multiplies in fp32.
    frequencies[i] = static_cast<float>(frequency / rope.linear_factor);
  }
  std::vector<float> table(size_t(context_length) * head_dim);
  for (int position = 0; position < context_length; ++position) {
    float* row = table.data() + size_t(position) * head_dim;
    for (int i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * static_cast<float>(frequencies[i]);
      // In double, so that the rounding to fp32 is the same whatever the mathematical library.
      row[i] = static_cast<float>(std::cos(double{angle}));
      row[half + i] = static_cast<float>(std::sin(double{angle}));
    }
  }
  return table;
}

double ModelConfig::attention_parity() const {
  const double projections = hidden_size * (2.0 * query_width() + 2.0 * kv_width());
  const double mlp = 3.0 * hidden_size * intermediate_size;
  // Two products a query's dimension and token of context.
  return (projections + mlp) / (2.0 * query_width());
}

}  // namespace quicksave::engine
