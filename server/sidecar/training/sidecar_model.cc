#include "server/sidecar/training/sidecar_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "compressor/latent/residual_codec.h"
#include "server/sidecar/training/tensor_file.h"

namespace quicksave::server {
namespace {

using compressor::Architecture;
using compressor::LearnedProfile;

// Deviation of what rounding to integers adds.
const double kRoundingDeviation = 1 / std::sqrt(12.0);
// Encoders begin with latents of about this many steps, so that rounding does not drown them.
constexpr double kFirstSpread = 6;
// A constant hidden unit, for each square root of an input of deviation 1, that makes what the others do to a layer
// norm less than a hundredth.
constexpr double kConstantShare = 10;
// As in compressor::LearnedNetwork.
constexpr double kPositionScale = 512;

at::Tensor Leaf(const at::Tensor& x) { return x.clone().set_requires_grad(true); }

// -log2 of a Laplace distribution's mass within half a step of x.
// tanh may round to 1, which no profile may have.
constexpr double kMostDecay = 0.999;

at::Tensor LaplaceBits(const at::Tensor& x, const at::Tensor& log_scale) {
  const at::Tensor inverse = log_scale.neg().exp();
  const at::Tensor distance = x.abs();
  const at::Tensor inside = distance.lt(0.5);
  // Each side is given a point of its own where it is not the one, so that no gradient is infinite.
  const at::Tensor near = at::where(inside, distance, at::zeros({}, at::kFloat));
  // 1 - cosh(near / b) exp(-0.5 / b), without a factor that overflows.
  const at::Tensor middle = near.sub(0.5)
                                .mul(inverse)
                                .exp()
                                .add(near.add(0.5).mul(inverse).neg().exp())
                                .mul(-0.5)
                                .add(1)
                                .clamp_min(1e-9)
                                .log();
  const at::Tensor tail = inverse.neg().exp().neg().add(1).clamp_min(1e-9).div(2).log();
  const at::Tensor far = distance.sub(0.5).clamp_min(0).mul(inverse).neg().add(tail);
  return at::where(inside, middle, far).mul(-std::numbers::log2e);
}

// KL of N(x, variance of rounding) from N(0, e^log_scale), in bits.
at::Tensor GaussianBits(const at::Tensor& x, const at::Tensor& log_scale) {
  const double variance = kRoundingDeviation * kRoundingDeviation;
  const at::Tensor relative = x.square().add(variance).div(log_scale.mul(2).exp()).div(2);
  return log_scale.sub(std::log(kRoundingDeviation)).add(relative).sub(0.5).mul(std::numbers::log2e);
}

at::Tensor Rounded(const at::Tensor& x, RateModel rate, const std::optional<at::Generator>& noise) {
  if (!noise) return x.round();
  if (rate == RateModel::kKl) return x.add(at::randn(x.sizes(), *noise).mul(kRoundingDeviation));
  return x.add(at::rand(x.sizes(), *noise).sub(0.5));
}

}  // namespace

SidecarModel::SidecarModel(const std::vector<int>& components, const std::vector<float>& magnitudes,
                           const SidecarShape& shape, uint64_t seed)
    : shape_(shape), components_(components), random_(at::detail::createCPUGenerator(seed)) {
  const bool conv = shape.architecture == Architecture::kConv;
  const bool recurrent = shape.architecture == Architecture::kRecurrent;
  for (size_t g = 0; g < components.size(); ++g) {
    const int64_t own = components[g];
    const int64_t width = std::max<int64_t>(1, std::lround(shape.latent_share * static_cast<double>(own)));
    encoders_.push_back(NewNetwork(conv ? 3 * own + 1 : own + (recurrent ? width : 0), width, kFirstSpread));
    decoders_.push_back(NewNetwork(conv ? 3 * width + 1 : width, own, 1));
    log_scales_.push_back(Leaf(at::full({width}, std::log(kFirstSpread), at::kFloat)));
    if (recurrent) decay_.push_back(Leaf(at::zeros({width}, at::kFloat)));
    scales_.push_back(std::exp2(std::round(std::log2(std::max(magnitudes[g], 1e-6f)))));
  }
  if (shape.architecture != Architecture::kUnified) return;
  encoder_attention_ = NewAttention();
  decoder_attention_ = NewAttention();
}

SidecarModel::Network SidecarModel::NewNetwork(int64_t inputs, int64_t outputs, double spread) {
  const auto linear = [&](int64_t from, int64_t to, double factor) {
    const double bound = factor / std::sqrt(static_cast<double>(from));
    return Linear{.weight = Leaf(at::rand({from, to}, random_).mul(2 * bound).sub(bound)),
                  .bias = Leaf(at::zeros({to}, at::kFloat))};
  };
  const int64_t hidden = shape_.hidden;
  // Uniform numbers have a third of their bound's square as variance.
  return {.first = linear(inputs, hidden, 1),
          .norm = {.gain = Leaf(at::ones({hidden}, at::kFloat)), .shift = Leaf(at::zeros({hidden}, at::kFloat))},
          .second = linear(hidden, outputs, spread)};
}

SidecarModel::Attention SidecarModel::NewAttention() {
  const int64_t width = shape_.hidden;
  const Network projections = NewNetwork(width, 3 * width, 1);
  const Network output = NewNetwork(width, width, 1);
  return {.norm = projections.norm, .query_key_value = projections.second, .output = output.second};
}

void SidecarModel::StartFrom(size_t group, const at::Tensor& directions, const at::Tensor& deviations, double step) {
  const c10::NoGradGuard no_gradients;
  const int64_t own = components_[group];
  const Network& encoder = encoders_[group];
  const Network& decoder = decoders_[group];
  const int64_t width = encoder.second.bias.size(0);
  const int64_t count = std::min({width, directions.size(1), (shape_.hidden - 1) / int64_t{2}});
  const at::Tensor basis = directions.slice(1, 0, count);
  const double in_steps = scales_[group] / step;
  const double constant = kConstantShare * std::sqrt(static_cast<double>(own));
  const double hidden = shape_.hidden;
  // What a layer norm divides by where nothing but the constant unit counts.
  const double norm = constant * std::sqrt((1 - 1 / hidden) / hidden);
  // The other hidden units of the decoder see z in the same units as those of the encoder see the components.
  decoder.first.weight.div_(in_steps);
  if (shape_.architecture == Architecture::kRecurrent) encoder.first.weight.slice(0, own).zero_();
  for (const Network* network : {&encoder, &decoder}) {
    network->first.weight.slice(1, 0, 2 * count + 1).zero_();
    network->first.bias.slice(0, 2 * count, 2 * count + 1).fill_(constant);
    network->norm.gain.fill_(norm);
    network->second.weight.zero_();
  }
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor direction = basis.select(1, i);
    const auto pair = [&](const at::Tensor& weight, int64_t dim) {
      return std::pair(weight.select(dim, 2 * i), weight.select(dim, 2 * i + 1));
    };
    const auto [encoder_plus, encoder_minus] = pair(encoder.first.weight.slice(0, 0, own), 1);
    encoder_plus.copy_(direction);
    encoder_minus.copy_(direction.neg());
    const auto [up, down] = pair(encoder.second.weight.select(1, i), 0);
    up.fill_(in_steps);
    down.fill_(-in_steps);
    const auto [decoder_plus, decoder_minus] = pair(decoder.first.weight.select(0, i), 0);
    decoder_plus.fill_(1 / in_steps);
    decoder_minus.fill_(-1 / in_steps);
    const auto [plus, minus] = pair(decoder.second.weight, 0);
    plus.copy_(direction);
    minus.copy_(direction.neg());
  }
  log_scales_[group]
      .slice(0, 0, count)
      .copy_(deviations.slice(0, 0, count).div(step * std::numbers::sqrt2).clamp_min(0.05).log());
  log_scales_[group].slice(0, count).fill_(std::log(0.05));
  if (shape_.architecture != Architecture::kUnified) return;
  for (const Attention* attention : {&encoder_attention_, &decoder_attention_}) attention->output.weight.zero_();
}

std::vector<at::Tensor> SidecarModel::Parameters() const {
  std::vector<at::Tensor> all;
  const auto add = [&](const Network& network) {
    all.insert(all.end(), {network.first.weight, network.first.bias, network.norm.gain, network.norm.shift,
                           network.second.weight, network.second.bias});
  };
  for (size_t g = 0; g < encoders_.size(); ++g) {
    add(encoders_[g]);
    add(decoders_[g]);
    all.push_back(log_scales_[g]);
    if (!decay_.empty()) all.push_back(decay_[g]);
  }
  if (shape_.architecture != Architecture::kUnified) return all;
  for (const Attention* attention : {&encoder_attention_, &decoder_attention_}) {
    all.insert(all.end(), {attention->norm.gain, attention->norm.shift, attention->query_key_value.weight,
                           attention->query_key_value.bias, attention->output.weight, attention->output.bias});
  }
  return all;
}

int64_t SidecarModel::CountParameters() const {
  int64_t count = 0;
  for (const at::Tensor& parameter : Parameters()) count += parameter.numel();
  return count;
}

at::Tensor SidecarModel::Apply(const Linear& layer, const at::Tensor& x) {
  return x.matmul(layer.weight).add(layer.bias);
}

at::Tensor SidecarModel::Normed(const Norm& norm, const at::Tensor& x) {
  return at::layer_norm(x, {x.size(-1)}, norm.gain, norm.shift, 1e-5);
}

at::Tensor SidecarModel::Finish(const Network& network, const at::Tensor& hidden) {
  return Apply(network.second, Normed(network.norm, at::gelu(hidden, "tanh")));
}

at::Tensor SidecarModel::FirstInputs(const at::Tensor& x, const TrainingBatch& batch) const {
  if (shape_.architecture != Architecture::kConv) return x;
  const int64_t width = x.size(1);
  const at::Tensor runs = x.view({-1, batch.run_tokens, width});
  const at::Tensor nothing = at::zeros({runs.size(0), 1, width}, at::kFloat);
  const at::Tensor before = at::cat({nothing, runs.slice(1, 0, batch.run_tokens - 1)}, 1);
  const at::Tensor after = at::cat({runs.slice(1, 1), nothing}, 1);
  const at::Tensor positions = batch.positions.div(batch.positions.add(kPositionScale));
  return at::cat({x, before.view({-1, width}), after.view({-1, width}), positions.unsqueeze(1)}, 1);
}

void SidecarModel::Attend(const Attention& attention, std::vector<at::Tensor>& hidden) const {
  const auto count = static_cast<int64_t>(hidden.size());
  const at::Tensor all = at::stack(hidden, 1);  // [tokens, groups, width]
  const int64_t size = all.size(2) / shape_.heads;
  const std::vector<at::Tensor> parts =
      Apply(attention.query_key_value, Normed(attention.norm, all)).chunk(3, -1);  // queries, keys, values
  const auto by_head = [&](const at::Tensor& x) { return x.view({-1, count, shape_.heads, size}).transpose(1, 2); };
  const at::Tensor scores = by_head(parts[0].contiguous()).matmul(by_head(parts[1].contiguous()).transpose(2, 3));
  const at::Tensor shares = scores.div(std::sqrt(static_cast<double>(size))).softmax(-1);
  const at::Tensor attended =
      shares.matmul(by_head(parts[2].contiguous())).transpose(1, 2).reshape({-1, count, shape_.hidden});
  hidden = all.add(Apply(attention.output, attended)).unbind(1);
}

std::vector<at::Tensor> SidecarModel::Run(const std::vector<Network>& networks, const Attention& attention,
                                          const std::vector<at::Tensor>& inputs, const TrainingBatch& batch) const {
  std::vector<at::Tensor> hidden;
  for (size_t g = 0; g < inputs.size(); ++g) hidden.push_back(Apply(networks[g].first, FirstInputs(inputs[g], batch)));
  if (shape_.architecture == Architecture::kUnified) Attend(attention, hidden);
  for (size_t g = 0; g < hidden.size(); ++g) hidden[g] = Finish(networks[g], hidden[g]);
  return hidden;
}

void SidecarModel::RunInTurn(size_t group, const at::Tensor& inputs, const TrainingBatch& batch, RateModel rate,
                             const std::optional<at::Generator>& noise, SidecarPass& pass) const {
  const Network& network = encoders_[group];
  const int64_t own = inputs.size(1);
  const at::Tensor fed_back = network.first.weight.slice(0, own);
  const at::Tensor first = inputs.matmul(network.first.weight.slice(0, 0, own))
                               .add(network.first.bias)
                               .view({-1, batch.run_tokens, shape_.hidden});
  const at::Tensor decay = decay_[group].tanh().mul(kMostDecay);
  at::Tensor latent = at::zeros({first.size(0), decay.size(0)}, at::kFloat);
  std::vector<at::Tensor> coded;
  std::vector<at::Tensor> rounded;
  std::vector<at::Tensor> latents;
  for (int64_t t = 0; t < batch.run_tokens; ++t) {
    coded.push_back(Finish(network, first.select(1, t).add(latent.matmul(fed_back))));
    rounded.push_back(Rounded(coded.back(), rate, noise));
    latent = rounded.back().add(decay.mul(latent));
    latents.push_back(latent);
  }
  const auto in_order = [&](const std::vector<at::Tensor>& x) { return at::stack(x, 1).view({-1, decay.size(0)}); };
  pass.coded.push_back(in_order(coded));
  pass.rounded.push_back(in_order(rounded));
  pass.restored.push_back(in_order(latents));
}

SidecarPass SidecarModel::Pass(const TrainingBatch& batch, RateModel rate,
                               const std::optional<at::Generator>& noise) const {
  std::vector<at::Tensor> inputs;
  for (size_t g = 0; g < batch.groups.size(); ++g) inputs.push_back(batch.groups[g].div(scales_[g]));
  SidecarPass pass;
  if (shape_.architecture == Architecture::kRecurrent) {
    for (size_t g = 0; g < inputs.size(); ++g) RunInTurn(g, inputs[g], batch, rate, noise, pass);
    pass.restored = Run(decoders_, decoder_attention_, pass.restored, batch);
  } else {
    pass.coded = Run(encoders_, encoder_attention_, inputs, batch);
    for (const at::Tensor& coded : pass.coded) pass.rounded.push_back(Rounded(coded, rate, noise));
    pass.restored = Run(decoders_, decoder_attention_, pass.rounded, batch);
  }
  for (size_t g = 0; g < inputs.size(); ++g) pass.restored[g] = pass.restored[g].mul(scales_[g]);
  return pass;
}

std::vector<at::Tensor> SidecarModel::Bits(const SidecarPass& pass, RateModel rate) const {
  std::vector<at::Tensor> bits;
  for (size_t g = 0; g < pass.coded.size(); ++g) {
    bits.push_back(rate == RateModel::kKl ? GaussianBits(pass.coded[g], log_scales_[g]).sum()
                                          : LaplaceBits(pass.rounded[g], log_scales_[g]).sum());
  }
  return bits;
}

LearnedProfile SidecarModel::Export(compressor::LatentProfile base) const {
  LearnedProfile profile{.base = std::move(base), .architecture = shape_.architecture};
  const auto linear = [](const Linear& layer) {
    return compressor::LinearLayer{.weight = Bf16Of(layer.weight), .bias = FloatsOf(layer.bias)};
  };
  const auto norm = [](const Norm& layer) {
    return compressor::NormLayer{.gain = FloatsOf(layer.gain), .shift = FloatsOf(layer.shift)};
  };
  const auto attention = [&](const Attention& layer) {
    return compressor::AttentionLayer{.heads = shape_.heads,
                                      .norm = norm(layer.norm),
                                      .query_key_value = linear(layer.query_key_value),
                                      .output = linear(layer.output)};
  };
  for (size_t g = 0; g < encoders_.size(); ++g) {
    // Components are in their own scale outside; a power of two changes no digit of the weights.
    const bool conv = shape_.architecture == Architecture::kConv;
    const int64_t scaled = components_[g] * (conv ? 3 : 1);
    const Network& encoder = encoders_[g];
    const at::Tensor first = encoder.first.weight.detach().clone();
    first.slice(0, 0, scaled).div_(scales_[g]);
    profile.encoders.push_back({.first = linear({.weight = first, .bias = encoder.first.bias}),
                                .norm = norm(encoder.norm),
                                .second = linear(encoder.second)});
    const Network& decoder = decoders_[g];
    profile.decoders.push_back({.first = linear(decoder.first),
                                .norm = norm(decoder.norm),
                                .second = linear({.weight = decoder.second.weight.detach().mul(scales_[g]),
                                                  .bias = decoder.second.bias.detach().mul(scales_[g])})});
    profile.sigma.push_back(FloatsOf(log_scales_[g].detach().exp().mul(std::numbers::sqrt2)));
    if (!decay_.empty()) profile.decay.push_back(FloatsOf(decay_[g].detach().tanh().mul(kMostDecay)));
  }
  if (shape_.architecture == Architecture::kUnified) {
    profile.encoder_attention = attention(encoder_attention_);
    profile.decoder_attention = attention(decoder_attention_);
  }
  return profile;
}

}  // namespace quicksave::server
