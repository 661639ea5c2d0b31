#ifndef QUICKSAVE_SERVER_SIDECAR_MODEL_RUNNER_H_
#define QUICKSAVE_SERVER_SIDECAR_MODEL_RUNNER_H_

// The engine's model without a server, for programs that calibrate and evaluate: runs texts, and hands out their K and
// V as blocks.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/codec.h"
#include "server/archive/state_replay.h"
#include "server/engine/kernels/thread_pool.h"
#include "server/engine/model/decoder.h"
#include "server/engine/page_pool.h"
#include "server/engine/sequence.h"
#include "server/text/tokenizer.h"

namespace quicksave::server {

// A text that was run: its state, and the residual stream after some layers.
struct RunText {
  engine::Sequence sequence;
  std::vector<int> splits;
  // For each split [tokens, hidden_size].
  std::vector<std::vector<float>> hidden_states;

  int tokens() const { return sequence.length(); }
  const std::vector<float>& HiddenStates(int split) const;
};

// One thread at a time.
class ModelRunner {
 public:
  // Loads a Hugging Face directory. `max_tokens` of K and V can be held at once. Errors are those of
  // engine::Decoder::Load, engine::ModelFingerprint and text::Tokenizer::Load.
  static absl::StatusOr<std::unique_ptr<ModelRunner>> Load(const std::string& model_dir, int threads, int max_tokens);

  const engine::ModelConfig& config() const { return decoder_->config(); }
  const std::string& model_dir() const { return model_dir_; }
  const std::string& fingerprint() const { return fingerprint_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }

  // Runs tokens from the beginning, so many in one forward pass; any number gives the same bits. RESOURCE_EXHAUSTED
  // without memory for them.
  absl::StatusOr<RunText> Run(absl::Span<const int32_t> tokens, const std::vector<int>& splits, int chunk = 128);

  // Logits [tokens, vocab_size] of tokens that follow a state; the state is not changed.
  absl::StatusOr<std::vector<float>> Continue(const engine::Sequence& state, absl::Span<const int32_t> tokens);

  // Appends tokens to a state, as a session that goes on does. RESOURCE_EXHAUSTED without memory for them.
  absl::Status Extend(engine::Sequence& state, absl::Span<const int32_t> tokens);

  // A state of its own with these tokens, its K and V NaN until somebody writes them.
  absl::StatusOr<engine::Sequence> NewSequence(absl::Span<const int32_t> tokens);

  compressor::BlockShape BlockShape(int tokens) const;
  // The context of tokens [first, first + count) of a text for a codec with this split, of which the text has the
  // hidden states, or for one that stores everything. The text must outlive it.
  OwnedContext ContextOf(const RunText& text, std::optional<int> split, int first, int count) const;

 private:
  ModelRunner(std::string model_dir, int threads) : model_dir_(std::move(model_dir)), threads_(threads) {}
  // Appends tokens; their logits go to `logits`, [tokens, vocab_size], unless it is null.
  absl::Status Feed(engine::Sequence& sequence, absl::Span<const int32_t> tokens, std::vector<float>* logits);

  const std::string model_dir_;
  engine::ThreadPool threads_;
  std::unique_ptr<engine::Decoder> decoder_;
  std::unique_ptr<engine::PagePool> pool_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::string fingerprint_;
  std::unique_ptr<const RopeAngles> angles_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_MODEL_RUNNER_H_
