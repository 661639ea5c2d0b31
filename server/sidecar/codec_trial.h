#ifndef QUICKSAVE_SERVER_SIDECAR_CODEC_TRIAL_H_
#define QUICKSAVE_SERVER_SIDECAR_CODEC_TRIAL_H_

// What a codec does to a text's state: how many bytes, and how far the model's continuation of the restored state is
// from that of the live one.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "compressor/codec.h"
#include "server/sidecar/metrics/divergence_summary.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

// A text, run: its context, and what follows it with the logits of the live state.
struct LiveText {
  RunText context;
  std::vector<int32_t> continuation;
  std::vector<float> logits;  // [continuation, vocab_size]
};

// Runs the first `context_tokens` of a text, and the rest as its continuation.
absl::StatusOr<LiveText> RunLive(ModelRunner& runner, absl::Span<const int32_t> tokens, int context_tokens,
                                 const std::vector<int>& splits);

// How far the continuation of `state`, which has the context's tokens, is from the live one. INVALID_ARGUMENT where a
// logit is NaN: the state has values that nobody wrote.
absl::StatusOr<metrics::DivergenceRows> CompareContinuation(ModelRunner& runner, const LiveText& live,
                                                            const engine::Sequence& state);

// What encoding a state's blocks costs.
struct CodecCost {
  int64_t stored_bytes = 0;   // containers of all blocks
  int64_t payload_bytes = 0;  // of these, what is in the containers
  // Processor time of the one thread that does it: others that use the machine do not count.
  absl::Duration encode;
  absl::Duration decode;
};

struct TrialResult {
  int64_t raw_bytes = 0;  // K and V of the context, of all layers
  CodecCost cost;
  metrics::DivergenceRows divergence;
  // Of the codec with its residual, if asked for: both together.
  CodecCost layered_cost;
  metrics::DivergenceRows layered_divergence;
};

struct TrialOptions {
  std::string codec;
  // Of codecs that leave the first layers and tokens to be recomputed; none for those that store all of them.
  std::optional<int> split;
  float step = 0;  // of lossy codecs
  bool residual = false;
};

// Encodes the context's state with a codec of the registry, decodes it into memory that holds poison, and compares. The
// first layers and tokens, as the split says, are taken over from the live state: a restore recomputes them with the
// same bits. DATA_LOSS when the codec leaves values unwritten, or when residuals do not lead back to the live state.
absl::StatusOr<TrialResult> TryCodec(ModelRunner& runner, const LiveText& live,
                                     const compressor::CodecRegistry& registry, const TrialOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CODEC_TRIAL_H_
