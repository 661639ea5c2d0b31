#include "tests/integration/encoding_fixture.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "tests/integration/encoding_profiles.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {

std::unique_ptr<EncodingFixture::Running> EncodingFixture::server_;

void EncodingFixture::Start(const std::vector<std::string>& flags) {
  auto running = std::make_unique<Running>();
  running->options.data_dir = running->directory / "data";
  running->options.flags = flags;
  for (const int split : {0, 6}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string file, ProfileFile(split));
    running->options.flags.push_back("--profile=" + file);
  }
  server_ = std::move(running);
  Open();
}

void EncodingFixture::Open() {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server_->process, ServerProcess::Start(server_->options));
  server_->calls = std::make_unique<EncodingCalls>(server_->process->endpoint());
}

void EncodingFixture::KillAndRestart() {
  server_->process->Kill();
  Open();
}

void EncodingFixture::TearDownTestSuite() {
  if (server_ == nullptr || server_->process == nullptr) return;
  EXPECT_TRUE(DeleteAllSessions(Client()).ok());
  // A cache of prefixes keeps what it may.
  const std::vector<std::string>& flags = server_->options.flags;
  if (std::find(flags.begin(), flags.end(), "!--no-prefix-cache") == flags.end()) ExpectNothingHeld(Client());
  server_->process->Signal(SIGTERM);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const ProcessEnd end, server_->process->WaitForEnd());
  EXPECT_EQ(end.exit_code, 0) << "signal " << end.signal;
  server_.reset();
}

client::Node EncodingFixture::Save(int sentences, int seed) {
  absl::StatusOr<Generation> made = Generate(
      Client(),
      {.input = Prose(sentences, seed), .stop = {.max_tokens = 5, .ignore_eos = true}, .save = client::SaveOptions{}});
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? made->saved.at(0).node : client::Node();
}

client::Node EncodingFixture::Save(const std::vector<int32_t>& tokens) {
  absl::StatusOr<Generation> made =
      Generate(Client(), {.input = tokens, .stop = {.max_tokens = 0}, .save = client::SaveOptions{}});
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? made->saved.at(0).node : client::Node();
}

std::vector<client::Token> EncodingFixture::Continue(const client::GenerateStart& start) {
  absl::StatusOr<Generation> made = GoOn(Client(), start, 24);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? made->tokens : std::vector<client::Token>();
}

std::vector<client::Token> EncodingFixture::ContinueNode(const std::string& node) {
  return Continue(client::FromNode{.name = node});
}

client::Node EncodingFixture::ExtendAndSave(const std::string& session, int tokens) {
  if (tokens > 0) {
    EXPECT_TRUE(GoOn(Client(), client::FromSession{session}, tokens).ok());
  }
  absl::StatusOr<client::SavedNode> saved = Client().Snapshot({.session = session});
  EXPECT_TRUE(saved.ok()) << saved.status();
  return saved.ok() ? saved->node : client::Node();
}

}  // namespace quicksave::integration
