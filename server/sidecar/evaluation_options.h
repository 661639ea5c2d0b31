#ifndef QUICKSAVE_SERVER_SIDECAR_EVALUATION_OPTIONS_H_
#define QUICKSAVE_SERVER_SIDECAR_EVALUATION_OPTIONS_H_

// What an evaluation is asked to do.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace quicksave::server {

// Files of one kind of text.
struct TextKind {
  std::string kind;
  std::vector<std::string> files;
};

// Reads arguments of the form KIND=FILE or FILE, whose kind is the file's name without folder and extension; those of
// the same kind are put together, in order of appearance. INVALID_ARGUMENT for a kind or file that is empty, or a kind
// that is not printable ASCII.
absl::StatusOr<std::vector<TextKind>> ParseTextKinds(const std::vector<std::string>& arguments);

// A file's name without folder and extension, printable.
std::string KindOfFile(const std::string& file);

struct EvaluationOptions {
  std::vector<TextKind> texts;
  std::vector<int> contexts = {512};  // tokens of the states
  int continuation = 128;             // tokens on which a restored state is compared
  int pieces = 8;                     // of each kind, for each length
  int floor_pieces = 1;               // on which the noise floor is measured; 0 leaves it out
  std::vector<float> steps;           // of all latent profiles; none: each profile's named points
  bool residual = false;              // measure latent profiles with their residuals, too
  // Measure drift, too: states that are restored, extended and saved again so many times, ascending.
  std::vector<int> generations;
  int extension = 64;  // tokens by which each generation goes on
  bool allow_calibration_texts = false;
  uint64_t seed = 7;
  // Told what is being done.
  std::function<void(const std::string& what)> progress;
};

// INVALID_ARGUMENT, with the option and its limits, for what a model of this context length cannot do.
absl::Status CheckEvaluationOptions(const EvaluationOptions& options, int context_length);

// K and V that Evaluation holds at once, in tokens.
int TokensForEvaluation(const EvaluationOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_EVALUATION_OPTIONS_H_
