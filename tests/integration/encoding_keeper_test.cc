// A server that encodes old nodes by itself.

#include <csignal>
#include <map>
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/encoding_calls.h"
#include "tests/integration/encoding_profiles.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

std::string Save(const client::Client& client, int sentences, const std::map<std::string, std::string>& labels) {
  std::string text;
  for (int i = 0; i < sentences; i += 6) text += Prose(6, i);
  const absl::StatusOr<Generation> made =
      Generate(client, {.input = text, .stop = {.max_tokens = 0}, .save = client::SaveOptions{.labels = labels}});
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? made->saved.at(0).node.name : "";
}

TEST(EncodingKeeperTest, OldNodesBecomeLatentsUnlessTheyAreLabelledOrTooLarge) {
  const TemporaryDirectory directory;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string profile, ProfileFile(0));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Start({.data_dir = directory / "data",
                            .flags = {"--profile=" + profile, "--encode-after=1s", "--encode-keep=residual",
                                      "--encode-point=small", "--kv-memory=24MiB"}}));
  // Of 68 pages it takes 45, so that there is no room for another state of its size.
  const std::string large = Save(server->client(), 50, {});
  const std::string kept = Save(server->client(), 6, {{"quicksave.encode", "never"}});
  const std::string old = Save(server->client(), 6, {{"quicksave.encode", "soon"}});
  const EncodingCalls calls(server->endpoint());
  EXPECT_TRUE(Eventually([&] { return calls.Get(old)->encodings_size() > 0; }, absl::Minutes(1)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, calls.Get(old));
  EXPECT_TRUE(node.saved_dropped());
  EXPECT_TRUE(node.encodings(0).has_residual());
  EXPECT_TRUE(calls.Verify(old, true).ok());
  for (const std::string& other : {large, kept}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node left, calls.Get(other));
    EXPECT_EQ(left.encodings_size(), 0);
    EXPECT_FALSE(left.saved_dropped());
  }
  server->Signal(SIGTERM);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const ProcessEnd end, server->WaitForEnd());
  EXPECT_EQ(end.exit_code, 0);
}

}  // namespace
}  // namespace quicksave::integration
