// `quicksave score`.

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/names.h"
#include "client/cli/reports.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

struct ScoreFlags {
  std::string start;
  std::optional<int32_t> at_token;
  bool skip_check = false;
  std::vector<std::string> texts;
  std::vector<int32_t> tokens;
  int32_t top_k = 0;
};

constexpr auto kRight = TextTable::Align::kRight;

// One row for each continuation: its sum, its mean and what it is.
std::string ScoreTable(const client::ScoreResponse& response, const std::vector<std::string>& names,
                       const Console& console) {
  TextTable table({{.title = "LOGPROB", .align = kRight, .style = Style::kGreen},
                   {.title = "TOKENS", .align = kRight},
                   {.title = "PER TOKEN", .align = kRight},
                   {.title = "PERPLEXITY", .align = kRight},
                   {.title = "CONTINUATION"}});
  for (size_t i = 0; i < response.scores.size(); ++i) {
    const client::ContinuationScore& score = response.scores[i];
    const double mean = score.tokens.empty() ? 0 : score.total_logprob / static_cast<double>(score.tokens.size());
    table.AddRow({absl::StrFormat("%.4f", score.total_logprob), absl::StrCat(score.tokens.size()),
                  absl::StrFormat("%.4f", mean), absl::StrFormat("%.2f", std::exp(-mean)),
                  i < names.size() ? OneLine(names[i], console.unicode) : ""});
  }
  return table.Render(console);
}

// One row for each token of a continuation, with its alternatives.
std::string TokenTable(const client::ContinuationScore& score, const Console& console) {
  TextTable table({{.title = "TOKEN", .align = kRight, .style = Style::kYellow},
                   {.title = "LOGPROB", .align = kRight, .style = Style::kGreen},
                   {.title = "MOST LIKELY"}});
  for (const client::Token& token : score.tokens) {
    const std::string top =
        absl::StrJoin(token.top, "  ", [&console](std::string* out, const client::TokenProbability& one) {
          absl::StrAppendFormat(out, "%d '%s' %.3f", one.id, OneLine(one.text, console.unicode), one.logprob);
        });
    table.AddRow({absl::StrCat(token.id), token.logprob ? absl::StrFormat("%.4f", *token.logprob) : "-", top});
  }
  return table.Render(console);
}

absl::Status Score(const ScoreFlags& flags, CommandContext& context) {
  Console& console = context.console;
  absl::StatusOr<client::Start> start = ResolveStart(context, flags.start);
  if (!start.ok()) return start.status();
  if (auto* node = std::get_if<client::FromNode>(&*start)) {
    node->at_token = flags.at_token;
    node->skip_check = flags.skip_check;
  } else if (flags.at_token) {
    return absl::InvalidArgumentError("--at-token goes with a node; a session cannot be rewound");
  }
  client::ScoreRequest request{.start = *start, .top_k = flags.top_k};
  std::vector<std::string> names;
  for (const std::string& text : flags.texts) {
    request.continuations.emplace_back(text);
    names.push_back(text);
  }
  if (!flags.tokens.empty()) {
    request.continuations.emplace_back(flags.tokens);
    names.push_back(absl::StrCat("tokens ", absl::StrJoin(flags.tokens, ",")));
  }
  if (request.continuations.empty()) return absl::InvalidArgumentError("score: give --text or --tokens");
  const auto response = context.client.Score(request, context.Call());
  if (!response.ok()) return response.status();
  if (console.json) {
    console.out << Document(ToJson(*response));
    return absl::OkStatus();
  }
  if (response->proof) console.Note(absl::StrCat("restored: ", ProofLine(*response->proof)));
  console.out << ScoreTable(*response, names, console);
  for (size_t i = 0; flags.top_k > 0 && i < response->scores.size(); ++i) {
    console.out << "\n" << TokenTable(response->scores[i], console);
  }
  return absl::OkStatus();
}

}  // namespace

void AddScoreCommand(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("score", "Log-probabilities of given continuations; changes nothing");
  command->footer(
      "Examples:\n"
      "  quicksave score 7f3a --text ' Paris' --text ' London'\n"
      "  quicksave score sessions/4be1 --tokens 7042,30 --top-k 5 --json");
  const auto flags = std::make_shared<ScoreFlags>();
  command->add_option("START", flags->start, "A session or a node")->required();
  command->add_option("--text", flags->texts, "A continuation; may be repeated")->allow_extra_args(false);
  command->add_option("--tokens", flags->tokens, "A continuation as token ids, separated by commas")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--top-k", flags->top_k, "Alternatives to show for each token, 0 to 1000");
  command->add_option("--at-token", flags->at_token, "Continue after this many tokens of the node");
  command->add_flag("--skip-check", flags->skip_check, "Restore the node without the check");
  command->callback([flags, chosen] { *chosen = [flags](CommandContext& context) { return Score(*flags, context); }; });
}

}  // namespace quicksave::cli
