// --weights: a state goes on with the format that it was saved with, in every bit, and with no other.

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kTokens = 16;

ServerOptions WithWeights(const TemporaryDirectory& directory, const std::string& format) {
  return {.data_dir = directory / "data", .flags = {"--weights=" + format}};
}

void ExpectRefused(const client::Client& client, const std::string& node, const std::string& saved_with,
                   const std::string& runs) {
  for (const absl::Status& status :
       {ErrorOf(client.Restore({.node = node})), ErrorOf(GoOn(client, client::FromNode{.name = node}, 1)),
        ErrorOf(client.VerifyNode({.name = node, .replay = true}))}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("with numerics " + saved_with + "-"),
                                                     HasSubstr("with numerics " + runs + "-"), HasSubstr("--weights")));
  }
}

TEST(WeightsTest, ASavedStateGoesOnWithItsFormatAndWithNoOther) {
  const TemporaryDirectory directory;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server,
                                 ServerProcess::Start(WithWeights(directory, "int8")));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ServerStatus status, server->client().GetStatus());
  EXPECT_EQ(status.model.weights, "int8");
  EXPECT_THAT(status.model.numerics, ::testing::StartsWith("int8-"));
  // 8 bits and half a bit of scale for each of 134 million weights.
  EXPECT_NEAR(static_cast<double>(status.model.weight_bytes), 134.5e6 * 8.5 / 8, 1e6);

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(server->client(), Prose(10)));
  const client::FromSession running = {.name = session};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, GoOn(server->client(), running, kTokens));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, server->client().Snapshot({.session = session}));
  const std::string node = saved.node.name;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation uninterrupted, GoOn(server->client(), running, kTokens));
  server->Kill();

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(WithWeights(directory, "int8")));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, server->client().Restore({.node = node}));
  EXPECT_EQ(restored.proof.check.outcome, client::CheckOutcome::kIdentical);
  EXPECT_EQ(restored.proof.tokens_recomputed, 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation again,
                                 GoOn(server->client(), client::FromSession{.name = restored.session.name}, kTokens));
  EXPECT_EQ(again.tokens, uninterrupted.tokens);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse verified,
                                 server->client().VerifyNode({.name = node, .replay = true}));
  EXPECT_GT(verified.tokens_replayed, kTokens);
  server->Kill();

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(WithWeights(directory, "bf16")));
  ExpectRefused(server->client(), node, "int8", "bf16");
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string bf16_session, NewSession(server->client(), Prose(2)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode bf16_saved,
                                 server->client().Snapshot({.session = bf16_session}));
  server->Kill();

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(WithWeights(directory, "fp32")));
  ExpectRefused(server->client(), node, "int8", "fp32");
  server->Kill();

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(WithWeights(directory, "int8")));
  ExpectRefused(server->client(), bf16_saved.node.name, "bf16", "int8");
  // What was refused elsewhere is as good as it was.
  EXPECT_TRUE(server->client().Restore({.node = node}).ok());
}

}  // namespace
}  // namespace quicksave::integration
