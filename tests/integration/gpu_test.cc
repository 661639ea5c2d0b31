// --device=cuda: a state that was saved by a server on a GPU goes on with one on the CPU, in every bit, and the other
// way; without a GPU the server says so, and makes no store.

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kTokens = 16;
// What a server says that has found none.
constexpr char kNoGpu[] = "no CUDA device";

absl::StatusOr<std::unique_ptr<ServerProcess>> StartOn(const TemporaryDirectory& directory, const std::string& device) {
  // The default is a part of the host's memory, which may be more than a GPU has.
  return ServerProcess::Start({.data_dir = directory / "data", .flags = {"--device=" + device, "--kv-memory=256MiB"}});
}

// Never where the tests' GPU is the CPU.
bool HasNoGpu(const absl::Status& status) {
  return std::getenv("QUICKSAVE_NEED_DEVICE") == nullptr && absl::StrContains(status.message(), kNoGpu);
}

TEST(GpuTest, WithoutAGpuTheServerEndsWithTheReason) {
  const TemporaryDirectory directory;
  if (QUICKSAVE_CUDA && StartOn(directory, "cuda").ok()) GTEST_SKIP() << "there is a GPU";
  std::filesystem::remove_all(directory / "data");
  std::string log;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const ProcessEnd end,
      ServerProcess::RunToEnd({.data_dir = directory / "data", .flags = {"--device=cuda"}}, &log));
  // A build that cannot run on GPUs knows from the flag.
  EXPECT_EQ(end.exit_code, QUICKSAVE_CUDA ? 1 : 2) << log;
  EXPECT_THAT(log, HasSubstr(QUICKSAVE_CUDA ? kNoGpu : "scripts/build_cuda.sh"));
  EXPECT_THAT(log, HasSubstr("--device cpu"));
  EXPECT_FALSE(std::filesystem::exists(directory / "data"));
}

// Saves on one device and goes on there; then does the same on each of the others.
void ExpectStatesGoOn(const std::string& saved_on, const std::vector<std::string>& restored_on) {
  const TemporaryDirectory directory;
  absl::StatusOr<std::unique_ptr<ServerProcess>> server = StartOn(directory, saved_on);
  if (HasNoGpu(server.status())) GTEST_SKIP() << kNoGpu;
  ASSERT_TRUE(server.ok()) << server.status();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ServerStatus status, (*server)->client().GetStatus());
  EXPECT_THAT(status.model.device, StartsWith(saved_on));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession((*server)->client(), Prose(3)));
  const client::FromSession running = {.name = session};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, GoOn((*server)->client(), running, kTokens));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, (*server)->client().Snapshot({.session = session}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation uninterrupted, GoOn((*server)->client(), running, kTokens));
  (*server)->Kill();

  for (const std::string& device : restored_on) {
    SCOPED_TRACE(device);
    server = StartOn(directory, device);
    if (HasNoGpu(server.status())) GTEST_SKIP() << kNoGpu;
    ASSERT_TRUE(server.ok()) << server.status();
    const client::Client& client = (*server)->client();
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, client.Restore({.node = saved.node.name}));
    EXPECT_EQ(restored.proof.check.outcome, client::CheckOutcome::kIdentical);
    EXPECT_EQ(restored.proof.tokens_recomputed, 0);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation again,
                                   GoOn(client, client::FromSession{.name = restored.session.name}, kTokens));
    EXPECT_EQ(again.tokens, uninterrupted.tokens);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse verified,
                                   client.VerifyNode({.name = saved.node.name, .replay = true}));
    EXPECT_GT(verified.tokens_replayed, kTokens);
    (*server)->Kill();
  }
}

TEST(GpuTest, AStateOfTheGpuGoesOnAnywhere) {
  if (!QUICKSAVE_CUDA) GTEST_SKIP() << "a build without CUDA";
  ExpectStatesGoOn("cuda", {"cpu", "cuda"});
}

TEST(GpuTest, AStateOfTheCpuGoesOnOnTheGpu) {
  if (!QUICKSAVE_CUDA) GTEST_SKIP() << "a build without CUDA";
  ExpectStatesGoOn("cpu", {"cuda"});
}

}  // namespace
}  // namespace quicksave::integration
