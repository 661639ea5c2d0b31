#include "server/engine/model/decoder.h"

#include <algorithm>
#include <variant>

namespace quicksave::engine {

absl::Span<const float> Decoder::Forward(absl::Span<const Slice> slices) {
  const cpu::ScopedFlushDenormals flush;
  Prepare(slices);
  Embed(slices);
  if (tapped_) Capture(slices, 0);
  for (const Layer& layer : layers_) {
    Normalise(residual_, batch_.rows, layer.attention_norm);
    Apply(layer.query_key_value, normal_, batch_.rows, query_key_value_);
    RotateQueriesAndKeys(layer);
    StoreKeysAndValues(layer);
    slices = WithoutSplitAt(layer, slices);
    if (batch_.rows == 0) break;
    Attend(layer);
    Apply(layer.attention_out, attended_, batch_.rows, product_);
    AddToResidual(layer.after_attention_norm);

    Normalise(residual_, batch_.rows, layer.mlp_norm);
    Apply(layer.gate_up, normal_, batch_.rows, gate_up_);
    Activate();
    Apply(layer.down, activated_, batch_.rows, product_);
    AddToResidual(layer.after_mlp_norm);
    if (tapped_) Capture(slices, layer.index + 1);
  }
  const absl::Span<const float> logits = Head(slices);
  device_->Wait();
  return logits;
}

size_t Decoder::weight_bytes() const {
  size_t bytes = 0;
  const auto add = [&](const Linear& linear) {
    bytes += std::visit([](const auto& w) { return w.bytes(); }, linear.weights);
  };
  for (const Layer& layer : layers_) {
    for (const Linear* linear : {&layer.query_key_value, &layer.attention_out, &layer.gate_up, &layer.down}) {
      add(*linear);
    }
  }
  add(head_);
  return bytes;
}

void Decoder::Prepare(absl::Span<const Slice> slices) {
  size_t rows = 0;
  size_t pages = 0;
  for (const Slice& slice : slices) {
    rows += slice.tokens.size();
    pages += slice.pages.size();
  }
  positions_.Grow(rows);
  row_pages_.Grow(rows);
  page_table_.Grow(pages);
  wanted_.Grow(rows);
  residual_.Grow(rows * config_.hidden_size);
  normal_.Grow(rows * config_.hidden_size);
  product_.Grow(rows * config_.hidden_size);
  query_key_value_.Grow(rows * query_key_value_width());
  attended_.Grow(rows * attended_stride());
  gate_up_.Grow(rows * 2 * config_.intermediate_size);
  activated_.Grow(rows * config_.intermediate_size);

  tapped_ = false;
  batch_ = {.rows = static_cast<int>(rows), .positions = positions_.data(), .pages = row_pages_.data()};
  int32_t* position = positions_.data();
  std::byte* const** row_pages = row_pages_.data();
  std::byte** table = page_table_.data();
  for (const Slice& slice : slices) {
    const int count = static_cast<int>(slice.tokens.size());
    for (int i = 0; i < count; ++i) *position++ = slice.first_position + i;
    row_pages = std::fill_n(row_pages, count, table);
    table = std::copy(slice.pages.begin(), slice.pages.end(), table);
    batch_.longest = std::max(batch_.longest, slice.first_position + count);
    tapped_ = tapped_ || !slice.taps.rows.empty();
  }
}

void Decoder::Embed(absl::Span<const Slice> slices) {
  float* to = residual_.data();
  for (const Slice& slice : slices) {
    for (const int32_t token : slice.tokens) {
      embedding_.Read(token, to);
      for (int i = 0; i < config_.hidden_size; ++i) *to++ *= config_.embedding_scale;
    }
  }
}

void Decoder::RotateQueriesAndKeys(const Layer& layer) {
  const int stride = query_key_value_width();
  const auto normalise = [&](float* x, int count, const DeviceBuffer<float>& weight) {
    if (weight.empty()) return;
    device_->RmsNormInPlace(x, {batch_.rows, count, config_.head_dim, stride}, weight.data(), config_.rms_norm_epsilon);
  };
  float* query = query_key_value_.data();
  normalise(query, config_.query_heads, layer.query_norm);
  normalise(query + config_.query_width(), config_.kv_heads, layer.key_norm);
  device_->Rope(query, stride, config_.query_heads + config_.kv_heads, config_.head_dim, batch_,
                ropes_[layer.options.rope].data());
}

void Decoder::StoreKeysAndValues(const Layer& layer) {
  device_->StoreKeyValues(query_key_value_.data() + config_.query_width(), query_key_value_width(), batch_, heads(),
                          OffsetsOf(layer));
}

absl::Span<const Slice> Decoder::WithoutSplitAt(const Layer& layer, absl::Span<const Slice> slices) {
  while (!slices.empty() && slices.back().split == layer.index) {
    batch_.rows -= static_cast<int>(slices.back().tokens.size());
    slices.remove_suffix(1);
  }
  return slices;
}

void Decoder::Attend(const Layer& layer) {
  const cpu::AttentionOptions options{config_.attention_scale, layer.options.window, config_.attention_soft_cap,
                                      rounding()};
  device_->Attention(query_key_value_.data(), query_key_value_width(), batch_, heads(), OffsetsOf(layer), options,
                     attended_.data(), attended_stride());
}

void Decoder::Capture(absl::Span<const Slice> slices, int layers_done) {
  device_->Wait();
  const size_t width = config_.hidden_size;
  const bool last = layers_done == config_.layers;
  const float* row = residual_.data();
  for (const Slice& slice : slices) {
    const absl::Span<const int> layers = slice.taps.layers;
    for (size_t i = 0; i < slice.tokens.size(); ++i, row += width) {
      if (slice.taps.rows.empty() || slice.taps.rows[i] == nullptr) continue;
      for (size_t k = 0; k < layers.size(); ++k) {
        float* to = slice.taps.rows[i] + k * width;
        if (last && layers[k] == layers_done) {
          cpu::RmsNorm(row, final_norm_.data(), 1, config_.hidden_size, config_.rms_norm_epsilon, to, rounding());
        } else if (layers[k] == (last ? layers_done + 1 : layers_done)) {
          std::copy_n(row, width, to);
        }
      }
    }
  }
}

absl::Span<const float> Decoder::Head(absl::Span<const Slice> slices) {
  int wanted = 0;
  int row = 0;
  for (const Slice& slice : slices) {
    const int rows = static_cast<int>(slice.tokens.size());
    const int skipped = slice.logits == LogitsWanted::kAll ? 0 : slice.logits == LogitsWanted::kLast ? rows - 1 : rows;
    for (int i = skipped; i < rows; ++i) wanted_[wanted++] = row + i;
    row += rows;
  }
  if (wanted == 0) return {};
  // They are moved together, so that the head is one product.
  device_->Gather(residual_.data(), wanted_.data(), wanted, config_.hidden_size, product_.data());
  Normalise(product_, wanted, final_norm_);
  const size_t size = size_t(wanted) * config_.vocab_size;
  logits_.Grow(size);
  Apply(head_, normal_, wanted, logits_);
  if (config_.logit_soft_cap > 0) device_->SoftCap(logits_.data(), size, config_.logit_soft_cap);
  return absl::MakeConstSpan(logits_.data(), size);
}

void Decoder::Apply(const Linear& linear, const DeviceBuffer<float>& x, int rows, DeviceBuffer<float>& y) {
  device_->MatMul(x.data(), rows, linear.weights, y.data());
  if (!linear.bias.empty()) device_->AddBias(y.data(), linear.bias.data(), rows, linear.outputs());
}

void Decoder::Normalise(const DeviceBuffer<float>& x, int rows, const DeviceBuffer<float>& weight) {
  device_->RmsNorm(x.data(), weight.data(), rows, config_.hidden_size, config_.rms_norm_epsilon, normal_.data(),
                   rounding());
}

void Decoder::Activate() {
  const auto glu = config_.activation == Activation::kSilu ? &Device::SwiGlu : &Device::GeGlu;
  (*device_.*glu)(gate_up_.data(), batch_.rows, config_.intermediate_size, activated_.data(), rounding());
}

void Decoder::AddToResidual(const DeviceBuffer<float>& norm) {
  const int width = config_.hidden_size;
  if (!norm.empty()) {
    device_->RmsNormInPlace(product_.data(), {batch_.rows, 1, width, width}, norm.data(), config_.rms_norm_epsilon);
  }
  device_->Add(residual_.data(), product_.data(), batch_.rows, width);
}

}  // namespace quicksave::engine
