// The command line tool as a function, so that tests can run it.

#ifndef QUICKSAVE_CLIENT_CLI_CLI_H_
#define QUICKSAVE_CLIENT_CLI_CLI_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cli/console.h"
#include "quicksave/client.h"

namespace quicksave::cli {

// What the tool needs from the process that it runs in.
struct Environment {
  // Makes the connection; normally client::MakeConnection.
  std::function<absl::StatusOr<std::shared_ptr<client::Connection>>(const client::ClientOptions&)> connect;
  // Returns a token that the next Ctrl-C cancels.
  std::function<client::CancellationToken()> arm;
};

// Runs the tool with these arguments, without the program's name, and returns its exit code (exit_codes.h). `console`
// is changed by the global flags.
int RunCli(const std::vector<std::string>& arguments, Console& console, const Environment& environment);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_CLI_H_
