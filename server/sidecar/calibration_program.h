#ifndef QUICKSAVE_SERVER_SIDECAR_CALIBRATION_PROGRAM_H_
#define QUICKSAVE_SERVER_SIDECAR_CALIBRATION_PROGRAM_H_

// What quicksave-calibrate does with its arguments: from texts to files.

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/sidecar/calibration.h"
#include "server/sidecar/program_text.h"

namespace quicksave::server {

struct CalibrationProgram {
  std::string model;
  std::vector<std::string> texts;
  std::string out;     // with several splits, the split's number is added to its name
  std::string report;  // empty for none
  std::string command;
  bool force = false;  // replace files that exist
  int tokens = 65536;
  int piece_tokens = 1024;
  CalibrationOptions options;  // seed, texts and progress are set by Run

  // Does all of it, saying on `log` what it is doing. Nothing is computed if an output file cannot be written: errors
  // of CheckOutputFile; then those of ModelRunner::Load, CutPieces and Calibrate. Output files are whole or not there.
  absl::Status Run(std::ostream& log);

  // The file of a split's profile.
  std::string FileOf(int split) const;

 private:
  absl::Status CheckOutputs() const;
  absl::Status Write(const Calibration& calibration, std::ostream& log) const;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CALIBRATION_PROGRAM_H_
