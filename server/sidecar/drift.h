#ifndef QUICKSAVE_SERVER_SIDECAR_DRIFT_H_
#define QUICKSAVE_SERVER_SIDECAR_DRIFT_H_

// What becomes of a state that is restored from a latent, extended and saved as one, again and again.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/codec.h"
#include "server/sidecar/metrics/divergence_summary.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

struct DriftOptions {
  std::string codec;
  float step = 0;
  int context = 512;   // tokens of the first state
  int extension = 64;  // tokens by which each generation goes on
  // After so many generations the state is compared; ascending.
  std::vector<int> generations = {1, 5, 20};
  int continuation = 128;  // tokens on which it is compared
};

// The divergence from a state that was never encoded, after so many generations.
struct DriftRows {
  int generations = 0;
  metrics::DivergenceRows append_only;  // what was decoded is kept as it was encoded; only new tokens are encoded
  metrics::DivergenceRows anew;         // each generation encodes all tokens, decoded ones too
  metrics::DivergenceRows once;         // one encoding of the state at that length
};

// Tokens of a text that this takes.
inline int TokensForDrift(const DriftOptions& options) {
  return options.context + options.generations.back() * options.extension + options.continuation;
}

// Measures one text of TokensForDrift tokens, with a codec without recomputed layers (a state that descends from a
// lossy one is not what they would be recomputed to). Errors as TryCodec.
absl::StatusOr<std::vector<DriftRows>> MeasureDrift(ModelRunner& runner, absl::Span<const int32_t> tokens,
                                                    const compressor::CodecRegistry& registry,
                                                    const DriftOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_DRIFT_H_
