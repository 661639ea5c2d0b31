#include "server/engine/model/reference_decoder.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/where.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/engine/model/safetensors.h"

namespace quicksave::engine {
namespace {

// One layer's weights, fp32; matrices are [outputs, inputs].
struct LayerWeights {
  at::Tensor attention_norm;
  at::Tensor query;
  at::Tensor key;
  at::Tensor value;
  at::Tensor attention_out;
  at::Tensor mlp_norm;
  at::Tensor gate;
  at::Tensor up;
  at::Tensor down;
};

struct Angles {
  at::Tensor cos;  // [tokens, head_dim]
  at::Tensor sin;
};

// x[tokens, hidden] over its root mean square.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  return x.mul(x.pow(2).mean(-1, /*keepdim=*/true).add(epsilon).rsqrt()).mul(weight);
}

// Frequencies of RoPE [head_dim / 2], scaled as Llama 3.1 has it: wavelengths above original / low_freq_factor are
// stretched by `factor`, those below original / high_freq_factor are kept, those between are blended.
at::Tensor Frequencies(const ModelConfig& config) {
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat).div(config.head_dim);
  const at::Tensor plain = at::full({}, config.rope_theta, at::kFloat).pow(exponents).reciprocal();
  if (!config.rope_scaling) return plain;
  const Llama3RopeScaling& scaling = *config.rope_scaling;
  const at::Tensor wavelength = plain.reciprocal().mul(2 * std::numbers::pi);
  const at::Tensor stretched = plain.div(scaling.factor);
  const at::Tensor blend = wavelength.reciprocal()
                               .mul(scaling.original_context_length)
                               .sub(scaling.low_freq_factor)
                               .div(scaling.high_freq_factor - scaling.low_freq_factor);
  const at::Tensor blended = stretched.mul(blend.neg().add(1)).add(plain.mul(blend));
  const at::Tensor low = wavelength.gt(scaling.original_context_length / scaling.low_freq_factor);
  const at::Tensor high = wavelength.lt(scaling.original_context_length / scaling.high_freq_factor);
  return at::where(low, stretched, at::where(high, plain, blended));
}

Angles AnglesOf(const ModelConfig& config, int64_t tokens) {
  const at::Tensor angles = at::arange(tokens, at::kFloat).unsqueeze(1).mul(Frequencies(config));
  const at::Tensor both = at::cat({angles, angles}, -1);
  return {both.cos(), both.sin()};
}

// x[heads, tokens, head_dim].
at::Tensor Rotate(const at::Tensor& x, const Angles& angles) {
  const int64_t half = x.size(-1) / 2;
  const at::Tensor turned = at::cat({x.slice(-1, half).neg(), x.slice(-1, 0, half)}, -1);
  return x.mul(angles.cos).add(turned.mul(angles.sin));
}

// x[tokens, heads * head_dim] -> [heads, tokens, head_dim].
at::Tensor SplitHeads(const at::Tensor& x, int heads) { return x.view({x.size(0), heads, -1}).transpose(0, 1); }

// Causal attention; all [query_heads, tokens, head_dim].
at::Tensor Attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const int64_t tokens = query.size(1);
  const double scale = 1 / std::sqrt(static_cast<double>(query.size(2)));
  const at::Tensor positions = at::arange(tokens, at::kLong);
  const at::Tensor future = positions.unsqueeze(0).gt(positions.unsqueeze(1));
  const at::Tensor scores = query.matmul(key.transpose(1, 2)).mul(scale);
  return scores.masked_fill(future, -std::numeric_limits<float>::infinity()).softmax(-1).matmul(value);
}

// x of [heads, tokens, head_dim] as rows of tokens.
std::vector<float> TokenRows(const at::Tensor& x) {
  const at::Tensor rows = x.transpose(0, 1).contiguous();
  return {rows.const_data_ptr<float>(), rows.const_data_ptr<float>() + rows.numel()};
}

// Reads tensors of the Hugging Face naming as fp32; remembers the first error.
class WeightReader {
 public:
  explicit WeightReader(const SafetensorsModel& model) : model_(model) {}

  at::Tensor Read(const std::string& name, const std::vector<int64_t>& shape) {
    const absl::StatusOr<TensorView> view = model_.Tensor(name, shape);
    if (!view.ok()) return Fail(view.status());
    at::ScalarType type;
    if (view->dtype == "BF16") {
      type = at::kBFloat16;
    } else if (view->dtype == "F16") {
      type = at::kHalf;
    } else if (view->dtype == "F32") {
      type = at::kFloat;
    } else {
      return Fail(absl::UnimplementedError(absl::StrCat("tensor ", name, " is ", view->dtype)));
    }
    // from_blob takes a mutable pointer, but the tensor is only read.
    const at::Tensor mapped = at::from_blob(const_cast<std::byte*>(view->data.data()), shape, type);
    return mapped.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }

  LayerWeights ReadLayer(const ModelConfig& config, int index) {
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const int64_t hidden = config.hidden_size;
    return {.attention_norm = Read(prefix + "input_layernorm.weight", {hidden}),
            .query = Read(prefix + "self_attn.q_proj.weight", {config.query_width(), hidden}),
            .key = Read(prefix + "self_attn.k_proj.weight", {config.kv_width(), hidden}),
            .value = Read(prefix + "self_attn.v_proj.weight", {config.kv_width(), hidden}),
            .attention_out = Read(prefix + "self_attn.o_proj.weight", {hidden, config.query_width()}),
            .mlp_norm = Read(prefix + "post_attention_layernorm.weight", {hidden}),
            .gate = Read(prefix + "mlp.gate_proj.weight", {config.intermediate_size, hidden}),
            .up = Read(prefix + "mlp.up_proj.weight", {config.intermediate_size, hidden}),
            .down = Read(prefix + "mlp.down_proj.weight", {hidden, config.intermediate_size})};
  }

  const absl::Status& status() const { return status_; }

 private:
  at::Tensor Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
    return {};
  }

  const SafetensorsModel& model_;
  absl::Status status_;
};

}  // namespace

struct ReferenceDecoder::Weights {
  at::Tensor embedding;  // [vocabulary, hidden]
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;
  at::Tensor head;  // [vocabulary, hidden]
};

ReferenceDecoder::ReferenceDecoder(ModelConfig config, std::unique_ptr<Weights> weights)
    : config_(std::move(config)), weights_(std::move(weights)) {}

ReferenceDecoder::~ReferenceDecoder() = default;

absl::StatusOr<std::unique_ptr<ReferenceDecoder>> ReferenceDecoder::Load(const std::string& model_dir) {
  absl::StatusOr<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  const absl::StatusOr<std::unique_ptr<SafetensorsModel>> model = SafetensorsModel::Open(model_dir);
  if (!model.ok()) return model.status();
  WeightReader reader(**model);
  auto weights = std::make_unique<Weights>();
  weights->embedding = reader.Read("model.embed_tokens.weight", {config->vocab_size, config->hidden_size});
  for (int i = 0; i < config->layers; ++i) weights->layers.push_back(reader.ReadLayer(*config, i));
  weights->final_norm = reader.Read("model.norm.weight", {config->hidden_size});
  weights->head =
      config->tied_head ? weights->embedding : reader.Read("lm_head.weight", {config->vocab_size, config->hidden_size});
  if (!reader.status().ok()) return reader.status();
  return std::unique_ptr<ReferenceDecoder>(new ReferenceDecoder(*std::move(config), std::move(weights)));
}

ReferenceDecoder::Output ReferenceDecoder::Run(absl::Span<const int32_t> tokens) const {
  const int64_t count = static_cast<int64_t>(tokens.size());
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  const at::Tensor index = at::from_blob(const_cast<int64_t*>(ids.data()), {count}, at::kLong);
  const Angles angles = AnglesOf(config_, count);
  const int group = config_.query_heads / config_.kv_heads;
  const double epsilon = config_.rms_norm_epsilon;
  Output output;
  at::Tensor residual = weights_->embedding.index_select(0, index);
  for (const LayerWeights& layer : weights_->layers) {
    const at::Tensor x = RmsNorm(residual, layer.attention_norm, epsilon);
    const at::Tensor query = Rotate(SplitHeads(at::linear(x, layer.query), config_.query_heads), angles);
    const at::Tensor key = Rotate(SplitHeads(at::linear(x, layer.key), config_.kv_heads), angles);
    const at::Tensor value = SplitHeads(at::linear(x, layer.value), config_.kv_heads);
    output.keys.push_back(TokenRows(key));
    output.values.push_back(TokenRows(value));
    const at::Tensor attended =
        Attend(query, key.repeat_interleave(group, 0), value.repeat_interleave(group, 0)).transpose(0, 1);
    residual = residual.add(at::linear(attended.reshape({count, config_.query_width()}), layer.attention_out));

    const at::Tensor y = RmsNorm(residual, layer.mlp_norm, epsilon);
    const at::Tensor activated = at::silu(at::linear(y, layer.gate)).mul(at::linear(y, layer.up));
    residual = residual.add(at::linear(activated, layer.down));
  }
  const at::Tensor logits = at::linear(RmsNorm(residual, weights_->final_norm, epsilon), weights_->head).contiguous();
  output.logits.assign(logits.const_data_ptr<float>(), logits.const_data_ptr<float>() + logits.numel());
  return output;
}

}  // namespace quicksave::engine
