// A damaged store: the node concerned is refused and named, all others restore.

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;

constexpr int kNodes = 5;

std::vector<std::filesystem::path> BlobFiles(const std::string& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() == ".blob") files.push_back(entry.path());
  }
  return files;
}

// Inverts one byte in the middle of the file: it holds blocks only, so the byte is one block's.
void FlipByte(const std::filesystem::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  const auto middle = static_cast<std::streamoff>(std::filesystem::file_size(path) / 2);
  file.seekg(middle);
  const char byte = static_cast<char>(file.get());
  file.seekp(middle);
  file.put(static_cast<char>(~byte));
  ASSERT_TRUE(file.good()) << path;
}

// Nodes that have nothing in common.
std::vector<std::string> SaveNodes(const client::Client& client) {
  std::vector<std::string> nodes;
  for (int i = 0; i < kNodes; i++) {
    const absl::StatusOr<Generation> saved =
        Generate(client, {.input = Prose(9, i * 9 + 1), .stop = {.max_tokens = 0}, .save = client::SaveOptions{}});
    EXPECT_TRUE(saved.ok()) << saved.status();
    if (saved.ok()) nodes.push_back(saved->saved.at(0).node.name);
  }
  return nodes;
}

void ExpectDamaged(const client::Client& client, const std::string& node) {
  for (const absl::Status& status :
       {ErrorOf(client.Restore({.node = node})), ErrorOf(client.Restore({.node = node, .skip_check = true})),
        ErrorOf(client.VerifyNode({.name = node})), ErrorOf(GoOn(client, client::FromNode{.name = node}, 1)),
        ErrorOf(client.Branch({.start = client::FromNode{.name = node}, .count = 2})),
        ErrorOf(client.Score({.start = client::FromNode{.name = node}, .continuations = {std::string("a")}}))}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(node));
  }
}

TEST(CorruptionTest, DamagedBlockConcernsItsNodesOnly) {
  const TemporaryDirectory directory;
  const ServerOptions options = {.data_dir = directory / "data"};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  const std::vector<std::string> nodes = SaveNodes(server->client());
  ASSERT_EQ(nodes.size(), size_t{kNodes});
  server->Signal(SIGTERM);
  ASSERT_EQ(server->WaitForEnd()->exit_code, 0);
  const std::vector<std::filesystem::path> files = BlobFiles(options.data_dir);
  ASSERT_FALSE(files.empty()) << "the store keeps its blocks elsewhere";
  FlipByte(files[0]);

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  int damaged = 0;
  for (const std::string& node : nodes) {
    const absl::Status verified = ErrorOf(server->client().VerifyNode({.name = node}));
    if (verified.ok()) {
      QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, server->client().Restore({.node = node}));
      EXPECT_EQ(restored.proof.check.outcome, client::CheckOutcome::kIdentical);
      continue;
    }
    damaged++;
    ExpectDamaged(server->client(), node);
    EXPECT_TRUE(server->client().GetNode({.name = node}).ok());
    EXPECT_TRUE(server->client().DeleteNode({.name = node}).ok());
  }
  EXPECT_EQ(damaged, 1);
  EXPECT_EQ(server->client().CheckHealth().value_or(client::Health::kUnknown), client::Health::kServing);
}

}  // namespace
}  // namespace quicksave::integration
