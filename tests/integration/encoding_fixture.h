#ifndef QUICKSAVE_TESTS_INTEGRATION_ENCODING_FIXTURE_H_
#define QUICKSAVE_TESTS_INTEGRATION_ENCODING_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/integration/encoding_calls.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {

// One server with latent profiles of splits 0 and 6 for all tests of a program.
class EncodingFixture : public ::testing::Test {
 protected:
  // Starts it with more `flags`; expects at the end that, without sessions, nothing is held, and that it ends cleanly.
  static void Start(const std::vector<std::string>& flags = {});
  static void SetUpTestSuite() { Start(); }
  static void TearDownTestSuite();
  // Kills it without warning and starts it again.
  static void KillAndRestart();

  static const client::Client& Client() { return server_->process->client(); }
  static const EncodingCalls& Calls() { return *server_->calls; }
  static const std::string& Endpoint() { return server_->process->endpoint(); }
  static const std::vector<std::string>& ProfileFlags() { return server_->options.flags; }

  // Saves some 14 * `sentences` tokens and a few generated ones. Each test has its own `seed`, and so its own blocks.
  static client::Node Save(int sentences, int seed);
  // Saves a state of these tokens.
  static client::Node Save(const std::vector<int32_t>& tokens);
  // What the model says after a state: 24 tokens and their likeliest alternatives.
  static std::vector<client::Token> Continue(const client::GenerateStart& start);
  static std::vector<client::Token> ContinueNode(const std::string& node);
  // Generates in a session and saves it.
  static client::Node ExtendAndSave(const std::string& session, int tokens);

 private:
  struct Running {
    TemporaryDirectory directory;
    ServerOptions options;
    std::unique_ptr<ServerProcess> process;
    std::unique_ptr<EncodingCalls> calls;
  };
  static void Open();

  static std::unique_ptr<Running> server_;
};

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_ENCODING_FIXTURE_H_
