#ifndef QUICKSAVE_SERVER_SIDECAR_CALIBRATION_H_
#define QUICKSAVE_SERVER_SIDECAR_CALIBRATION_H_

// Makes latent profiles of a model: runs it over texts, fits bases and predictors, counts symbols, and measures.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compressor/latent/latent_profile.h"
#include "server/sidecar/corpus.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

struct CalibrationOptions {
  std::vector<int> splits = {0};  // a profile for each
  int layers_per_group = 5;
  // Tokens before and after the point from which gradients are taken.
  int gradient_context = 512;
  int gradient_labels = 128;
  int gradient_pieces = 48;
  int gradient_samples = 2;  // draws of labels for each piece
  uint64_t seed = 1;
  // Told what is being done, and how far it is, 0 to 1.
  std::function<void(const std::string& what, double done)> progress;
};

// Profiles for options.splits. Of ten pieces one is kept for the tables and deviations, and one for the report that
// sets the points of the dial. The same pieces and options give the same profiles on the same kind of CPU.
absl::StatusOr<std::vector<compressor::LatentProfile>> Calibrate(ModelRunner& runner,
                                                                 const std::vector<TextPiece>& pieces,
                                                                 const CalibrationOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CALIBRATION_H_
