// Runs the tool in a test: arguments and input in, output and exit code out.

#ifndef QUICKSAVE_CLIENT_CLI_TESTING_RUN_H_
#define QUICKSAVE_CLIENT_CLI_TESTING_RUN_H_

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "client/cli/cli.h"
#include "client/cli/console.h"
#include "client/cli/testing_connection.h"
#include "gtest/gtest.h"

namespace quicksave::cli {

// A fixture with a server in memory that has two nodes and a session.
class CliTest : public ::testing::Test {
 protected:
  struct Result {
    int code;
    std::string out, err;
  };

  CliTest() {
    server_->nodes = {TestingNode("7f3a9c2100000000"), TestingNode("7f3b000000000000", "7f3a9c2100000000", 128),
                      TestingNode("abcd000000000000", "7f3a9c2100000000", 64, client::EdgeType::kCounterfactual)};
    server_->sessions = {{.name = "sessions/4be1000000000000", .token_count = 42, .pages = 3}};
  }

  Result Run(const std::vector<std::string>& arguments, const std::string& input = "") {
    std::istringstream in(input);
    std::ostringstream out, err;
    Console console{.in = in, .out = out, .err = err, .unicode = true};
    console.in_is_terminal = interactive_;
    console.now = [] { return absl::FromUnixSeconds(1'700'000'180); };
    const int code = RunOn(arguments, console);
    return {code, out.str(), err.str()};
  }

  int RunOn(const std::vector<std::string>& arguments, Console& console) {
    return RunCli(
        arguments, console,
        {.connect =
             [this](const client::ClientOptions& options) -> absl::StatusOr<std::shared_ptr<client::Connection>> {
           options_ = options;
           return server_;
         },
         .arm = [this] { return token_ = client::CancellationToken(); }});
  }

  std::shared_ptr<TestingConnection> server_ = std::make_shared<TestingConnection>();
  // What the tool connected with, and what Ctrl-C would cancel.
  client::ClientOptions options_;
  client::CancellationToken token_;
  bool interactive_ = false;
};

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_TESTING_RUN_H_
