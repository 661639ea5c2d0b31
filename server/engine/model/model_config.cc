#include "server/engine/model/model_config.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numbers>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

absl::StatusOr<Json> ReadJson(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path.string()));
  Json json = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError(absl::StrCat(path.string(), " is not a JSON object"));
  return json;
}

// Reads fields of config.json and remembers the first that is wrong.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  double Number(const char* name, std::optional<double> fallback, double low, double high) {
    const auto it = json_.find(name);
    const bool given = it != json_.end() && !it->is_null();
    if (!given && !fallback) {
      Fail(absl::StrCat("config.json lacks '", name, "'"));
      return low;
    }
    const Json number = given ? *it : Json(*fallback);
    const double value = number.is_number() ? number.get<double>() : std::nan("");
    if (!(value >= low && value <= high)) {
      Fail(absl::StrCat("config.json: '", name, "' is ", number.dump(), ", not a number from ", low, " to ", high));
      return low;
    }
    return value;
  }
  int Integer(const char* name, std::optional<double> fallback, int low, int high) {
    const double value = Number(name, fallback, low, high);
    if (value != std::floor(value)) Fail(absl::StrCat("config.json: '", name, "' is ", value, ", not an integer"));
    return static_cast<int>(value);
  }
  bool Bool(const char* name, bool fallback) {
    const auto it = json_.find(name);
    return it != json_.end() && it->is_boolean() ? it->get<bool>() : fallback;
  }
  void Fail(std::string message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(std::move(message));
  }
  const absl::Status& status() const { return status_; }

 private:
  const Json& json_;
  absl::Status status_;
};

absl::Status Unsupported(const std::string& feature) {
  return absl::UnimplementedError(
      absl::StrCat("this model needs ", feature,
                   ", which this engine does not have; supported are models of the Llama architecture"));
}

absl::Status CheckFeatures(const Json& json) {
  const Json architectures = json.value("architectures", Json::array());
  if (!architectures.is_array() || architectures.size() != 1 || architectures[0] != "LlamaForCausalLM") {
    return Unsupported(absl::StrCat("architectures ", architectures.dump()));
  }
  const Json activation = json.value("hidden_act", Json("silu"));
  if (activation != "silu") return Unsupported(absl::StrCat("hidden_act ", activation.dump()));
  for (const char* flag : {"attention_bias", "mlp_bias"}) {
    if (json.contains(flag) && json[flag] != false) return Unsupported(flag);
  }
  if (json.contains("sliding_window") && !json["sliding_window"].is_null()) return Unsupported("sliding_window");
  if (json.contains("quantization_config") && !json["quantization_config"].is_null())
    return Unsupported("quantization_config");
  if (json.contains("pretraining_tp") && json["pretraining_tp"] != 1) return Unsupported("pretraining_tp above 1");
  if (json.contains("partial_rotary_factor") && json["partial_rotary_factor"] != 1.0)
    return Unsupported("partial_rotary_factor");
  return absl::OkStatus();
}

absl::Status ReadRope(const Json& json, Fields& fields, ModelConfig& config) {
  // transformers 5 writes rope_parameters {rope_type, rope_theta, ...}; earlier ones rope_theta and rope_scaling.
  const bool has_parameters = json.contains("rope_parameters") && json["rope_parameters"].is_object();
  Json rope = has_parameters ? json["rope_parameters"] : json.value("rope_scaling", Json());
  if (!rope.is_object()) rope = Json::object();
  Fields rope_fields(rope);
  const double theta = fields.Number("rope_theta", 10000.0, 1.0, 1e12);
  config.rope_theta = rope_fields.Number("rope_theta", theta, 1.0, 1e12);
  const Json type = rope.value("rope_type", rope.value("type", Json("default")));
  if (type == "llama3") {
    config.rope_scaling = Llama3RopeScaling{
        .factor = rope_fields.Number("factor", {}, 1.0, 1e6),
        .low_freq_factor = rope_fields.Number("low_freq_factor", {}, 1e-3, 1e6),
        .high_freq_factor = rope_fields.Number("high_freq_factor", {}, 1e-3, 1e6),
        .original_context_length = rope_fields.Number("original_max_position_embeddings", {}, 1, 1e9)};
    if (config.rope_scaling->high_freq_factor <= config.rope_scaling->low_freq_factor) {
      rope_fields.Fail("config.json: high_freq_factor of the RoPE scaling is not above its low_freq_factor");
    }
  } else if (type != "default") {
    return Unsupported(absl::StrCat("RoPE scaling of type ", type.dump()));
  }
  return rope_fields.status();
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

absl::Status CheckShape(const ModelConfig& config) {
  if (config.query_heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError("config.json: num_attention_heads is not a multiple of num_key_value_heads");
  }
  if (config.head_dim % 32 != 0)
    return Unsupported(absl::StrCat("head_dim ", config.head_dim, ", not a multiple of 32"));
  if (config.hidden_size % 32 != 0 || config.intermediate_size % 32 != 0) {
    return Unsupported("hidden_size or intermediate_size that is not a multiple of 32");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  const std::filesystem::path dir(model_dir);
  absl::StatusOr<Json> json = ReadJson(dir / "config.json");
  if (!json.ok()) return json.status();
  if (absl::Status status = CheckFeatures(*json); !status.ok()) return status;

  Fields fields(*json);
  ModelConfig config;
  config.name = std::filesystem::weakly_canonical(dir).filename().string();
  config.architecture = "LlamaForCausalLM";
  config.layers = fields.Integer("num_hidden_layers", {}, 1, 1000);
  config.hidden_size = fields.Integer("hidden_size", {}, 16, 1 << 20);
  config.intermediate_size = fields.Integer("intermediate_size", {}, 16, 1 << 22);
  config.query_heads = fields.Integer("num_attention_heads", {}, 1, 4096);
  config.kv_heads = fields.Integer("num_key_value_heads", config.query_heads, 1, 4096);
  config.head_dim = fields.Integer("head_dim", config.hidden_size / std::max(1, config.query_heads), 1, 256);
  config.vocab_size = fields.Integer("vocab_size", {}, 1, 1 << 24);
  config.context_length = fields.Integer("max_position_embeddings", {}, 1, 1 << 24);
  config.rms_norm_epsilon = static_cast<float>(fields.Number("rms_norm_eps", 1e-6, 0, 1));
  config.tied_head = fields.Bool("tie_word_embeddings", false);
  if (absl::Status status = ReadRope(*json, fields, config); !status.ok()) return status;
  if (!fields.status().ok()) return fields.status();
  if (absl::Status status = CheckShape(config); !status.ok()) return status;
  if (absl::Status status = ReadEndOfTurn(*json, config); !status.ok()) return status;
  if (std::filesystem::exists(dir / "generation_config.json")) {
    absl::StatusOr<Json> generation = ReadJson(dir / "generation_config.json");
    if (!generation.ok()) return generation.status();
    if (absl::Status status = ReadEndOfTurn(*generation, config); !status.ok()) return status;
  }
  return config;
}

std::vector<float> RopeTable(const ModelConfig& config) {
  const int half = config.head_dim / 2;
  std::vector<double> frequencies(half);
  for (int i = 0; i < half; ++i) {
    double frequency = 1.0 / std::pow(config.rope_theta, 2.0 * i / config.head_dim);
    if (config.rope_scaling) {
      const Llama3RopeScaling& scaling = *config.rope_scaling;
      const double wavelength = 2.0 * std::numbers::pi / frequency;
      const double turns = scaling.original_context_length / wavelength;
      const double smooth = std::clamp(
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0, 1.0);
      frequency = (1.0 - smooth) * frequency / scaling.factor + smooth * frequency;
    }
    // transformers keeps the frequencies as fp32 and multiplies in fp32.
    frequencies[i] = static_cast<float>(frequency);
  }
  std::vector<float> table(size_t(config.context_length) * config.head_dim);
  for (int position = 0; position < config.context_length; ++position) {
    float* row = table.data() + size_t(position) * config.head_dim;
    for (int i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * static_cast<float>(frequencies[i]);
      // In double, so that the rounding to fp32 is the same whatever the mathematical library.
      row[i] = static_cast<float>(std::cos(double{angle}));
      row[half + i] = static_cast<float>(std::sin(double{angle}));
    }
  }
  return table;
}

}  // namespace quicksave::engine
