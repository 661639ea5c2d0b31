#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_SET_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_SET_H_

// What sidecars are trained on: the components that a base profile makes of a model's K and V.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "compressor/latent/latent_profile.h"
#include "server/sidecar/corpus.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

// Consecutive tokens of a block that a run has: as many as the first block of a text stores.
inline constexpr int kRunTokens = 124;

// Runs of consecutive tokens, none across the end of a block.
struct TrainingSet {
  // For each group of the base [runs, kRunTokens, components].
  std::vector<std::vector<float>> groups;
  // Where in its text each run begins.
  std::vector<int64_t> first_positions;

  int64_t runs() const { return static_cast<int64_t>(first_positions.size()); }
  int64_t tokens() const { return runs() * kRunTokens; }
};

// Runs the model over the pieces. Holds 4 bytes for each component of each token. Blocks with fewer tokens than a run
// are left out; INVALID_ARGUMENT if nothing is left.
absl::StatusOr<TrainingSet> CollectTrainingSet(ModelRunner& runner, const std::vector<const TextPiece*>& pieces,
                                               const compressor::LatentProfile& base);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_SET_H_
