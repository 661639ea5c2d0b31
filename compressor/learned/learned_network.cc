#include "compressor/learned/learned_network.h"

#include <algorithm>

namespace quicksave::compressor {
namespace {

// Positions as a number below 1; half way at this one.
constexpr float kPositionScale = 512;

// y += a row of the layer's weight times x.
void AddRow(const LinearLayer& layer, size_t input, float x, std::vector<float>& y) {
  const uint16_t* row = layer.weight.values.data() + input * layer.outputs();
  for (size_t o = 0; o < y.size(); ++o) y[o] += WidenBf16(row[o]) * x;
}

// GELU, layer norm, linear.
std::vector<float> Finish(const GroupNetwork& network, std::vector<float> hidden, int columns) {
  ApplyGelu(absl::MakeSpan(hidden));
  ApplyNorm(network.norm, columns, hidden);
  return ApplyLinear(network.second, hidden, columns);
}

}  // namespace

std::vector<float> LearnedNetwork::FirstInputs(const std::vector<float>& panel) const {
  if (profile_.architecture != Architecture::kConv) return panel;
  std::vector<float> inputs = WithNeighbours(panel, tokens_, columns_);
  inputs.resize(inputs.size() + columns_);
  float* positions = inputs.data() + inputs.size() - columns_;
  for (int t = 0; t < tokens_; ++t) {
    const auto position = static_cast<float>(first_position_ + t);
    positions[t] = position / (position + kPositionScale);
  }
  return inputs;
}

Panels LearnedNetwork::Run(Side side, const Panels& inputs) const {
  const bool encoder = side == Side::kEncoder;
  const std::vector<GroupNetwork>& networks = encoder ? profile_.encoders : profile_.decoders;
  Panels panels;
  for (size_t g = 0; g < inputs.size(); ++g) {
    panels.push_back(ApplyLinear(networks[g].first, FirstInputs(inputs[g]), columns_));
  }
  if (profile_.architecture == Architecture::kUnified) {
    ApplyAttention(encoder ? profile_.encoder_attention : profile_.decoder_attention, columns_, panels);
  }
  for (size_t g = 0; g < panels.size(); ++g) panels[g] = Finish(networks[g], std::move(panels[g]), columns_);
  return panels;
}

Panels LearnedNetwork::Encode(const Panels& components, const Rounding& rounding) const {
  if (profile_.architecture != Architecture::kRecurrent) return Run(Side::kEncoder, components);
  Panels coded;
  for (size_t g = 0; g < components.size(); ++g) coded.push_back(EncodeInTurn(g, components[g], rounding));
  return coded;
}

Panels LearnedNetwork::Decode(const Panels& coded) const {
  if (profile_.architecture != Architecture::kRecurrent) return Run(Side::kDecoder, coded);
  Panels latents = coded;
  for (size_t g = 0; g < latents.size(); ++g) Accumulate(g, latents[g]);
  return Run(Side::kDecoder, latents);
}

void LearnedNetwork::Accumulate(size_t group, std::vector<float>& coded) const {
  const std::vector<float>& decay = profile_.decay[group];
  for (size_t i = 0; i < decay.size(); ++i) {
    float* row = coded.data() + i * columns_;
    for (int t = 1; t < tokens_; ++t) row[t] += decay[i] * row[t - 1];
  }
}

std::vector<float> LearnedNetwork::EncodeInTurn(size_t group, const std::vector<float>& components,
                                                const Rounding& rounding) const {
  const GroupNetwork& network = profile_.encoders[group];
  const std::vector<float>& decay = profile_.decay[group];
  const size_t width = decay.size();
  const size_t own = components.size() / columns_;
  // What does not depend on the tokens before.
  const std::vector<float> first = ApplyLinear(network.first, components, columns_);
  std::vector<float> coded(width * columns_);
  std::vector<float> latent(width);
  std::vector<float> hidden(network.first.outputs());
  for (int t = 0; t < tokens_; ++t) {
    for (size_t h = 0; h < hidden.size(); ++h) hidden[h] = first[h * columns_ + t];
    for (size_t i = 0; i < width; ++i) AddRow(network.first, own + i, latent[i], hidden);
    ApplyGelu(absl::MakeSpan(hidden));
    ApplyNorm(network.norm, 1, hidden);
    std::vector<float> values = network.second.bias;
    for (size_t h = 0; h < hidden.size(); ++h) AddRow(network.second, h, hidden[h], values);
    for (size_t i = 0; i < width; ++i) {
      coded[i * columns_ + t] = values[i];
      const float seen = rounding(group, static_cast<int>(i), values[i]);
      latent[i] = seen + decay[i] * latent[i];
    }
  }
  return coded;
}

}  // namespace quicksave::compressor
