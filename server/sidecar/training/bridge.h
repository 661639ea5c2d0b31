#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_BRIDGE_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_BRIDGE_H_

// Low-rank bridges for hidden states: z = (h - mean) down, h^ = mean + z up.

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace quicksave::server {

struct Bridge {
  int rank = 0;
  std::vector<float> mean;  // [width]
  std::vector<float> down;  // [width, rank]
  std::vector<float> up;    // [rank, width]

  // There and back, of rows [tokens, width].
  std::vector<float> Restore(absl::Span<const float> rows) const;
};

// What is minimised: squared error over the variance; that and 1 - cosine; the first for a half of the training, then
// both.
enum class BridgeLoss { kSquared, kSquaredAndCosine, kProgressive };
std::string_view NameOf(BridgeLoss loss);

struct BridgeOptions {
  int rank = 64;
  BridgeLoss loss = BridgeLoss::kSquared;
  int epochs = 10;
  int batch = 256;
  double learning_rate = 2e-3;  // Adam's, at first; falls to a hundredth along half a cosine
  uint64_t seed = 1;
};

// The one with the least squared error on these rows: their principal components.
Bridge PrincipalBridge(const std::vector<float>& rows, int width, int rank);

// Trained on the rows from random numbers. Equal seeds give equal bridges on the same kind of CPU and with the same
// number of threads.
Bridge TrainBridge(const std::vector<float>& rows, int width, const BridgeOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_BRIDGE_H_
