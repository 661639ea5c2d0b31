#ifndef QUICKSAVE_SERVER_SIDECAR_CODEC_TRIAL_H_
#define QUICKSAVE_SERVER_SIDECAR_CODEC_TRIAL_H_

// What a codec does to a text's state: how many bytes, and how far the model's continuation of the restored state is
// from that of the live one.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "compressor/codec.h"
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

struct TrialResult {
  int64_t raw_bytes = 0;       // K and V of the context
  int64_t stored_bytes = 0;    // containers of all blocks
  int64_t residual_bytes = 0;  // containers of their residuals, if asked for; these were decoded to the exact bits
  std::vector<double> kl;      // of the live next-token distribution from the restored one, in nats, for each token
  std::vector<bool> same_top;
  double live_nll = 0;  // of the continuation's tokens, summed
  double restored_nll = 0;
  absl::Duration encode;  // on one core, without residuals
  absl::Duration decode;
};

struct TrialOptions {
  std::string codec;
  int split = 0;
  float step = 0;  // of lossy codecs
  bool residual = false;
};

// Encodes the context's state with a codec of the registry, decodes it, and compares. The first layers and tokens, as
// the split says, are taken over from the live state: a restore recomputes them with the same bits. DATA_LOSS when
// residuals do not lead back to the live state.
absl::StatusOr<TrialResult> TryCodec(ModelRunner& runner, const LiveText& live,
                                     const compressor::CodecRegistry& registry, const TrialOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CODEC_TRIAL_H_
