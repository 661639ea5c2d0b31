#ifndef QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_PROGRAM_H_
#define QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_PROGRAM_H_

// What quicksave-align does with its arguments: from models, profiles and texts to a report.

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/sidecar/alignment/alignment.h"

namespace quicksave::server {

struct AlignmentProgram {
  struct Model {
    std::string dir;
    std::string profile;
    std::optional<float> step;  // of the dial; unset: the profile's point "default"
  };
  Model source;
  Model target;
  std::vector<std::string> texts;
  std::string out;  // file of the report in JSON; empty for none
  std::string command;
  bool force = false;      // replace `out` if it exists
  int pieces = 120;        // of text, in all
  int piece_tokens = 512;  // of the source
  int components = 128;    // of each group of layers
  int threads = 2;
  AlignmentOptions options;  // texts and progress are set by Run

  // Writes the report to `out_stream` as Markdown, and what is being done to `log`. Whether the figures may be relied
  // on: not when the control found something. Errors are those of ModelRunner::Load, LatentProfile::Parse, CutPieces,
  // CheckOutputFile and Align; what can be refused before the models are loaded is.
  absl::StatusOr<bool> Run(std::ostream& out_stream, std::ostream& log);
};

// The report as a Markdown table, and as JSON with the command that made it.
std::string AlignmentToMarkdown(const AlignmentReport& report);
std::string AlignmentToJson(const AlignmentReport& report, const std::string& command);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_PROGRAM_H_
