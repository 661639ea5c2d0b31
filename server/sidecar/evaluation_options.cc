#include "server/sidecar/evaluation_options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/sidecar/calibration_notes.h"

namespace quicksave::server {
namespace {

// Fewer would be mostly first tokens, which latents leave out.
constexpr int kLeastContext = 16;
// With fewer there is no perplexity.
constexpr int kLeastContinuation = 2;
// States that a trial holds: two live texts (the controls), the restored and the layered one, and a continuation. Drift
// holds a whole text, a live one, the state that drifts, one that was encoded once, and a continuation.
constexpr int kStates = 5;

absl::Status OutOfRange(absl::string_view option, int least, int most, int value) {
  return absl::InvalidArgumentError(absl::StrCat(option, " must be ", least, " to ", most, ", not ", value));
}

absl::Status CheckGenerations(const EvaluationOptions& options, int context_length) {
  if (options.generations.empty()) return absl::OkStatus();
  const int room = context_length - options.continuation - options.contexts.front();
  if (options.extension < 1 || options.extension > room) {
    return OutOfRange("the extension", 1, room, options.extension);
  }
  int last = 0;
  for (const int count : options.generations) {
    if (count <= last) return absl::InvalidArgumentError("generations must be above 0 and ascend");
    last = count;
  }
  if (last <= room / options.extension) return absl::OkStatus();
  return OutOfRange(absl::StrCat("generations of ", options.extension, " tokens"), 1, room / options.extension, last);
}

absl::Status CheckTexts(const std::vector<TextKind>& texts) {
  if (texts.empty()) return absl::InvalidArgumentError("evaluation needs a text");
  std::set<std::string> kinds;
  for (const TextKind& text : texts) {
    if (kinds.insert(text.kind).second && !text.files.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat("the kind of text '", text.kind, "' is there twice or has no file"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string KindOfFile(const std::string& file) { return PrintableAscii(std::filesystem::path(file).stem().string()); }

absl::StatusOr<std::vector<TextKind>> ParseTextKinds(const std::vector<std::string>& arguments) {
  std::vector<TextKind> kinds;
  for (const std::string& argument : arguments) {
    // A '=' behind a '/' belongs to the file's name.
    const size_t equals = argument.find('=');
    const bool named = equals != std::string::npos && equals < argument.find('/');
    const std::string file = named ? argument.substr(equals + 1) : argument;
    const std::string kind = named ? argument.substr(0, equals) : KindOfFile(file);
    if (kind.empty() || file.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("a text is KIND=FILE or FILE, not '", argument, "'"));
    }
    if (PrintableAscii(kind) != kind) {
      return absl::InvalidArgumentError(absl::StrCat("the kind of the text ", file, " is not printable ASCII"));
    }
    const auto same = std::find_if(kinds.begin(), kinds.end(), [&](const TextKind& k) { return k.kind == kind; });
    if (same != kinds.end()) {
      same->files.push_back(file);
    } else {
      kinds.push_back({kind, {file}});
    }
  }
  return kinds;
}

absl::Status CheckEvaluationOptions(const EvaluationOptions& options, int context_length) {
  if (absl::Status status = CheckTexts(options.texts); !status.ok()) return status;
  if (options.contexts.empty()) return absl::InvalidArgumentError("evaluation needs a context length");
  if (options.continuation < kLeastContinuation || options.continuation > context_length - kLeastContext) {
    return OutOfRange("the continuation", kLeastContinuation, context_length - kLeastContext, options.continuation);
  }
  std::set<int> contexts;
  for (const int context : options.contexts) {
    const int most = context_length - options.continuation;
    if (context < kLeastContext || context > most) {
      return absl::InvalidArgumentError(absl::StrCat("a context must be ", kLeastContext, " to ", most, " tokens (the ",
                                                     "model's ", context_length, " less the continuation's ",
                                                     options.continuation, "), not ", context));
    }
    if (!contexts.insert(context).second) {
      return absl::InvalidArgumentError(absl::StrCat("the context ", context, " is there twice"));
    }
  }
  if (options.pieces < 1) return OutOfRange("the pieces of each kind", 1, 1 << 20, options.pieces);
  if (options.floor_pieces < 0) return OutOfRange("the noise floor's pieces", 0, 1 << 20, options.floor_pieces);
  if (absl::Status status = CheckGenerations(options, context_length); !status.ok()) return status;
  for (const float step : options.steps) {
    if (std::isfinite(step) && step > 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("a step must be a number above 0, not ", step));
  }
  return absl::OkStatus();
}

int TokensForEvaluation(const EvaluationOptions& options) {
  int longest = 0;
  for (const int context : options.contexts) longest = std::max(longest, context);
  if (!options.generations.empty()) {
    longest = std::max(longest, options.contexts.front() + options.generations.back() * options.extension);
  }
  return kStates * (longest + options.continuation);
}

}  // namespace quicksave::server
