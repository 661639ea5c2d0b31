#ifndef QUICKSAVE_SERVER_SIDECAR_EVALUATION_PROGRAM_H_
#define QUICKSAVE_SERVER_SIDECAR_EVALUATION_PROGRAM_H_

// What quicksave-eval does with its arguments: from texts and profiles to a report.

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/sidecar/evaluation_options.h"

namespace quicksave::server {

struct EvaluationProgram {
  std::string model;
  std::vector<std::string> texts;  // KIND=FILE or FILE
  std::vector<std::string> profiles;
  std::string exact_profile;  // empty for none
  std::string out;            // folder of the report; empty for none
  std::string command;
  int threads = 2;
  EvaluationOptions options;  // texts and progress are set by Run

  // Writes the report as Markdown to `out_stream`, and to the folder; says on `log` what it is doing. Whether the
  // figures may be relied on: not when a negative control did not fail. Wrong options, and a folder that cannot be made
  // or written to, are refused before anything is computed.
  absl::StatusOr<bool> Run(std::ostream& out_stream, std::ostream& log);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_EVALUATION_PROGRAM_H_
