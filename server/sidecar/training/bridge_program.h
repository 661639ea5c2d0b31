#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_BRIDGE_PROGRAM_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_BRIDGE_PROGRAM_H_

// What quicksave-train does for bridges: trains them, and measures what hidden states are worth that come back.

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/sidecar/metrics/divergence_summary.h"
#include "server/sidecar/training/bridge.h"

namespace quicksave::server {

// One bridge, measured on held-out texts.
struct BridgeRow {
  int tap = 0;  // as in a TapSpec
  int rank = 0;
  std::string method;  // "principal components" or a loss
  uint64_t seed = 0;
  double mean_squared_error = 0;
  double relative_mse = 0;
  double cosine = 0;
  double cka = 0;
  // Next-token distributions of a model that goes on from the restored states of all tokens but the first four.
  metrics::DivergenceSummary divergence;
};

struct BridgeProgram {
  std::string model;
  std::vector<std::string> texts;
  std::string report;  // JSON; empty for none
  std::string command;
  bool force = false;
  std::vector<int> taps;
  std::vector<int> ranks = {16, 32, 64, 128, 256};
  int seeds = 3;
  int tokens = 32768;
  int piece_tokens = 512;
  int used_pieces = 4;    // held-out pieces that the model goes over
  int used_tokens = 256;  // of each
  int threads = 2;
  BridgeOptions options;  // rank, loss and seed are set by Run

  // Errors of CheckOutputFile, ModelRunner::Load, CutPieces and RolesOf; INVALID_ARGUMENT for taps that the model does
  // not have and ranks that are none.
  absl::Status Run(std::ostream& log);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_BRIDGE_PROGRAM_H_
