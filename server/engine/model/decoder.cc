#include "server/engine/model/decoder.h"

#include <algorithm>
#include <cmath>

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
  for (int i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    Normalise(residual_.data(), rows_, layer.attention_norm, normal_);
    MatMul(normal_.data(), rows_, layer.query_key_value, query_key_value_);
    StoreKeysAndValues(slices, i);
    Attend(slices, i);
    MatMul(attended_.data(), rows_, layer.attention_out, product_);
    AddRows(product_);

    Normalise(residual_.data(), rows_, layer.mlp_norm, normal_);
    MatMul(normal_.data(), rows_, layer.gate_up, gate_up_);
    ForRows(rows_, [this](int begin, int end) {
      const size_t width = config_.intermediate_size;
      cpu::SwiGlu(gate_up_.data() + 2 * width * begin, end - begin, config_.intermediate_size,
                  activated_.data() + width * begin);
    });
    MatMul(activated_.data(), rows_, layer.down, product_);
    AddRows(product_);
  }
  return Head(slices);
}

void Decoder::Prepare(absl::Span<const Slice> slices) {
  positions_.clear();
  items_.clear();
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
  grow(attended_, rows * config_.query_width());
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
      const uint16_t* from = embedding_ + size_t(token) * config_.hidden_size;
      for (int i = 0; i < config_.hidden_size; ++i) *to++ = cpu::Bf16ToFloat(from[i]);
    }
  }
}

void Decoder::StoreKeysAndValues(absl::Span<const Slice> slices, int layer) {
  const int stride = config_.query_width() + 2 * config_.kv_width();
  ForRows(rows_, [&](int begin, int end) {
    cpu::Rope(query_key_value_.data() + size_t(begin) * stride, stride, end - begin,
              config_.query_heads + config_.kv_heads, config_.head_dim, positions_.data() + begin, rope_.data());
  });
  const cpu::HeadShape shape{config_.query_heads, config_.kv_heads, config_.head_dim};
  const KvShape kv = kv_shape();
  const float* row = query_key_value_.data();
  for (const Slice& slice : slices) {
    for (size_t i = 0; i < slice.tokens.size(); ++i, row += stride) {
      const int position = slice.first_position + static_cast<int>(i);
      std::byte* page = slice.pages[position / cpu::kPageTokens];
      const float* key = row + config_.query_width();
      cpu::StoreKeyValue(key, key + config_.kv_width(), shape, position % cpu::kPageTokens, page + kv.key_offset(layer),
                         page + kv.value_offset(layer));
    }
  }
}

void Decoder::Attend(absl::Span<const Slice> slices, int layer) {
  const int stride = config_.query_width() + 2 * config_.kv_width();
  const int width = config_.query_width();
  const cpu::HeadShape shape{config_.query_heads, config_.kv_heads, config_.head_dim};
  const KvShape kv = kv_shape();
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  // As many lanes as there is scratch: item i runs in lane i % lanes, the lanes in parallel.
  const int lanes = std::min<int>(static_cast<int>(items_.size()), threads_->threads() * 4);
  threads_->ParallelFor(lanes, [&](int lane) {
    for (size_t i = lane; i < items_.size(); i += lanes) {
      const AttentionItem& item = items_[i];
      const cpu::LayerPages pages{item.slice->pages.data(), kv.key_offset(layer), kv.value_offset(layer)};
      const size_t row = size_t(item.first_row) + item.begin;
      cpu::Attention(query_key_value_.data() + row * stride, stride, item.end - item.begin,
                     item.slice->first_position + item.begin, pages, shape, item.kv_head, scale, scratch_[lane].data(),
                     attended_.data() + row * width, width);
    }
  });
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
  Normalise(residual_.data(), wanted, final_norm_, normal_);
  const size_t size = size_t(wanted) * config_.vocab_size;
  if (logits_.size() < size) logits_.resize(size);
  MatMul(normal_.data(), wanted, head_, logits_);
  return absl::MakeConstSpan(logits_.data(), size);
}

void Decoder::MatMul(const float* x, int rows, const cpu::PackedMatrix& w, std::vector<float>& y) {
  const int parts = std::min(w.panels(), threads_->threads() * 8);
  threads_->ParallelFor(parts, [&](int part) {
    cpu::MatMul(x, w.inputs(), rows, w, w.panels() * part / parts, w.panels() * (part + 1) / parts, y.data(),
                w.outputs());
  });
}

void Decoder::Normalise(const float* x, int rows, const std::vector<float>& weight, std::vector<float>& y) {
  ForRows(rows, [&](int begin, int end) {
    const size_t width = config_.hidden_size;
    cpu::RmsNorm(x + begin * width, weight.data(), end - begin, config_.hidden_size, config_.rms_norm_epsilon,
                 y.data() + begin * width);
  });
}

void Decoder::AddRows(const std::vector<float>& y) {
  ForRows(rows_, [&](int begin, int end) {
    const size_t width = config_.hidden_size;
    cpu::Add(residual_.data() + begin * width, y.data() + begin * width, (end - begin) * width);
  });
}

void Decoder::ForRows(int rows, absl::FunctionRef<void(int, int)> work) {
  // Below this, waking another thread costs more than the rows.
  constexpr int kRowsWorthAThread = 16;
  const int parts = std::clamp(rows / kRowsWorthAThread, 1, threads_->threads());
  threads_->ParallelFor(parts, [&](int part) { work(rows * part / parts, rows * (part + 1) / parts); });
}

}  // namespace quicksave::engine
