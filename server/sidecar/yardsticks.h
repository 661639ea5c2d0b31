#ifndef QUICKSAVE_SERVER_SIDECAR_YARDSTICKS_H_
#define QUICKSAVE_SERVER_SIDECAR_YARDSTICKS_H_

// What a codec's divergence is held against: states that must be far from the live one, and arithmetic that is as good
// as the engine's.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/engine/model/reference_decoder.h"
#include "server/sidecar/codec_trial.h"
#include "server/sidecar/metrics/poison.h"

namespace quicksave::server {

// Measures wrong states of two texts of the same length: zeros for all K and V, and the other text's K and V. The same
// path as a codec's restored state takes. Mean KL over both texts.
absl::StatusOr<std::vector<metrics::NegativeControl>> MeasureControls(ModelRunner& runner, const LiveText& a,
                                                                      const LiveText& b);

// The divergence of the same model in fp32, which reads the same tokens, from the engine's live state: what the
// engine's bf16 arithmetic and its bf16 K and V do.
absl::StatusOr<metrics::DivergenceRows> CompareWithReference(const engine::ReferenceDecoder& reference,
                                                             const LiveText& live);

// How many 16-bit values of K and V differ when the same tokens are run in chunks of this size. 0: the engine gives the
// same bits for any chunks, so that prefill in other chunks is no noise here.
absl::StatusOr<int64_t> CountChunkDifferences(ModelRunner& runner, const RunText& text, int chunk);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_YARDSTICKS_H_
