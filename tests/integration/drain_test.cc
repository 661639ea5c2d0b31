// SIGTERM: running calls end, or are ended when the budget is over; what was acknowledged stays; the exit code is 0.

#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

// A generation in another thread.
class RunningGeneration {
 public:
  RunningGeneration(const client::Client& client, client::GenerateRequest request)
      : thread_([this, client, request = std::move(request)] { Run(client, request); }) {}
  ~RunningGeneration() {
    if (thread_.joinable()) thread_.join();
  }

  // Waits for the first tokens, and for a save where the request asks for them.
  void WaitForProgress() { progress_.WaitForNotificationWithTimeout(absl::Minutes(2)); }
  absl::StatusOr<client::GenerateFinished> Wait() {
    thread_.join();
    return finished_;
  }
  // Nodes saved, after Wait.
  const std::vector<client::Node>& saved() const { return saved_; }

 private:
  void Run(const client::Client& client, const client::GenerateRequest& request) {
    finished_ = client.Generate(request, [&](const client::GenerateEvent& event) {
      if (const auto* node = std::get_if<client::SavedNode>(&event)) saved_.push_back(node->node);
      const bool tokens = std::holds_alternative<client::GenerateDelta>(event);
      if ((request.save_every_tokens ? !saved_.empty() : tokens) && !progress_.HasBeenNotified()) progress_.Notify();
      return true;
    });
    if (!progress_.HasBeenNotified()) progress_.Notify();
  }

  absl::Notification progress_;
  std::vector<client::Node> saved_;
  absl::StatusOr<client::GenerateFinished> finished_ = absl::UnknownError("not run");
  std::thread thread_;
};

TEST(DrainTest, RunningCallsEndWithinTheBudgetAndSavesStay) {
  const TemporaryDirectory directory;
  // First time: a budget in which the generation can end.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      std::unique_ptr<ServerProcess> server,
      ServerProcess::Start({.data_dir = directory / "data", .flags = {"--drain-timeout=2m"}}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(server->client(), std::string("Kept")));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode before, server->client().Snapshot({.session = session}));
  RunningGeneration ending(server->client(), {.input = std::string("The long story begins"),
                                              .stop = {.max_tokens = 30, .ignore_eos = true},
                                              .save = client::SaveOptions{}});
  ending.WaitForProgress();
  server->Signal(SIGTERM);
  const absl::StatusOr<client::GenerateFinished> ended = ending.Wait();
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_EQ(ended->generated_tokens, 30);
  ASSERT_EQ(ending.saved().size(), 1u);
  EXPECT_EQ(server->WaitForEnd()->exit_code, 0);
  EXPECT_TRUE(absl::IsUnavailable(server->client().GetStatus().status()));

  // Second time: a generation that takes longer than the budget, and saves on the way.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      server, ServerProcess::Start({.data_dir = directory / "data", .flags = {"--drain-timeout=200ms"}}));
  for (const std::string& name : {before.node.name, ending.saved()[0].name}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, server->client().Restore({.node = name}));
    EXPECT_EQ(restored.proof.check.outcome, client::CheckOutcome::kIdentical);
  }
  RunningGeneration endless(server->client(), {.input = std::string("The endless story begins"),
                                               .stop = {.max_tokens = 4000, .ignore_eos = true},
                                               .save = client::SaveOptions{},
                                               .save_every_tokens = 2});
  endless.WaitForProgress();
  const absl::Time begin = absl::Now();
  server->Signal(SIGTERM);
  EXPECT_EQ(server->WaitForEnd()->exit_code, 0);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
  const absl::Status cut = endless.Wait().status();
  EXPECT_TRUE(absl::IsUnavailable(cut) || absl::IsCancelled(cut)) << cut;
  ASSERT_FALSE(endless.saved().empty());

  // More threads compute the same bits.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server,
                                 ServerProcess::Start({.data_dir = directory / "data", .flags = {"--threads=3"}}));
  for (const client::Node& node : endless.saved()) {
    EXPECT_TRUE(server->client().VerifyNode({.name = node.name, .replay = true}).ok());
  }
}

TEST(DrainTest, TermWhileTheModelIsLoadedEndsTheServer) {
  const TemporaryDirectory directory;
  ServerProcess server(ServerOptions{.data_dir = directory / "data"});
  ASSERT_TRUE(Eventually([&] { return testing::Matches(testing::HasSubstr("listening"))(server.Log()); }));
  server.Signal(SIGTERM);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const ProcessEnd end, server.WaitForEnd());
  EXPECT_EQ(end.exit_code, 0);
}

}  // namespace
}  // namespace quicksave::integration
