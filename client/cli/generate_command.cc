// `quicksave generate`.

#include <CLI/CLI.hpp>
#include <iterator>
#include <memory>

#include "absl/strings/str_cat.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/generation_printer.h"
#include "client/cli/names.h"
#include "client/cli/samples.h"

namespace quicksave::cli {
namespace {

constexpr char kExamples[] =
    "Examples:\n"
    "  quicksave generate 'Once upon a time' -n 40 --save --label name=opening\n"
    "  quicksave generate --message 'What is a KV cache?' --temperature 0.8 --seed 7\n"
    "  quicksave generate --message system:'Be brief.' --message user:'Why?' --keep\n"
    "  quicksave generate --node 7f3a --message 'And then?' --save\n"
    "  quicksave generate --node 7f3a --at-token 120 --seed 2\n"
    "  quicksave generate --message 'Name a city' --json-schema schema.json\n"
    "  quicksave generate --message 'Is it?' --choice yes --choice no\n"
    "  quicksave generate --prompt 'Once' -n 20 --save --tap-layers 10,20 --tap-tokens all\n"
    "  quicksave generate --prompt 'Once' --samples 4 --temperature 0.8\n"
    "  cat story.txt | quicksave generate --prompt - --json";

struct GenerateFlags {
  client::GenerateRequest request;
  std::string session, node;
  std::optional<int32_t> at_token;
  bool skip_check = false;
  std::optional<std::string> prompt;
  std::vector<std::string> messages;
  std::vector<int32_t> tokens;
  bool save = false;
  SaveFlags save_flags;
  ConstraintFlags constraint;
  TapFlags taps;
  std::optional<int32_t> samples;
};

// Splits ROLE:TEXT; text without one of the roles is the user's.
client::ChatMessage ParseMessage(const std::string& text) {
  for (const char* role : {"system", "user", "assistant"}) {
    const std::string prefix = absl::StrCat(role, ":");
    if (text.rfind(prefix, 0) == 0) return {.role = role, .content = text.substr(prefix.size())};
  }
  return {.role = "user", .content = text};
}

client::Input MakeInput(const GenerateFlags& flags, Console& console) {
  if (flags.prompt == "-") return std::string(std::istreambuf_iterator<char>(console.in), {});
  if (flags.prompt) return *flags.prompt;
  if (!flags.tokens.empty()) return flags.tokens;
  if (flags.messages.empty()) return std::monostate();
  std::vector<client::ChatMessage> messages;
  for (const std::string& text : flags.messages) messages.push_back(ParseMessage(text));
  return messages;
}

absl::Status FillStart(const GenerateFlags& flags, const CommandContext& context, client::GenerateRequest* request) {
  if (!flags.session.empty()) {
    const absl::StatusOr<std::string> session = ResolveSession(context, flags.session);
    if (!session.ok()) return session.status();
    request->start = client::FromSession{.name = *session};
  } else if (!flags.node.empty()) {
    const absl::StatusOr<std::string> node = ResolveNode(context, flags.node);
    if (!node.ok()) return node.status();
    request->start = client::FromNode{.name = *node, .at_token = flags.at_token, .skip_check = flags.skip_check};
  }
  return absl::OkStatus();
}

absl::Status Stream(const client::GenerateRequest& request, GenerationPrinter& printer, CommandContext& context) {
  const auto finished = context.client.Generate(
      request, [&printer](const client::GenerateEvent& event) { return printer(event); }, context.Call());
  printer.End();
  return finished.status();
}

absl::Status Generate(const GenerateFlags& flags, CommandContext& context) {
  client::GenerateRequest request = flags.request;
  absl::Status started = FillStart(flags, context, &request);
  if (!started.ok()) return started;
  request.input = MakeInput(flags, context.console);
  if (flags.save || request.save_every_tokens) {
    absl::StatusOr<client::SaveOptions> save = flags.save_flags.Options();
    if (!save.ok()) return save.status();
    request.save = *std::move(save);
  }
  absl::StatusOr<std::optional<client::Constraint>> constraint = flags.constraint.Value();
  if (!constraint.ok()) return constraint.status();
  request.constraint = *std::move(constraint);
  absl::StatusOr<std::optional<client::TapSpec>> taps = flags.taps.Value();
  if (!taps.ok()) return taps.status();
  request.taps = *std::move(taps);
  if (flags.samples) return GenerateSamples(request, *flags.samples, context);
  GenerationPrinter printer(context.console);
  printer.set_show_pending(flags.session.empty() && !request.keep_session && !request.save);
  return Stream(request, printer, context);
}

void AddInputFlags(CLI::App* app, GenerateFlags* flags) {
  const char* kGroup = "Start and input";
  auto* session = app->add_option("--session", flags->session, "Extend this live session")->group(kGroup);
  auto* node = app->add_option("--node", flags->node, "Start from this node")->group(kGroup)->excludes(session);
  app->add_option("--at-token", flags->at_token, "Rewind the node to this many tokens")->group(kGroup)->needs(node);
  app->add_flag("--skip-check", flags->skip_check, "Restore without the check of the distribution")
      ->group(kGroup)
      ->needs(node);
  auto* prompt = app->add_option("-p,--prompt,PROMPT", flags->prompt, "Text to append; - reads it from standard input");
  auto* messages = app->add_option("-m,--message", flags->messages,
                                   "[ROLE:]TEXT, a chat message (default role: user); may be repeated");
  auto* tokens = app->add_option("--tokens", flags->tokens, "Token ids to append, separated by commas");
  prompt->group(kGroup)->excludes(messages)->excludes(tokens);
  messages->allow_extra_args(false)->group(kGroup)->excludes(tokens);
  tokens->delimiter(',')->allow_extra_args(false)->group(kGroup);
}

}  // namespace

void AddGenerateCommands(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("generate", "Generate text from a prompt, a session or a node");
  command->footer(kExamples);
  const auto flags = std::make_shared<GenerateFlags>();
  client::GenerateRequest& request = flags->request;
  AddInputFlags(command, flags.get());
  AddSamplingFlags(command, &request.sampling);
  AddStopFlags(command, &request.stop);
  flags->constraint.AddTo(command);
  flags->taps.AddTo(command);
  command->add_option("--logprobs", request.top_logprobs,
                      "Return log-probabilities with this many alternatives (shown with --json)");
  command->add_flag("--save", flags->save, "Save the final state as a node");
  command->add_option("--save-every", request.save_every_tokens, "Save, and also after every so many tokens");
  flags->save_flags.AddTo(command);
  command->add_flag("--keep", request.keep_session, "Keep the session that this call makes");
  AddDurationFlag(command, "--lease", &request.lease, "Lease of the session (default: the server's)");
  command->add_option("--request-id", request.request_id, "UUID; a repeat with --save returns the first answer");
  auto* samples = command->add_option("--samples", flags->samples,
                                      "Generate so many texts from one computed state, with seeds from --seed on; they "
                                      "differ with a --temperature");
  samples->check(CLI::Range(1, 1000))
      ->excludes(command->get_option("--session"))
      ->excludes(command->get_option("--request-id"));
  command->callback(
      [flags, chosen] { *chosen = [flags](CommandContext& context) { return Generate(*flags, context); }; });
}

}  // namespace quicksave::cli
