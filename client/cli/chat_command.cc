// `quicksave chat`: a conversation on a session that is kept alive.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/command.h"
#include "client/cli/error_text.h"
#include "client/cli/flags.h"
#include "client/cli/generation_printer.h"
#include "client/cli/json_output.h"
#include "client/cli/names.h"
#include "client/cli/reports.h"

namespace quicksave::cli {
namespace {

constexpr char kExamples[] =
    "Each line is a message; a line that begins with / is a command:\n"
    "  /save [LABEL | KEY=VALUE ...]  save the state as a node (LABEL is short for name=LABEL)\n"
    "  /branch [COUNT]                make sessions that go on from here; /switch N goes on with one\n"
    "  /sessions                      list the sessions of this chat\n"
    "  /help, /quit\n\n"
    "Sessions that the chat made end with it, unless --keep is given. Ctrl-C stops an answer, or the chat.\n\n"
    "Examples:\n"
    "  quicksave chat --system 'You are a helpful assistant.' --temperature 0.7 --seed 1\n"
    "  quicksave chat --node 7f3a\n"
    "  printf 'Hello\\n/save greeting\\n' | quicksave chat";

constexpr char kHelp[] =
    "/save [LABEL | KEY=VALUE ...], /branch [COUNT], /switch N, /sessions, /quit; anything else is a message";

struct ChatFlags {
  std::string session, node, system;
  std::optional<int32_t> at_token;
  client::SamplingParameters sampling;
  client::StopConditions stop;
  bool keep = false;
};

class Chat {
 public:
  Chat(const ChatFlags& flags, CommandContext& context) : flags_(flags), context_(context), console_(context.console) {}

  absl::Status Run() {
    absl::Status opened = Open();
    if (!opened.ok()) return opened;
    if (console_.in_is_terminal) console_.Note(kHelp);
    absl::Status status = Loop();
    Close();
    return status;
  }

 private:
  // Takes the session or restores the node that was asked for.
  absl::Status Open() {
    if (!flags_.session.empty()) {
      absl::StatusOr<std::string> session = ResolveSession(context_, flags_.session);
      if (session.ok()) sessions_ = {*session};
      return session.status();
    }
    if (flags_.node.empty()) return absl::OkStatus();
    const absl::StatusOr<std::string> node = ResolveNode(context_, flags_.node);
    if (!node.ok()) return node.status();
    const auto restored = context_.client.Restore(
        {.node = *node, .at_token = flags_.at_token, .sampling = flags_.sampling}, context_.Call());
    if (!restored.ok()) return restored.status();
    Made(restored->session.name);
    console_.Note(absl::StrCat("restored ", *node, ": ", ProofLine(restored->proof)));
    return absl::OkStatus();
  }

  // Reads lines until the end. A person may go on after an error, a script may not.
  absl::Status Loop() {
    std::string line;
    while (Prompt() && std::getline(console_.in, line)) {
      const absl::string_view text = absl::StripAsciiWhitespace(line);
      if (text.empty()) continue;
      if (text == "/quit" || text == "/exit") break;
      absl::Status status = text[0] == '/' ? Command(text) : Say(std::string(text));
      if (absl::IsCancelled(status)) {
        console_.Note("[stopped]");
        if (!console_.in_is_terminal) return status;
        context_.token = context_.arm();
      } else if (!status.ok()) {
        if (!console_.in_is_terminal) return status;
        console_.err << ErrorText(status, console_) << std::flush;
      }
    }
    return context_.token.cancelled() ? absl::CancelledError("stopped") : absl::OkStatus();
  }

  bool Prompt() {
    if (console_.in_is_terminal && !console_.json) console_.out << console_.Styled("> ", Style::kBold) << std::flush;
    return true;
  }

  absl::Status Say(const std::string& text) {
    client::GenerateRequest request{.sampling = flags_.sampling, .stop = flags_.stop, .keep_session = true};
    std::vector<client::ChatMessage> messages;
    if (sessions_.empty()) {
      if (!flags_.system.empty()) messages.push_back({.role = "system", .content = flags_.system});
    } else {
      request.start = client::FromSession{.name = sessions_[current_]};
    }
    messages.push_back({.role = "user", .content = text});
    request.input = std::move(messages);
    GenerationPrinter printer(console_);
    printer.set_name_session(false);
    const auto on_event = [this, &printer](const client::GenerateEvent& event) {
      // From here on the server keeps the session, also when the answer is interrupted or fails.
      const auto* started = std::get_if<client::GenerateStarted>(&event);
      if (started != nullptr && sessions_.empty()) Made(started->session);
      return printer(event);
    };
    const auto finished = context_.client.Generate(request, on_event, context_.Call());
    printer.End();
    return finished.status();
  }

  absl::Status Command(absl::string_view text) {
    const std::vector<std::string> words = absl::StrSplit(text, ' ', absl::SkipWhitespace());
    const std::vector<std::string> arguments(words.begin() + 1, words.end());
    if (words[0] == "/help") {
      console_.out << kHelp << "\n";
      return absl::OkStatus();
    }
    if (words[0] == "/sessions") return ShowSessions();
    const bool known = words[0] == "/save" || words[0] == "/branch" || words[0] == "/switch";
    if (!known) return absl::InvalidArgumentError(absl::StrCat("no command '", words[0], "'; ", kHelp));
    if (sessions_.empty()) return absl::FailedPreconditionError("the chat has no session yet; say something first");
    if (words[0] == "/save") return Save(arguments);
    return words[0] == "/branch" ? Branch(arguments) : Switch(arguments);
  }

  absl::Status Save(std::vector<std::string> labels) {
    for (std::string& label : labels) {
      if (!absl::StrContains(label, "=")) label = absl::StrCat("name=", label);
    }
    const auto pairs = ParsePairs(labels, "/save");
    if (!pairs.ok()) return pairs.status();
    const auto saved =
        context_.client.Snapshot({.session = sessions_[current_], .save = {.labels = *pairs}}, context_.Call());
    if (!saved.ok()) return saved.status();
    console_.out << (console_.json ? Line(ToJson(client::GenerateEvent(*saved))) : SavedLine(*saved) + "\n")
                 << std::flush;
    return absl::OkStatus();
  }

  absl::Status Branch(const std::vector<std::string>& arguments) {
    int32_t count = 1;
    if (!arguments.empty() && !absl::SimpleAtoi(arguments[0], &count)) {
      return absl::InvalidArgumentError(absl::StrCat("/branch: '", arguments[0], "' is no number"));
    }
    const auto branched = context_.client.Branch(
        {.start = client::FromSession{.name = sessions_[current_]}, .count = count}, context_.Call());
    if (!branched.ok()) return branched.status();
    for (const client::Session& session : branched->sessions) Made(session.name);
    return ShowSessions();
  }

  absl::Status Switch(const std::vector<std::string>& arguments) {
    size_t number = 0;
    if (arguments.size() != 1 || !absl::SimpleAtoi(arguments[0], &number) || number < 1 || number > sessions_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("/switch wants a number from 1 to ", sessions_.size()));
    }
    current_ = number - 1;
    return ShowSessions();
  }

  absl::Status ShowSessions() {
    if (console_.json) {
      console_.out << Line(Json{{"event", "sessions"}, {"current", current_ + 1}, {"sessions", sessions_}});
    } else {
      for (size_t i = 0; i < sessions_.size(); ++i) {
        console_.out << (i == current_ ? "* " : "  ") << i + 1 << "  " << sessions_[i] << "\n";
      }
    }
    console_.out << std::flush;
    return absl::OkStatus();
  }

  void Made(const std::string& session) {
    sessions_.push_back(session);
    made_.push_back(session);
  }

  void Close() {
    context_.token = context_.arm();
    if (flags_.keep) {
      for (const std::string& session : made_) console_.Note(absl::StrCat("session ", session, " is kept"));
      return;
    }
    // A session that is not ended now ends with its lease.
    for (const std::string& session : made_) {
      context_.client.DeleteSession({.name = session}, context_.Call()).IgnoreError();
    }
  }

  const ChatFlags& flags_;
  CommandContext& context_;
  Console& console_;
  std::vector<std::string> sessions_;
  std::vector<std::string> made_;
  size_t current_ = 0;
};

}  // namespace

void AddChatCommand(CLI::App& app, CommandBody* chosen) {
  auto* command = app.add_subcommand("chat", "Talk with the model; /save, /branch and /quit on the way");
  command->footer(kExamples);
  const auto flags = std::make_shared<ChatFlags>();
  auto* session = command->add_option("--session", flags->session, "Go on with this live session");
  auto* node = command->add_option("--node", flags->node, "Go on from this node")->excludes(session);
  command->add_option("--at-token", flags->at_token, "Rewind the node to this many tokens")->needs(node);
  command->add_option("--system", flags->system, "System message of a new chat")->excludes(session)->excludes(node);
  AddSamplingFlags(command, &flags->sampling);
  AddStopFlags(command, &flags->stop);
  command->add_flag("--keep", flags->keep, "Keep the sessions when the chat ends");
  command->callback(
      [flags, chosen] { *chosen = [flags](CommandContext& context) { return Chat(*flags, context).Run(); }; });
}

}  // namespace quicksave::cli
