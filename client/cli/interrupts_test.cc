// The real program, stopped by a signal while a real server answers slowly.

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "client/testing/fake_server.h"
#include "gtest/gtest.h"

extern char** environ;

namespace quicksave::client {
namespace {

TEST(InterruptsTest, SignalCancelsTheCallOnTheServer) {
  FakeServer server;
  absl::Notification begun, noticed;
  server.set_stream(
      [&](grpc::ServerContext& context, const v1::GenerateRequest&, grpc::ServerWriter<v1::GenerateResponse>* writer) {
        begun.Notify();
        EXPECT_TRUE(AwaitCancelled(context));
        noticed.Notify();
        return grpc::Status::CANCELLED;
      });
  std::vector<std::string> arguments = {QUICKSAVE_PROGRAM, "--endpoint", absl::StrCat("127.0.0.1:", server.port()),
                                        "generate",        "--prompt",   "x"};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t pid;
  ASSERT_EQ(posix_spawn(&pid, argv[0], nullptr, nullptr, argv.data(), environ), 0);
  begun.WaitForNotification();
  ASSERT_EQ(kill(pid, SIGINT), 0);
  noticed.WaitForNotification();
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status)) << "it ends by itself, the signal does not end it";
  EXPECT_EQ(WEXITSTATUS(status), 130);
}

}  // namespace
}  // namespace quicksave::client
