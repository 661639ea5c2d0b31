#include "server/engine/model/decoder.h"

#include <algorithm>
#include <type_traits>

#include "absl/status/status.h"

namespace quicksave::engine {

namespace {
// Rows of a slice whose attention is one item of work: large enough to share loads of keys, small enough to spread.
constexpr int kAttentionRows = 16;
}  // namespace

absl::Span<const float> Decoder::Forward(absl::Span<const Slice> slices) {
  const cpu::ScopedFlushDenormals flush;
  Prepare(slices);
  Embed(slices);
  if (tapped_) Capture(slices, 0);
  for (const Layer& layer : layers_) {
    Normalise(rows_, layer.attention_norm);
    Apply(layer.query_key_value, normal_, rows_, query_key_value_);
    RotateQueriesAndKeys(layer);
    StoreKeysAndValues(slices, layer);
    slices = WithoutSplitAt(layer, slices);
    if (rows_ == 0) break;
    Attend(layer);
    Apply(layer.attention_out, attended_, rows_, product_);
    AddToResidual(layer.after_attention_norm);

    Normalise(rows_, layer.mlp_norm);
    Apply(layer.gate_up, normal_, rows_, gate_up_);
    Activate();
    Apply(layer.down, activated_, rows_, product_);
    AddToResidual(layer.after_mlp_norm);
    if (tapped_) Capture(slices, layer.index + 1);
  }
  return Head(slices);
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
  positions_.clear();
  items_.clear();
  tapped_ = false;
  int longest = 0;
  for (const Slice& slice : slices) {
    const int first_row = static_cast<int>(positions_.size());
    const int rows = static_cast<int>(slice.tokens.size());
    for (int i = 0; i < rows; ++i) positions_.push_back(slice.first_position + i);
    for (int begin = 0; begin < rows; begin += kAttentionRows) {
      for (int head = 0; head < config_.kv_heads; ++head) {
        items_.push_back({&slice, first_row, begin, std::min(rows, begin + kAttentionRows), head});
      }
    }
    longest = std::max(longest, slice.first_position + rows);
    tapped_ = tapped_ || !slice.taps.rows.empty();
  }
  rows_ = static_cast<int>(positions_.size());
  const size_t rows = positions_.size();
  const auto grow = [](std::vector<float>& buffer, size_t size) {
    if (buffer.size() < size) buffer.resize(size);
  };
  grow(residual_, rows * config_.hidden_size);
  grow(normal_, rows * config_.hidden_size);
  grow(product_, rows * config_.hidden_size);
  grow(query_key_value_, rows * (config_.query_width() + 2 * config_.kv_width()));
  grow(attended_, rows * attended_stride());
  grow(gate_up_, rows * 2 * config_.intermediate_size);
  grow(activated_, rows * config_.intermediate_size);
  const size_t lanes = std::min<size_t>(items_.size(), threads_->threads() * 4);
  if (scratch_.size() < lanes) scratch_.resize(lanes);
  for (size_t i = 0; i < lanes; ++i) grow(scratch_[i], cpu::AttentionScratchSize(longest));
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
  const int stride = config_.query_width() + 2 * config_.kv_width();
  const int head_dim = config_.head_dim;
  const int heads = config_.query_heads + config_.kv_heads;
  const float* table = ropes_[layer.options.rope].data();
  ForRows(rows_, [&](int begin, int end) {
    float* query = query_key_value_.data() + size_t(begin) * stride;
    const auto normalise = [&](float* x, int count, const std::vector<float>& weight) {
      if (weight.empty()) return;
      cpu::RmsNormInPlace(x, {end - begin, count, head_dim, stride}, weight.data(), config_.rms_norm_epsilon);
    };
    normalise(query, config_.query_heads, layer.query_norm);
    normalise(query + config_.query_width(), config_.kv_heads, layer.key_norm);
    cpu::Rope(query, stride, end - begin, heads, head_dim, positions_.data() + begin, table);
  });
}

void Decoder::StoreKeysAndValues(absl::Span<const Slice> slices, const Layer& layer) {
  const int stride = config_.query_width() + 2 * config_.kv_width();
  const cpu::HeadShape shape{config_.query_heads, config_.kv_heads, config_.head_dim};
  const KvShape kv = kv_shape();
  const float* row = query_key_value_.data();
  for (const Slice& slice : slices) {
    for (size_t i = 0; i < slice.tokens.size(); ++i, row += stride) {
      const int position = slice.first_position + static_cast<int>(i);
      std::byte* page = slice.pages[position / cpu::kPageTokens];
      const float* key = row + config_.query_width();
      cpu::StoreKeyValue(key, key + config_.kv_width(), shape, position % cpu::kPageTokens,
                         page + kv.key_offset(layer.index), page + kv.value_offset(layer.index));
    }
  }
}

absl::Span<const Slice> Decoder::WithoutSplitAt(const Layer& layer, absl::Span<const Slice> slices) {
  while (!slices.empty() && slices.back().split == layer.index) {
    rows_ -= static_cast<int>(slices.back().tokens.size());
    while (!items_.empty() && items_.back().slice == &slices.back()) items_.pop_back();
    slices.remove_suffix(1);
  }
  return slices;
}

void Decoder::Attend(const Layer& layer) {
  const int stride = config_.query_width() + 2 * config_.kv_width();
  const int width = attended_stride();
  const cpu::HeadShape shape{config_.query_heads, config_.kv_heads, config_.head_dim};
  const KvShape kv = kv_shape();
  const cpu::AttentionOptions options{config_.attention_scale, layer.options.window, config_.attention_soft_cap,
                                      rounding()};
  // As many lanes as there is scratch: item i runs in lane i % lanes, the lanes in parallel.
  const int lanes = std::min<int>(static_cast<int>(items_.size()), threads_->threads() * 4);
  threads_->ParallelFor(lanes, [&](int lane) {
    for (size_t i = lane; i < items_.size(); i += lanes) {
      const AttentionItem& item = items_[i];
      const cpu::LayerPages pages{item.slice->pages.data(), kv.key_offset(layer.index), kv.value_offset(layer.index)};
      const size_t row = size_t(item.first_row) + item.begin;
      cpu::Attention(query_key_value_.data() + row * stride, stride, item.end - item.begin,
                     item.slice->first_position + item.begin, pages, shape, item.kv_head, options,
                     scratch_[lane].data(), attended_.data() + row * width, width);
    }
  });
}

void Decoder::Capture(absl::Span<const Slice> slices, int layers_done) {
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
  // The wanted rows are moved together, so that the head is one product.
  int wanted = 0;
  int row = 0;
  const size_t width = config_.hidden_size;
  for (const Slice& slice : slices) {
    const int rows = static_cast<int>(slice.tokens.size());
    const int skipped = slice.logits == LogitsWanted::kAll ? 0 : slice.logits == LogitsWanted::kLast ? rows - 1 : rows;
    for (int i = skipped; i < rows; ++i, ++wanted) {
      std::copy_n(residual_.data() + (row + i) * width, width, residual_.data() + wanted * width);
    }
    row += rows;
  }
  if (wanted == 0) return {};
  Normalise(wanted, final_norm_);
  const size_t size = size_t(wanted) * config_.vocab_size;
  if (logits_.size() < size) logits_.resize(size);
  Apply(head_, normal_, wanted, logits_);
  if (config_.logit_soft_cap > 0) cpu::SoftCap(logits_.data(), size, config_.logit_soft_cap);
  return absl::MakeConstSpan(logits_.data(), size);
}

void Decoder::Apply(const Linear& linear, const std::vector<float>& x, int rows, std::vector<float>& y) {
  if (const auto* w = std::get_if<cpu::Int8Matrix>(&linear.weights)) {
    fixed_.Resize(rows, w->inputs());
    ForRows(rows, [&](int begin, int end) { cpu::FixPoint(x.data(), InputStride(w->inputs()), begin, end, fixed_); });
  }
  int outputs = 0;
  std::visit(
      [&](const auto& w) {
        outputs = w.outputs();
        const int parts = std::min(w.panels(), threads_->threads() * 8);
        threads_->ParallelFor(parts, [&](int part) {
          const int first = w.panels() * part / parts;
          const int last = w.panels() * (part + 1) / parts;
          if constexpr (std::is_same_v<decltype(w), const cpu::Int8Matrix&>) {
            cpu::MatMul(fixed_, w, first, last, y.data(), outputs);
          } else {
            cpu::MatMul(x.data(), InputStride(w.inputs()), rows, w, first, last, y.data(), outputs);
          }
        });
      },
      linear.weights);
  if (linear.bias.empty()) return;
  ForRows(rows, [&](int begin, int end) {
    cpu::AddBias(y.data() + size_t(begin) * outputs, linear.bias.data(), end - begin, outputs);
  });
}

void Decoder::Normalise(int rows, const std::vector<float>& weight) {
  ForRows(rows, [&](int begin, int end) {
    const size_t width = config_.hidden_size;
    cpu::RmsNorm(residual_.data() + begin * width, weight.data(), end - begin, config_.hidden_size,
                 config_.rms_norm_epsilon, normal_.data() + begin * width, rounding());
  });
}

void Decoder::Activate() {
  const auto glu = config_.activation == Activation::kSilu ? cpu::SwiGlu : cpu::GeGlu;
  ForRows(rows_, [&](int begin, int end) {
    const size_t width = config_.intermediate_size;
    glu(gate_up_.data() + 2 * width * begin, end - begin, config_.intermediate_size, activated_.data() + width * begin,
        rounding());
  });
}

void Decoder::AddToResidual(const std::vector<float>& norm) {
  ForRows(rows_, [&](int begin, int end) {
    const int width = config_.hidden_size;
    float* product = product_.data() + size_t(begin) * width;
    if (!norm.empty()) {
      cpu::RmsNormInPlace(product, {end - begin, 1, width, width}, norm.data(), config_.rms_norm_epsilon);
    }
    cpu::Add(residual_.data() + size_t(begin) * width, product, size_t(end - begin) * width);
  });
}

void Decoder::ForRows(int rows, absl::FunctionRef<void(int, int)> work) {
  // Below this, waking another thread costs more than the rows.
  constexpr int kRowsWorthAThread = 16;
  const int parts = std::clamp(rows / kRowsWorthAThread, 1, threads_->threads());
  threads_->ParallelFor(parts, [&](int part) { work(rows * part / parts, rows * (part + 1) / parts); });
}

}  // namespace quicksave::engine
