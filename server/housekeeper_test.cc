#include "server/housekeeper.h"

#include <memory>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "server/service/admin_handlers.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::server {
namespace {

TEST(HousekeeperTest, FirstRoundIsAtTheStart) {
  const storage::TempDir dir;
  storage::StoreOptions options = storage::TestOptions(dir.path() + "/store");
  options.clock = [] { return absl::Now() - 2 * kRequestMemory; };
  Core core;
  core.store = storage::OpenOrDie(options);
  core.sessions = std::make_unique<SessionTable>(SessionTable::Options{}, nullptr, nullptr);
  storage::NodeCommit commit = storage::TestCommit("node", {}, {1});
  commit.request = storage::AnsweredRequest<storage::NodeRecord>{{"Snapshot", "old", "fingerprint"},
                                                                 [](const storage::NodeRecord&) { return "answer"; }};
  ASSERT_TRUE(core.store->CommitNode(commit).ok());
  {
    const auto pin = core.store->PinBlocks(storage::kTenant, storage::kModel, {storage::TestBlockId(1)});
    ASSERT_TRUE(core.store->DeleteNode(storage::kTenant, "node").ok());
  }
  ASSERT_EQ(core.store->Stats()->blocks, 1u);
  ASSERT_TRUE(core.store->FindRequest(storage::kTenant, "Snapshot", "old").ok());
  // Its end waits for the round.
  { Housekeeper housekeeper(&core); }
  EXPECT_EQ(core.store->Stats()->blocks, 0u);
  EXPECT_TRUE(absl::IsNotFound(core.store->FindRequest(storage::kTenant, "Snapshot", "old").status()));
}

}  // namespace
}  // namespace quicksave::server
