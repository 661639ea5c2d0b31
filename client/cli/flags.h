// Flags that several commands share, bound to the fields of requests.

#ifndef QUICKSAVE_CLIENT_CLI_FLAGS_H_
#define QUICKSAVE_CLIENT_CLI_FLAGS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/command.h"
#include "quicksave/requests.h"

namespace quicksave::cli {

// --temperature, --top-k, --top-p, --min-p, the penalties, --logit-bias, --seed.
void AddSamplingFlags(CLI::App* app, client::SamplingParameters* sampling);
// --max-tokens, --stop, --stop-token, --ignore-eos.
void AddStopFlags(CLI::App* app, client::StopConditions* stop);

// --json-schema, --regex, --choice, --grammar, --no-constraint; at most one of them.
struct ConstraintFlags {
  std::string json_schema, regex, grammar;
  std::vector<std::string> choices;
  bool none = false;

  void AddTo(CLI::App* app);
  // Returns the constraint, if one was given. Reads the files that the flags name: NOT_FOUND without them.
  absl::StatusOr<std::optional<client::Constraint>> Value() const;
};

// --tap-layers, --tap-tokens, --no-taps.
struct TapFlags {
  std::vector<uint32_t> layers;
  std::optional<bool> all_tokens;
  bool none = false;

  void AddTo(CLI::App* app);
  // Returns what to capture, if that was given. INVALID_ARGUMENT for tokens without layers.
  absl::StatusOr<std::optional<client::TapSpec>> Value() const;
};

// --label, --note, --edge.
struct SaveFlags {
  std::vector<std::string> labels;
  std::string note;
  client::EdgeType edge = client::EdgeType::kUnspecified;

  void AddTo(CLI::App* app);
  // Returns the options, or INVALID_ARGUMENT for a label that is not KEY=VALUE.
  absl::StatusOr<client::SaveOptions> Options() const;
};

// --max-kl, --min-top1. Returns both options.
std::vector<CLI::Option*> AddBudgetFlags(CLI::App* app, client::FidelityBudget* budget);

// A flag for a duration: a number of seconds, or 500ms, 30s, 5m, 1h30m.
void AddDurationFlag(CLI::App* app, const std::string& name, std::optional<absl::Duration>* value,
                     const std::string& description);

// Splits KEY=VALUE texts. INVALID_ARGUMENT names the one that has no `=` or no key; `what` says what they are.
absl::StatusOr<std::map<std::string, std::string>> ParsePairs(const std::vector<std::string>& texts, const char* what);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_FLAGS_H_
