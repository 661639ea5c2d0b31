#ifndef QUICKSAVE_SERVER_SIDECAR_CALIBRATION_H_
#define QUICKSAVE_SERVER_SIDECAR_CALIBRATION_H_

// Makes latent profiles of a model: runs it over texts, fits bases and predictors, counts symbols, and measures.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "compressor/latent/latent_profile.h"
#include "server/sidecar/calibration_notes.h"
#include "server/sidecar/corpus.h"
#include "server/sidecar/metrics/rate_distortion.h"
#include "server/sidecar/model_runner.h"
#include "server/sidecar/moment_collector.h"

namespace quicksave::server {

struct CalibrationOptions {
  std::vector<int> splits = {0};  // a profile for each
  int layers_per_group = 5;       // 0: no bases, see FitOptions
  GradientOptions gradients;
  uint64_t seed = 1;              // of the pieces; goes into the notes
  int threads = 2;                // of the fit; another number may give other bits
  std::vector<TextDigest> texts;  // what the pieces are of; go into the notes
  // Where unfinished work is kept, so that the next call with the same options goes on and gives the same profiles;
  // none is kept if this is empty. The moments are written this often at most.
  std::string work_folder;
  absl::Duration save_interval = absl::Minutes(1);
  // Told what is being done, and how far it is, 0 to 1.
  std::function<void(const std::string& what, double done)> progress;
  // Asked between pieces of text: whether to save the work and stop.
  std::function<bool()> stopped;
};

// Which pieces are for what: none is for two things.
struct PieceRoles {
  std::vector<const TextPiece*> fitted;    // bases, predictors and the metric
  std::vector<const TextPiece*> tables;    // deviations, entropy tables, centroids
  std::vector<const TextPiece*> held_out;  // the curve and the named points
};

// Of ten pieces one is for the tables and one is held out, evenly over the files; of fewer than ten, one each; of many,
// no more than some ten thousand tokens for each. INVALID_ARGUMENT for fewer than three pieces.
absl::StatusOr<PieceRoles> RolesOf(const std::vector<TextPiece>& pieces);

struct Calibration {
  std::vector<compressor::LatentProfile> profiles;  // one for each split
  // Curves on the held-out pieces, with negative controls; without machine and command.
  metrics::RateDistortionReport report;
};

// Bytes of memory that a calibration of this model needs, roughly: the model in bf16 and in fp32, the moments of all
// splits, and what the fit of the largest group takes.
double CalibrationMemory(const engine::ModelConfig& config, const CalibrationOptions& options);

// Profiles for options.splits. The same pieces and options give the same bytes on the same kind of CPU, interrupted or
// not. INVALID_ARGUMENT for splits that the model does not have, are there twice, or too few pieces; CANCELLED when
// `stopped` says yes.
absl::StatusOr<Calibration> Calibrate(ModelRunner& runner, const std::vector<TextPiece>& pieces,
                                      const CalibrationOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CALIBRATION_H_
