#include "client/cli/flags.h"

#include <CLI/CLI.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quicksave::cli {

void AddSamplingFlags(CLI::App* app, client::SamplingParameters* sampling) {
  const char* kGroup = "Sampling (unset: as the state has it; a new session is greedy)";
  app->add_option("--temperature", sampling->temperature, "0 is greedy; 0 to 100")->group(kGroup);
  app->add_option("--top-k", sampling->top_k, "Keep the K most likely tokens; 0 keeps all")->group(kGroup);
  app->add_option("--top-p", sampling->top_p, "Keep the smallest set of tokens of this probability")->group(kGroup);
  app->add_option("--min-p", sampling->min_p, "Keep tokens with this fraction of the best one's probability")
      ->group(kGroup);
  app->add_option("--repetition-penalty", sampling->repetition_penalty, "Penalty of tokens in the state; 1 is off")
      ->group(kGroup);
  app->add_option("--seed", sampling->seed, "Seed; with the position it fixes the draw")->group(kGroup);
}

void AddStopFlags(CLI::App* app, client::StopConditions* stop) {
  const char* kGroup = "Stopping";
  app->add_option("-n,--max-tokens", stop->max_tokens, "Most tokens to generate (default: the server's)")
      ->group(kGroup);
  app->add_option("--stop", stop->strings, "Text that ends the generation; may be repeated")
      ->allow_extra_args(false)
      ->group(kGroup);
  app->add_option("--stop-token", stop->token_ids, "Token id that ends the generation; may be repeated")
      ->allow_extra_args(false)
      ->group(kGroup);
  app->add_flag("--ignore-eos", stop->ignore_eos, "Go on after the model's own end")->group(kGroup);
}

void SaveFlags::AddTo(CLI::App* app) {
  static const std::map<std::string, client::EdgeType> kTypes = {{"continuation", client::EdgeType::kContinuation},
                                                                 {"intervention", client::EdgeType::kIntervention},
                                                                 {"counterfactual", client::EdgeType::kCounterfactual}};
  const char* kGroup = "The saved node";
  app->add_option("--label", labels, "KEY=VALUE; may be repeated")->allow_extra_args(false)->group(kGroup);
  app->add_option("--note", note, "Free text")->group(kGroup);
  app->add_option("--edge", edge,
                  "Edge from the session's node: continuation, intervention, counterfactual "
                  "(default: the server chooses)")
      ->transform(CLI::CheckedTransformer(kTypes, CLI::ignore_case).description(""))
      ->type_name("TYPE")
      ->group(kGroup);
}

absl::StatusOr<client::SaveOptions> SaveFlags::Options() const {
  absl::StatusOr<std::map<std::string, std::string>> pairs = ParsePairs(labels, "--label");
  if (!pairs.ok()) return pairs.status();
  return client::SaveOptions{.labels = *std::move(pairs), .note = note, .edge_type = edge};
}

void AddDurationFlag(CLI::App* app, const std::string& name, std::optional<absl::Duration>* value,
                     const std::string& description) {
  const auto parse = [name, value](const std::string& text) {
    absl::Duration duration;
    double seconds = 0;
    if (absl::SimpleAtod(text, &seconds)) {
      duration = absl::Seconds(seconds);
    } else if (!absl::ParseDuration(text, &duration)) {
      throw CLI::ValidationError(name, absl::StrCat("'", text, "' is no duration; write 30s, 5m or 1h30m"));
    }
    if (duration <= absl::ZeroDuration()) throw CLI::ValidationError(name, "must be longer than 0");
    *value = duration;
  };
  app->add_option_function<std::string>(name, parse, description)->type_name("DURATION");
}

absl::StatusOr<std::map<std::string, std::string>> ParsePairs(const std::vector<std::string>& texts, const char* what) {
  std::map<std::string, std::string> pairs;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat(what, ": '", text, "' is not KEY=VALUE"));
    }
    pairs[text.substr(0, equals)] = text.substr(equals + 1);
  }
  return pairs;
}

}  // namespace quicksave::cli
