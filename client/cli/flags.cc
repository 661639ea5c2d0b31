#include "client/cli/flags.h"

#include <CLI/CLI.hpp>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quicksave::cli {
namespace {

void SetBiases(const std::vector<std::string>& texts, client::SamplingParameters* sampling) {
  sampling->logit_bias.emplace();
  if (texts == std::vector<std::string>{"none"}) return;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    int32_t id = 0;
    float bias = 0;
    if (equals == std::string::npos || !absl::SimpleAtoi(text.substr(0, equals), &id) ||
        !absl::SimpleAtof(text.substr(equals + 1), &bias)) {
      throw CLI::ValidationError("--logit-bias", absl::StrCat("'", text, "' is not ID=BIAS, two numbers"));
    }
    (*sampling->logit_bias)[id] = bias;
  }
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  // Of a folder too this fails, where an iterator would throw.
  if (!file || !(content << file.rdbuf())) {
    return absl::NotFoundError(absl::StrCat("cannot read '", path, "', or it is empty"));
  }
  return std::move(content).str();
}

}  // namespace

void AddSamplingFlags(CLI::App* app, client::SamplingParameters* sampling) {
  const char* kGroup = "Sampling (unset: as the state has it; a new session is greedy)";
  app->add_option("--temperature", sampling->temperature, "0 is greedy; 0 to 100")->group(kGroup);
  app->add_option("--top-k", sampling->top_k, "Keep the K most likely tokens; 0 keeps all")->group(kGroup);
  app->add_option("--top-p", sampling->top_p, "Keep the smallest set of tokens of this probability")->group(kGroup);
  app->add_option("--min-p", sampling->min_p, "Keep tokens with this fraction of the best one's probability")
      ->group(kGroup);
  app->add_option("--repetition-penalty", sampling->repetition_penalty, "Penalty of tokens in the state; 1 is off")
      ->group(kGroup);
  app->add_option("--presence-penalty", sampling->presence_penalty,
                  "Taken from the logits of tokens in the state; -2 to 2, 0 is off")
      ->group(kGroup);
  app->add_option("--frequency-penalty", sampling->frequency_penalty,
                  "The same for each time that they are there; -2 to 2, 0 is off")
      ->group(kGroup);
  app->add_option_function<std::vector<std::string>>(
         "--logit-bias", [sampling](const std::vector<std::string>& texts) { SetBiases(texts, sampling); },
         "ID=BIAS, added to a token's logit, -100 to 100; may be repeated; 'none' ends the state's biases")
      ->allow_extra_args(false)
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

void ConstraintFlags::AddTo(CLI::App* app) {
  const char* kGroup = "Constraint (unset: what is in force when nothing is appended, otherwise none)";
  CLI::Option* const options[] = {
      app->add_option("--json-schema", json_schema, "A JSON schema: its text, or the name of a file")
          ->type_name("SCHEMA"),
      app->add_option("--regex", regex, "A regular expression that the whole text matches"),
      app->add_option("--choice", choices, "The text is one of these; may be repeated")->allow_extra_args(false),
      app->add_option("--grammar", grammar, "The name of a file with a Lark grammar")->type_name("FILE"),
      app->add_flag("--no-constraint", none, "End the constraint that is in force")};
  for (CLI::Option* option : options) {
    option->group(kGroup);
    for (CLI::Option* other : options) {
      if (other != option) option->excludes(other);
    }
  }
}

absl::StatusOr<std::optional<client::Constraint>> ConstraintFlags::Value() const {
  if (none) return client::Constraint();
  if (!regex.empty()) return client::Constraint(client::Regex{regex});
  if (!choices.empty()) return client::Constraint(client::Choices{choices});
  const std::string& source = grammar.empty() ? json_schema : grammar;
  if (source.empty()) return std::nullopt;
  const size_t first = source.find_first_not_of(" \t\r\n");
  if (grammar.empty() && first != std::string::npos && source[first] == '{') {
    return client::Constraint(client::JsonSchema{source});
  }
  absl::StatusOr<std::string> text = ReadFile(source);
  if (!text.ok()) return text.status();
  if (grammar.empty()) return client::Constraint(client::JsonSchema{*std::move(text)});
  return client::Constraint(client::LarkGrammar{*std::move(text)});
}

void TapFlags::AddTo(CLI::App* app) {
  static const std::map<std::string, bool> kTokens = {{"last", false}, {"all", true}};
  const char* kGroup = "Hidden states to capture (unset: as the state has it; see 'quicksave hidden')";
  auto* layers_flag =
      app->add_option("--tap-layers", layers,
                      "Layers, separated by commas: 0 embeddings, i after i layers, the number of layers "
                      "after the final norm, one more before it");
  layers_flag->delimiter(',')->allow_extra_args(false)->type_name("LAYERS")->group(kGroup);
  app->add_option("--tap-tokens", all_tokens, "Of the last token (default), or of all from here on")
      ->transform(CLI::CheckedTransformer(kTokens, CLI::ignore_case).description(""))
      ->type_name("last|all")
      ->group(kGroup);
  app->add_flag("--no-taps", none, "Capture no more, and drop what was captured")->group(kGroup)->excludes(layers_flag);
}

absl::StatusOr<std::optional<client::TapSpec>> TapFlags::Value() const {
  if (none) return client::TapSpec();
  if (!layers.empty()) return client::TapSpec{.layers = layers, .all_tokens = all_tokens.value_or(false)};
  if (all_tokens) return absl::InvalidArgumentError("--tap-tokens goes with --tap-layers");
  return std::nullopt;
}

std::vector<CLI::Option*> AddBudgetFlags(CLI::App* app, client::FidelityBudget* budget) {
  const char* kGroup = "What an encoding that is not exact must keep to, as it was measured";
  return {
      app->add_option("--max-kl", budget->max_kl,
                      "Largest mean divergence of next-token distributions, in nats; 0.002 is what bf16 in place of "
                      "fp32 does")
          ->type_name("NATS")
          ->group(kGroup),
      app->add_option("--min-top1", budget->min_top1,
                      "Smallest share of tokens whose most likely next token is the same, 0 to 1")
          ->type_name("SHARE")
          ->group(kGroup)};
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
