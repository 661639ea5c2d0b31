#include "tests/integration/shared_server.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "tests/integration/generation.h"

namespace quicksave::integration {

SharedServer* SharedServer::Register(std::vector<std::string> flags) {
  auto* server = new SharedServer(std::move(flags));
  ::testing::AddGlobalTestEnvironment(server);
  return server;
}

void SharedServer::SetUp() {
  directory_ = std::make_unique<TemporaryDirectory>();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(process_, ServerProcess::Start({.data_dir = *directory_ / "data", .flags = flags_}));
}

void SharedServer::TearDown() {
  if (process_ == nullptr) return;
  EXPECT_TRUE(DeleteAllSessions(client()).ok());
  // A cache of prefixes keeps what it may.
  if (std::find(flags_.begin(), flags_.end(), "!--no-prefix-cache") == flags_.end()) ExpectNothingHeld(client());
  process_->Signal(SIGTERM);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const ProcessEnd end, process_->WaitForEnd());
  EXPECT_EQ(end.exit_code, 0) << "signal " << end.signal;
  process_.reset();
}

absl::Status DeleteAllSessions(const client::Client& client) {
  while (true) {
    absl::StatusOr<client::ListSessionsResponse> listed = client.ListSessions({.page_size = 1000});
    if (!listed.ok()) return listed.status();
    if (listed->sessions.empty()) return absl::OkStatus();
    for (const client::Session& session : listed->sessions) {
      absl::Status deleted = client.DeleteSession({.name = session.name});
      if (!deleted.ok() && !absl::IsNotFound(deleted)) return deleted;
    }
  }
}

void ExpectNothingHeld(const client::Client& client) {
  absl::StatusOr<client::ServerStatus> status;
  const bool free = Eventually([&] {
    status = client.GetStatus();
    return status.ok() && status->engine.sessions == 0 && status->engine.pages_used == 0 &&
           status->engine.active_requests == 0;
  });
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_TRUE(free) << status->engine.sessions << " sessions, " << status->engine.pages_used << " pages, "
                    << status->engine.active_requests << " calls";
}

}  // namespace quicksave::integration
