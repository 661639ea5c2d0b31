#include "server/engine/model/reference_decoder.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <limits>
#include <numbers>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/engine/model/safetensors.h"

namespace quicksave::engine {
namespace {

// fp32; the matrix is [outputs, inputs], the bias undefined where there is none.
struct Linear {
  at::Tensor weight;
  at::Tensor bias;

  at::Tensor operator()(const at::Tensor& x) const {
    const at::Tensor y = at::linear(x, weight);
    return bias.defined() ? y.add(bias) : y;
  }
};

// One layer's weights; norms that the model does not have are undefined.
struct LayerWeights {
  at::Tensor attention_norm;
  Linear query;
  Linear key;
  Linear value;
  at::Tensor query_norm;
  at::Tensor key_norm;
  Linear attention_out;
  at::Tensor after_attention_norm;
  at::Tensor mlp_norm;
  Linear gate;
  Linear up;
  Linear down;
  at::Tensor after_mlp_norm;
};

struct Angles {
  at::Tensor cos;  // [tokens, head_dim]
  at::Tensor sin;
};

// x[..., width] over its root mean square; x itself where there is no such norm.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  if (!weight.defined()) return x;
  return x.mul(x.pow(2).mean(-1, /*keepdim=*/true).add(epsilon).rsqrt()).mul(weight);
}

// Frequencies of RoPE [head_dim / 2], scaled as Llama 3.1 has it: wavelengths above original / low_freq_factor are
// stretched by `factor`, those below original / high_freq_factor are kept, those between are blended.
at::Tensor Frequencies(const RopeOptions& rope, int head_dim) {
  const at::Tensor exponents = at::arange(0, head_dim, 2, at::kFloat).div(head_dim);
  at::Tensor plain = at::full({}, rope.theta, at::kFloat).pow(exponents).reciprocal().div(rope.linear_factor);
  if (!rope.llama3) return plain;
  const Llama3RopeScaling& scaling = *rope.llama3;
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

Angles AnglesOf(const RopeOptions& rope, int head_dim, int64_t tokens) {
  const at::Tensor angles = at::arange(tokens, at::kFloat).unsqueeze(1).mul(Frequencies(rope, head_dim));
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

// cap * tanh(x / cap); x itself where there is no cap.
at::Tensor SoftCap(const at::Tensor& x, double cap) { return cap > 0 ? x.div(cap).tanh().mul(cap) : x; }

// Causal attention; query [query_heads, tokens, head_dim], the others with the tokens before them too.
at::Tensor Attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const ModelConfig& config,
                  int window) {
  const at::Tensor positions = at::arange(key.size(1), at::kLong);
  const at::Tensor distance = positions.slice(0, key.size(1) - query.size(1)).unsqueeze(1).sub(positions.unsqueeze(0));
  at::Tensor unseen = distance.lt(0);
  if (window > 0) unseen = unseen.logical_or(distance.ge(window));
  const at::Tensor products = query.matmul(key.transpose(1, 2)).mul(config.attention_scale);
  const at::Tensor scores = SoftCap(products, config.attention_soft_cap);
  return scores.masked_fill(unseen, -std::numeric_limits<float>::infinity()).softmax(-1).matmul(value);
}

// x as rows of its last dimension.
std::vector<float> Rows(const at::Tensor& x) {
  const at::Tensor rows = x.contiguous();
  return {rows.const_data_ptr<float>(), rows.const_data_ptr<float>() + rows.numel()};
}

// x of [heads, tokens, head_dim] as rows of tokens.
std::vector<float> TokenRows(const at::Tensor& x) { return Rows(x.transpose(0, 1)); }

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

  // Undefined where the name is empty.
  at::Tensor ReadNorm(const ModelConfig& config, const std::string& prefix, const std::string& name, int64_t width) {
    return name.empty() ? at::Tensor() : Read(prefix + name + ".weight", {width}).add(config.norm_weight_offset);
  }

  LayerWeights ReadLayer(const ModelConfig& config, int index) {
    const std::string prefix = absl::StrCat("model.layers.", index, ".");
    const int64_t hidden = config.hidden_size;
    const auto norm = [&](const std::string& name) { return ReadNorm(config, prefix, name, hidden); };
    const auto head_norm = [&](const std::string& name) {
      return ReadNorm(config, prefix, config.query_key_norms ? name : "", config.head_dim);
    };
    const auto linear = [&](const std::string& name, int64_t outputs, int64_t inputs, bool has_bias) {
      return Linear{.weight = Read(absl::StrCat(prefix, name, ".weight"), {outputs, inputs}),
                    .bias = has_bias ? Read(absl::StrCat(prefix, name, ".bias"), {outputs}) : at::Tensor()};
    };
    return {.attention_norm = norm(config.norms.before_attention),
            .query = linear("self_attn.q_proj", config.query_width(), hidden, config.query_key_value_bias),
            .key = linear("self_attn.k_proj", config.kv_width(), hidden, config.query_key_value_bias),
            .value = linear("self_attn.v_proj", config.kv_width(), hidden, config.query_key_value_bias),
            .query_norm = head_norm("self_attn.q_norm"),
            .key_norm = head_norm("self_attn.k_norm"),
            .attention_out = linear("self_attn.o_proj", hidden, config.query_width(), config.attention_out_bias),
            .after_attention_norm = norm(config.norms.after_attention),
            .mlp_norm = norm(config.norms.before_mlp),
            .gate = linear("mlp.gate_proj", config.intermediate_size, hidden, config.mlp_bias),
            .up = linear("mlp.up_proj", config.intermediate_size, hidden, config.mlp_bias),
            .down = linear("mlp.down_proj", hidden, config.intermediate_size, config.mlp_bias),
            .after_mlp_norm = norm(config.norms.after_mlp)};
  }

  const absl::Status& status() const { return status_; }

 private:
  at::Tensor Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
    return at::full({}, 0, at::kFloat);
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
  weights->final_norm = reader.ReadNorm(*config, "model.", "norm", config->hidden_size);
  weights->head =
      config->tied_head ? weights->embedding : reader.Read("lm_head.weight", {config->vocab_size, config->hidden_size});
  if (!reader.status().ok()) return reader.status();
  return std::unique_ptr<ReferenceDecoder>(new ReferenceDecoder(*std::move(config), std::move(weights)));
}

// One forward pass. Keys are [kv_heads, tokens, head_dim]; those of the past are before RoPE, the others after it.
struct ReferenceDecoder::Pass {
  // One a layer, or nothing.
  std::vector<at::Tensor> past_keys;
  std::vector<at::Tensor> past_values;
  at::Tensor start;  // [tokens, hidden], the residual stream before the first layer that is run

  std::vector<at::Tensor> keys;
  std::vector<at::Tensor> values;
  std::vector<at::Tensor> residuals;  // before each layer, and after the last
  at::Tensor final;
  at::Tensor logits;
};

void ReferenceDecoder::Forward(absl::Span<const int32_t> tokens, Pass& pass) const {
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  const at::Tensor index =
      at::from_blob(const_cast<int64_t*>(ids.data()), {static_cast<int64_t>(tokens.size())}, at::kLong);
  pass.start = weights_->embedding.index_select(0, index).mul(config_.embedding_scale);
  ForwardFrom(0, pass);
}

void ReferenceDecoder::ForwardFrom(size_t first, Pass& pass) const {
  const int64_t count = pass.start.size(0);
  const int64_t past = pass.past_keys.empty() ? 0 : pass.past_keys[0].size(1);
  std::vector<Angles> past_angles;
  std::vector<Angles> angles;
  for (const RopeOptions& rope : config_.ropes) {
    const Angles all = AnglesOf(rope, config_.head_dim, past + count);
    past_angles.push_back({all.cos.slice(0, 0, past), all.sin.slice(0, 0, past)});
    angles.push_back({all.cos.slice(0, past), all.sin.slice(0, past)});
  }
  const int group = config_.query_heads / config_.kv_heads;
  const double epsilon = config_.rms_norm_epsilon;
  const auto is_gelu = config_.activation == Activation::kGeluTanh;
  at::Tensor residual = pass.start;
  for (size_t i = first; i < weights_->layers.size(); ++i) {
    const LayerWeights& layer = weights_->layers[i];
    const LayerOptions& options = config_.layer_options[i];
    pass.residuals.push_back(residual);
    const auto head = [&](const at::Tensor& y, int heads, const at::Tensor& norm) {
      return Rotate(RmsNorm(SplitHeads(y, heads), norm, epsilon), angles[options.rope]);
    };
    const at::Tensor x = RmsNorm(residual, layer.attention_norm, epsilon);
    const at::Tensor query = head(layer.query(x), config_.query_heads, layer.query_norm);
    at::Tensor key = head(layer.key(x), config_.kv_heads, layer.key_norm);
    at::Tensor value = SplitHeads(layer.value(x), config_.kv_heads);
    pass.keys.push_back(key);
    pass.values.push_back(value);
    if (past > 0) {
      key = at::cat({Rotate(pass.past_keys[i], past_angles[options.rope]), key}, 1);
      value = at::cat({pass.past_values[i], value}, 1);
    }
    const at::Tensor attended =
        Attend(query, key.repeat_interleave(group, 0), value.repeat_interleave(group, 0), config_, options.window)
            .transpose(0, 1)
            .reshape({count, config_.query_width()});
    residual = residual.add(RmsNorm(layer.attention_out(attended), layer.after_attention_norm, epsilon));

    const at::Tensor y = RmsNorm(residual, layer.mlp_norm, epsilon);
    const at::Tensor gate = layer.gate(y);
    const at::Tensor activated = (is_gelu ? at::gelu(gate, "tanh") : at::silu(gate)).mul(layer.up(y));
    residual = residual.add(RmsNorm(layer.down(activated), layer.after_mlp_norm, epsilon));
  }
  pass.residuals.push_back(residual);
  pass.final = RmsNorm(residual, weights_->final_norm, epsilon);
  ApplyHead(pass);
}

void ReferenceDecoder::ApplyHead(Pass& pass) const {
  pass.logits = SoftCap(at::linear(pass.final, weights_->head), config_.logit_soft_cap);
}

std::vector<float> ReferenceDecoder::LogitsFrom(int layer, absl::Span<const float> hidden_states) const {
  const int64_t width = config_.hidden_size;
  const at::Tensor hidden = at::from_blob(const_cast<float*>(hidden_states.data()),
                                          {static_cast<int64_t>(hidden_states.size()) / width, width}, at::kFloat);
  Pass pass;
  if (layer == config_.layers) {
    pass.final = hidden;
    ApplyHead(pass);
  } else {
    pass.start = hidden;
    ForwardFrom(std::min(layer, config_.layers), pass);
  }
  return Rows(pass.logits);
}

ReferenceDecoder::Output ReferenceDecoder::Run(absl::Span<const int32_t> tokens) const {
  Pass pass;
  Forward(tokens, pass);
  Output output;
  for (size_t i = 0; i < weights_->layers.size(); ++i) {
    output.keys.push_back(TokenRows(pass.keys[i]));
    output.values.push_back(TokenRows(pass.values[i]));
    output.hidden_states.push_back(Rows(pass.residuals[i]));
  }
  output.hidden_states.push_back(Rows(pass.final));
  output.hidden_states.push_back(Rows(pass.residuals.back()));
  output.logits = Rows(pass.logits);
  return output;
}

ReferenceDecoder::Pass ReferenceDecoder::PassAfter(const Past& past, bool gradients) const {
  const int64_t layers = config_.layers;
  // [layers, 2, kv_heads, tokens, head_dim].
  const at::Tensor key_values = at::from_blob(const_cast<float*>(past.key_values.data()),
                                              {past.tokens, layers, 2, config_.kv_heads, config_.head_dim}, at::kFloat)
                                    .permute({1, 2, 3, 0, 4});
  Pass pass;
  for (int64_t i = 0; i < layers; ++i) {
    const at::Tensor layer = key_values.select(0, i);
    pass.past_keys.push_back(layer.select(0, 0).clone(at::MemoryFormat::Contiguous).set_requires_grad(gradients));
    pass.past_values.push_back(layer.select(0, 1).clone(at::MemoryFormat::Contiguous).set_requires_grad(gradients));
  }
  return pass;
}

std::vector<float> ReferenceDecoder::LogitsAfter(const Past& past, absl::Span<const int32_t> tokens) const {
  Pass pass = PassAfter(past, /*gradients=*/false);
  Forward(tokens, pass);
  return Rows(pass.logits);
}

std::vector<ReferenceDecoder::LabelSample> ReferenceDecoder::LabelGradients(const Past& past,
                                                                            absl::Span<const int32_t> tokens,
                                                                            int samples, uint64_t seed) const {
  Pass pass = PassAfter(past, /*gradients=*/true);
  std::vector<at::Tensor> inputs;
  for (size_t i = 0; i < pass.past_keys.size(); ++i) {
    inputs.push_back(pass.past_keys[i]);
    inputs.push_back(pass.past_values[i]);
  }
  Forward(tokens, pass);
  const at::Tensor log_probabilities = pass.logits.log_softmax(-1);
  const at::Tensor probabilities = log_probabilities.detach().exp();
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  std::vector<LabelSample> drawn;
  for (int sample = 0; sample < samples; ++sample) {
    const at::Tensor labels = at::multinomial(probabilities, 1, /*replacement=*/true, generator);
    const at::Tensor loss = log_probabilities.gather(1, labels).sum().neg();
    const std::vector<at::Tensor> of_inputs =
        torch::autograd::grad({loss}, inputs, {}, /*retain_graph=*/sample + 1 < samples);
    const int64_t* ids = labels.const_data_ptr<int64_t>();
    // The gradients go back to [tokens, layers, 2, kv_heads, head_dim].
    drawn.push_back({{ids, ids + labels.numel()}, Rows(at::stack(of_inputs).permute({2, 0, 1, 3}))});
  }
  return drawn;
}

}  // namespace quicksave::engine
