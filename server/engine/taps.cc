#include "server/engine/taps.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/kernels/cpu_kernels.h"

namespace quicksave::engine {

absl::Status Validate(const TapSpec& spec, int model_layers) {
  int previous = -1;
  for (const int layer : spec.layers) {
    if (layer < 0 || layer > model_layers + 1) {
      return absl::InvalidArgumentError(absl::StrCat("taps.layers: ", layer, " is not one of 0 to ", model_layers + 1,
                                                     "; the model has ", model_layers, " layers"));
    }
    if (layer == previous) return absl::InvalidArgumentError(absl::StrCat("taps.layers: ", layer, " is named twice"));
    if (layer < previous) return absl::InvalidArgumentError("taps.layers: do not ascend");
    previous = layer;
  }
  return absl::OkStatus();
}

Taps::Taps(const TapSpec& spec, int hidden_size, int from) : body_(std::make_shared<Body>()) {
  body_->extent = {.spec = spec, .hidden_size = hidden_size};
  body_->from = from;
}

TapExtent Taps::extent() const { return on() ? body_->extent : TapExtent(); }

bool Taps::Has(int token) const {
  if (!on()) return false;
  const TapExtent& extent = body_->extent;
  return token >= extent.first_token && token < extent.first_token + extent.token_count;
}

int Taps::chunk_tokens() const { return body_->extent.spec.all_tokens ? cpu::kPageTokens : 1; }

std::vector<float*> Taps::Append(int first_token, int count) {
  Truncate(first_token);
  std::vector<float*> rows(count, nullptr);
  if (count == 0) return rows;
  Body& body = Mutable();
  TapExtent& extent = body.extent;
  const int kept = std::min(extent.spec.all_tokens ? count : 1, first_token + count - body.from);
  if (kept <= 0) return rows;
  const int begin = first_token + count - kept;
  if (!extent.spec.all_tokens || extent.first_token + extent.token_count != begin) extent.token_count = 0;
  if (extent.token_count == 0) {
    extent.first_token = begin;
    body.first_chunk = begin / chunk_tokens();
    // One chunk is used again and again where it can be.
    body.chunks.resize(std::min<size_t>(body.chunks.size(), 1));
  }
  for (int token = begin; token < begin + kept; ++token) rows[token - first_token] = WritableToken(body, token);
  extent.token_count += kept;
  return rows;
}

float* Taps::WritableToken(Body& body, int token) {
  const size_t width = body.extent.spec.layers.size() * body.extent.hidden_size;
  const size_t size = chunk_tokens() * width;
  const size_t index = token / chunk_tokens() - body.first_chunk;
  if (index == body.chunks.size()) {
    body.chunks.push_back(std::make_shared_for_overwrite<float[]>(size));  // NOLINT(modernize-avoid-c-arrays)
  }
  Chunk& chunk = body.chunks[index];
  if (chunk.use_count() > 1) {
    Chunk copy = std::make_shared_for_overwrite<float[]>(size);  // NOLINT(modernize-avoid-c-arrays)
    std::memcpy(copy.get(), chunk.get(), size * sizeof(float));
    chunk = std::move(copy);
  } else {
    // As in Sequence::Mutable: what another thread did with a copy that it has dropped comes before.
    Chunk(chunk).reset();
  }
  return chunk.get() + token % chunk_tokens() * width;
}

void Taps::Truncate(int length) {
  if (!on()) return;
  const TapExtent& now = body_->extent;
  if (now.first_token + now.token_count <= length) return;
  Body& body = Mutable();
  TapExtent& extent = body.extent;
  extent.token_count = std::max(0, length - extent.first_token);
  if (extent.token_count == 0) {
    extent.first_token = 0;
    body.chunks.clear();
    return;
  }
  const int last = extent.first_token + extent.token_count - 1;
  body.chunks.resize(last / chunk_tokens() - body.first_chunk + 1);
}

absl::Span<const float> Taps::Row(int layer, int token) const {
  const TapExtent& extent = body_->extent;
  const size_t width = extent.spec.layers.size() * extent.hidden_size;
  const float* chunk = body_->chunks[token / chunk_tokens() - body_->first_chunk].get();
  return absl::MakeConstSpan(chunk + token % chunk_tokens() * width + size_t(layer) * extent.hidden_size,
                             extent.hidden_size);
}

Taps Taps::WithoutValues() const { return on() ? Taps(body_->extent.spec, body_->extent.hidden_size) : Taps(); }

Taps::Body& Taps::Mutable() {
  if (body_.use_count() > 1) {
    body_ = std::make_shared<Body>(*body_);
  } else {
    std::shared_ptr<Body>(body_).reset();
  }
  return *body_;
}

bool SameTaps(const Taps& a, const Taps& b, int token) {
  for (size_t layer = 0; layer < a.layers().size(); ++layer) {
    const absl::Span<const float> x = a.Row(static_cast<int>(layer), token);
    const absl::Span<const float> y = b.Row(static_cast<int>(layer), token);
    if (x.size() != y.size() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) != 0) return false;
  }
  return true;
}

}  // namespace quicksave::engine
