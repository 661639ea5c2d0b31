#ifndef QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_PROGRAM_H_
#define QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_PROGRAM_H_

// What quicksave-align does with its arguments: from models, profiles and texts to a report.

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/sidecar/alignment/alignment.h"

namespace quicksave::server {

struct AlignmentProgram {
  struct Model {
    std::string dir;
    std::string profile;
    float step = 0;  // of the dial; 0: the profile's point "default"
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
  uint64_t seed = 11;
  AlignmentOptions options;  // texts and progress are set by Run

  // Writes the report to `out_stream` as Markdown, and what is being done to `log`. Errors are those of
  // ModelRunner::Load, LatentProfile::Parse, CutPieces, CheckOutputFile and Align.
  absl::Status Run(std::ostream& out_stream, std::ostream& log);
};

// The report as a Markdown table, and as JSON with the command that made it.
std::string AlignmentToMarkdown(const AlignmentReport& report);
std::string AlignmentToJson(const AlignmentReport& report, const std::string& command);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_PROGRAM_H_
