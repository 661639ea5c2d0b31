// `quicksave hidden`.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/command.h"
#include "client/cli/json_output.h"
#include "client/cli/names.h"
#include "client/cli/safetensors_file.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

struct HiddenFlags {
  std::string source;
  client::ReadTapsRequest request;
  std::string out;
};

// Euclidean lengths of the rows of a layer.
std::vector<double> Norms(const client::HiddenStates& states, size_t layer) {
  std::vector<double> norms(states.token_count);
  const float* value = states.values.data() + layer * states.token_count * states.hidden_size;
  for (double& norm : norms) {
    for (int32_t i = 0; i < states.hidden_size; ++i, ++value) norm += double{*value} * *value;
    norm = std::sqrt(norm);
  }
  return norms;
}

std::string Table(const client::HiddenStates& states, const Console& console) {
  constexpr auto kRight = TextTable::Align::kRight;
  TextTable table({{.title = "LAYER", .align = kRight, .style = Style::kYellow},
                   {.title = "TOKENS", .align = kRight},
                   {.title = "MEAN NORM", .align = kRight, .style = Style::kGreen},
                   {.title = "SMALLEST", .align = kRight},
                   {.title = "LARGEST", .align = kRight}});
  for (size_t i = 0; i < states.layers.size(); ++i) {
    const std::vector<double> norms = Norms(states, i);
    double sum = 0;
    for (const double norm : norms) sum += norm;
    const auto [smallest, largest] = std::minmax_element(norms.begin(), norms.end());
    const auto number = [&](double value) { return norms.empty() ? "-" : absl::StrFormat("%.3f", value); };
    table.AddRow({absl::StrCat(states.layers[i]), absl::StrCat(states.token_count),
                  number(sum / static_cast<double>(std::max<size_t>(1, norms.size()))),
                  number(norms.empty() ? 0 : *smallest), number(norms.empty() ? 0 : *largest)});
  }
  return table.Render(console);
}

Json Summary(const client::HiddenStates& states) {
  Json json = {{"layers", states.layers},
               {"first_token", states.first_token},
               {"token_count", states.token_count},
               {"hidden_size", states.hidden_size},
               {"model_fingerprint", states.model_fingerprint}};
  json["norms"] = Json::array();
  for (size_t i = 0; i < states.layers.size(); ++i) json["norms"].push_back(Norms(states, i));
  return json;
}

absl::Status Hidden(const HiddenFlags& flags, CommandContext& context) {
  Console& console = context.console;
  client::ReadTapsRequest request = flags.request;
  absl::StatusOr<client::Start> source = ResolveStart(context, flags.source);
  if (!source.ok()) return source.status();
  request.source = *source;
  const auto* node = std::get_if<client::FromNode>(&*source);
  const std::string name = node != nullptr ? node->name : std::get<client::FromSession>(*source).name;
  const absl::StatusOr<client::HiddenStates> states = context.client.ReadTaps(request, context.Call());
  if (!states.ok()) return states.status();
  if (!flags.out.empty()) {
    if (absl::Status written = WriteSafetensors(flags.out, *states, name); !written.ok()) return written;
  }
  if (console.json) {
    console.out << Document(Summary(*states));
    return absl::OkStatus();
  }
  console.out << Table(*states, console);
  if (!flags.out.empty()) {
    console.Note(absl::StrCat("wrote ", flags.out, ": hidden_states.LAYER, F32 [", states->token_count, ", ",
                              states->hidden_size, "], first token ", states->first_token));
  }
  return absl::OkStatus();
}

}  // namespace

void AddHiddenCommand(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("hidden", "Hidden states that a session or a node captured");
  command->footer(
      "Examples:\n"
      "  quicksave generate --prompt 'Once upon a time' --tap-layers 10,20 --tap-tokens all --save\n"
      "  quicksave hidden 7f3a\n"
      "  quicksave hidden 7f3a --layer 10 --out hidden.safetensors");
  const auto flags = std::make_shared<HiddenFlags>();
  command->add_option("SOURCE", flags->source, "A session or a node")->required();
  command->add_option("--layer", flags->request.layers, "Layers, separated by commas (default: all that were captured)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("LAYERS");
  command->add_option("--first-token", flags->request.first_token, "First token (default: the first captured)");
  command->add_option("--token-count", flags->request.token_count, "Tokens (default: all from there on)");
  command->add_option("-o,--out", flags->out, "Write them to this file, in the safetensors format")->type_name("FILE");
  command->callback(
      [flags, chosen] { *chosen = [flags](CommandContext& context) { return Hidden(*flags, context); }; });
}

}  // namespace quicksave::cli
