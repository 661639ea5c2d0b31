// One server for all tests of a program, so that the model is loaded once.

#ifndef QUICKSAVE_TESTS_INTEGRATION_SHARED_SERVER_H_
#define QUICKSAVE_TESTS_INTEGRATION_SHARED_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {

// Starts before the first test. After the last one it deletes all sessions, then expects that no KV page is in use and
// that the server ends by itself, with exit code 0, on SIGTERM: what any test leaked or broke shows there.
class SharedServer : public ::testing::Environment {
 public:
  // Call at namespace scope; gtest owns what is returned.
  static SharedServer* Register(std::vector<std::string> flags = {});

  void SetUp() override;
  void TearDown() override;

  ServerProcess& process() { return *process_; }
  const client::Client& client() const { return process_->client(); }

 private:
  explicit SharedServer(std::vector<std::string> flags) : flags_(std::move(flags)) {}

  const std::vector<std::string> flags_;
  std::unique_ptr<TemporaryDirectory> directory_;
  std::unique_ptr<ServerProcess> process_;
};

// Deletes all live sessions.
absl::Status DeleteAllSessions(const client::Client& client);

// Expects that, without sessions, no page is in use and no call is at work (soon: a cancelled call may just be ending).
void ExpectNothingHeld(const client::Client& client);

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_SHARED_SERVER_H_
