#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_PROGRAM_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_PROGRAM_H_

// What quicksave-train does with its arguments for sidecars of K and V: from texts to a profile and a report.

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/sidecar/training/training_options.h"

namespace quicksave::server {

struct TrainingProgram {
  std::string model;
  std::vector<std::string> texts;
  std::string out;
  std::string report;                // JSON; empty for none
  std::string front;                 // a latent profile whose components are trained on; empty: plain channels
  std::vector<std::string> compare;  // latent profiles to measure beside it
  std::string work;                  // folder of the checkpoint; empty for none
  std::string command;
  bool force = false;
  bool principal = true;      // whether to measure principal components of the same groups, too
  std::string principal_out;  // where to write their profile; empty for none
  int split = 0;              // without a front
  int layers_per_group = 4;   // without a front
  int tokens = 40960;
  int piece_tokens = 1024;
  int threads = 2;
  absl::Duration save_interval = absl::Minutes(1);
  TrainingOptions options;
  // Asked between steps: whether to save the work and stop.
  std::function<bool()> stopped;

  // Trains, counts tables, measures beside principal components of the same groups and the profiles to compare with,
  // and writes, saying on `log` what it is doing. Errors of CheckOutputFile, ModelRunner::Load, CutPieces, RolesOf and
  // SidecarTrainer; FAILED_PRECONDITION for a front of another model or a work folder of other options; CANCELLED when
  // `stopped` says yes. Output files are whole or not there.
  absl::Status Run(std::ostream& log);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_PROGRAM_H_
