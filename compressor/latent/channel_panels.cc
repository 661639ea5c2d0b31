#include "compressor/latent/channel_panels.h"

#include <algorithm>
#include <map>

#include "compressor/latent/panel_product.h"

namespace quicksave::compressor {

ChannelPanels::ChannelPanels(const BlockShape& shape, const BlockContext& context)
    : shape_(shape),
      known_(std::min(context.known_tokens, shape.tokens)),
      tokens_(shape.tokens - known_),
      columns_(PaddedColumns(tokens_)) {
  const size_t width = shape.head_dim;
  std::map<const float*, int> places;
  for (const float* table : context.angles) {
    const auto [place, is_new] = places.emplace(table, static_cast<int>(angles_.size()));
    angles_of_layer_.push_back(place->second);
    if (!is_new) continue;
    std::vector<float>& angles = angles_.emplace_back(width * columns_);
    for (int t = 0; t < tokens_; ++t) {
      const float* row = table + (known_ + t) * width;
      for (size_t i = 0; i < width; ++i) angles[i * columns_ + t] = row[i];
    }
  }
}

std::vector<float> ChannelPanels::Read(BlockView block, int first_layer, int layers) const {
  const size_t per_layer = 2 * shape_.channels_per_tensor();
  std::vector<float> panel(layers * per_layer * columns_);
  const uint16_t* from = block.values.data() + first_layer * per_layer * shape_.tokens + known_;
  for (size_t c = 0; c < layers * per_layer; ++c) {
    for (int t = 0; t < tokens_; ++t) panel[c * columns_ + t] = WidenBf16(from[c * shape_.tokens + t]);
  }
  Rotate(first_layer, layers, /*back=*/true, panel);
  return panel;
}

void ChannelPanels::Write(std::vector<float>& panel, int first_layer, int layers, MutableBlockView block) const {
  const size_t per_layer = 2 * shape_.channels_per_tensor();
  Rotate(first_layer, layers, /*back=*/false, panel);
  uint16_t* to = block.values.data() + first_layer * per_layer * shape_.tokens + known_;
  for (size_t c = 0; c < layers * per_layer; ++c) {
    for (int t = 0; t < tokens_; ++t) to[c * shape_.tokens + t] = NarrowToBf16(panel[c * columns_ + t]);
  }
}

void ChannelPanels::Rotate(int first_layer, int layers, bool back, std::vector<float>& panel) const {
  const size_t half = static_cast<size_t>(shape_.head_dim) / 2;
  const size_t n = columns_;
  for (int layer = 0; layer < layers; ++layer) {
    const std::vector<float>& angles = angles_[angles_of_layer_[first_layer + layer]];
    float* head = panel.data() + 2 * layer * shape_.channels_per_tensor() * n;
    for (int h = 0; h < shape_.kv_heads; ++h, head += 2 * half * n) {
      for (size_t i = 0; i < half; ++i) {
        float* low = head + i * n;
        float* high = low + half * n;
        const float* cosines = angles.data() + i * n;
        const float* sines = cosines + half * n;
        for (size_t t = 0; t < n; ++t) {
          const float sine = back ? -sines[t] : sines[t];
          const float a = low[t];
          const float b = high[t];
          low[t] = a * cosines[t] - b * sine;
          high[t] = b * cosines[t] + a * sine;
        }
      }
    }
  }
}

}  // namespace quicksave::compressor
