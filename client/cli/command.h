// What every command of the tool has: a client, a console, a time limit and Ctrl-C.

#ifndef QUICKSAVE_CLIENT_CLI_COMMAND_H_
#define QUICKSAVE_CLIENT_CLI_COMMAND_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/console.h"
#include "quicksave/client.h"

namespace CLI {  // NOLINT(readability-identifier-naming): it is the library's name
class App;
class Option;
}  // namespace CLI

namespace quicksave::cli {

struct CommandContext {
  client::Client client;
  Console& console;
  // Limit of each call, as --timeout gives it.
  std::optional<absl::Duration> timeout;
  // Returns a token that the next Ctrl-C cancels; the one before is then no longer cancelled by it.
  std::function<client::CancellationToken()> arm;
  // What Ctrl-C cancels now.
  client::CancellationToken token;

  client::CallOptions Call() const { return {.timeout = timeout, .cancellation = token}; }
};

// Runs a command that was given. Its status becomes the exit code.
using CommandBody = std::function<absl::Status(CommandContext&)>;

// Adds the commands of one group to `app`; the one that is given on the command line puts its body into `chosen`.
void AddGenerateCommands(CLI::App& app, CommandBody* chosen);
void AddChatCommand(CLI::App& app, CommandBody* chosen);
void AddStateCommands(CLI::App& app, CommandBody* chosen);
void AddScoreCommand(CLI::App& app, CommandBody* chosen);
void AddHiddenCommand(CLI::App& app, CommandBody* chosen);
void AddListCommands(CLI::App& app, CommandBody* chosen);
void AddTreeCommand(CLI::App& app, CommandBody* chosen);
void AddNodeCommands(CLI::App& app, CommandBody* chosen);
void AddEncodingCommands(CLI::App& app, CommandBody* chosen);
void AddServerCommands(CLI::App& app, CommandBody* chosen);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_COMMAND_H_
