#ifndef QUICKSAVE_SERVER_ENGINE_TAPS_H_
#define QUICKSAVE_SERVER_ENGINE_TAPS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace quicksave::engine {

// Which hidden states to capture. Layers are counted as in `hidden_states` of Hugging Face transformers: 0 is the
// embeddings, i the residual stream after i layers, and the number of layers, L, what follows the final norm (as the
// head takes it: rounded to bf16 with weights in bf16). Besides, L + 1 is the residual stream after the last layer.
struct TapSpec {
  std::vector<int> layers;  // ascending
  bool all_tokens = false;  // else only the state's last token

  friend bool operator==(const TapSpec&, const TapSpec&) = default;
};

// The layers ascend and are at most `model_layers` + 1. INVALID_ARGUMENT, naming the first that is not.
absl::Status Validate(const TapSpec& spec, int model_layers);

// What is captured, without the values.
struct TapExtent {
  TapSpec spec;
  int hidden_size = 0;
  int first_token = 0;
  int token_count = 0;

  bool on() const { return !spec.layers.empty(); }
  int64_t bytes_per_token() const {
    return static_cast<int64_t>(spec.layers.size()) * hidden_size * static_cast<int64_t>(sizeof(float));
  }
  int64_t bytes() const { return bytes_per_token() * token_count; }

  friend bool operator==(const TapExtent&, const TapExtent&) = default;
};

// Hidden states captured with a sequence: for consecutive tokens, and each layer of the spec, a row of fp32
// [hidden_size]. Copying is O(1) and shares everything; what a copy then appends to is copied first, up to 16 tokens of
// it. One thread at a time; copies may be used by others.
class Taps {
 public:
  // Captures nothing.
  Taps() = default;
  // Captures `spec` from the next token on, but not before position `from`. The spec is valid and has layers.
  Taps(const TapSpec& spec, int hidden_size, int from = 0);

  bool on() const { return body_ != nullptr; }
  // Empty when off.
  TapExtent extent() const;
  bool Has(int token) const;
  // The layers of the spec; only when on.
  const std::vector<int>& layers() const { return body_->extent.spec.layers; }

  // Makes room for the hidden states of `count` tokens from position `first_token` on, which follow what is there;
  // what is there of these and later positions is dropped, and all of it when there is a gap. Returns, for each of
  // them, where its rows go [layers, hidden_size]; null where they are not kept. Valid until the next change, values
  // undefined. Only when on.
  std::vector<float*> Append(int first_token, int count);

  // Drops the hidden states of tokens from position `length` on.
  void Truncate(int length);

  // The row [hidden_size] of a token that is there; `layer` is an index into the spec's layers.
  absl::Span<const float> Row(int layer, int token) const;

  // The same spec, nothing captured yet.
  Taps WithoutValues() const;

 private:
  // Values [chunk_tokens, layers, hidden_size]; chunk k of the body has the positions from
  // (first_chunk + k) * chunk_tokens on.
  using Chunk = std::shared_ptr<float[]>;  // NOLINT(modernize-avoid-c-arrays)
  struct Body {
    TapExtent extent;
    int from = 0;
    int first_chunk = 0;
    std::vector<Chunk> chunks;
  };
  Body& Mutable();
  // The values of a position, in a chunk that only this body has.
  float* WritableToken(Body& body, int token);
  int chunk_tokens() const;

  std::shared_ptr<Body> body_;
};

// Whether the rows of a token that both have are the same, bit for bit. Equal layers.
bool SameTaps(const Taps& a, const Taps& b, int token);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TAPS_H_
