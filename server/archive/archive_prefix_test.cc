// Which stored state a prompt can begin with.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/archive/archive.h"
#include "server/archive/parking_lot.h"
#include "server/archive/testing/archive_environment.h"

namespace quicksave::server {
namespace {

class ArchivePrefixTest : public ArchiveTestBase {
 protected:
  // Saves a state of these tokens and returns its node id.
  std::string Save(const std::vector<int32_t>& tokens, const std::string& tenant = kTenant, int lossy_tokens = 0) {
    SaveRequest request{.state = env_.NewState(tokens), .tenant = tenant};
    request.state.sequence.set_lossy_tokens(lossy_tokens);
    const absl::StatusOr<SavedNode> saved = env_.archive->Save(request);
    EXPECT_TRUE(saved.ok()) << saved.status();
    return saved.ok() ? saved->record.node_id() : "";
  }

  absl::StatusOr<StoredPrefix> Find(const std::vector<int32_t>& tokens, const std::string& tenant = kTenant) {
    absl::StatusOr<StoredPrefix> found = env_.archive->FindPrefix(tenant, tokens);
    EXPECT_TRUE(found.ok() || absl::IsNotFound(found.status())) << found.status();
    return found;
  }

  // `tokens` up to `count`, then others.
  std::vector<int32_t> PartingAt(std::vector<int32_t> tokens, int count) {
    for (size_t i = count; i < tokens.size(); ++i) tokens[i] = (tokens[i] + 1) % kVocab;
    return tokens;
  }
};

TEST_F(ArchivePrefixTest, WhatIsFoundCanBeRestoredBitForBit) {
  const std::vector<int32_t> tokens = env_.RandomTokens(700);
  const std::string node = Save(tokens);
  env_.Reopen();
  for (const int same : {128, 200, 512, 699, 700}) {
    const absl::StatusOr<StoredPrefix> found = Find(PartingAt(tokens, same));
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->tenant, kTenant);
    EXPECT_EQ(found->node_id, node);
    EXPECT_EQ(found->tokens, same);
    EXPECT_EQ(found->room, same);
    const absl::StatusOr<RestoredState> restored = Restore(found->node_id, found->tokens);
    ASSERT_TRUE(restored.ok()) << restored.status();
    EXPECT_TRUE(env_.fake.Agrees(restored->state.sequence));
  }
  EXPECT_FALSE(Find(PartingAt(tokens, 127)).ok());
  EXPECT_FALSE(Find({}).ok());
}

TEST_F(ArchivePrefixTest, TheEstimateGrowsWithTheTokens) {
  const std::vector<int32_t> tokens = env_.RandomTokens(1000);
  Save(tokens);
  EXPECT_GT(Find(PartingAt(tokens, 200))->estimate, absl::ZeroDuration());
  EXPECT_LT(Find(PartingAt(tokens, 200))->estimate, Find(tokens)->estimate);
}

TEST_F(ArchivePrefixTest, OtherTenantsAndModelsHaveNothing) {
  const std::vector<int32_t> tokens = env_.RandomTokens(300);
  Save(tokens, "another");
  EXPECT_FALSE(Find(tokens).ok());
  EXPECT_TRUE(Find(tokens, "another").ok());
  ModelIdentity other = env_.model;
  other.fingerprint = "model-b";
  const absl::StatusOr<std::unique_ptr<Archive>> archive = env_.OpenArchive(other);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_TRUE(absl::IsNotFound((*archive)->FindPrefix("another", tokens).status()));
}

TEST_F(ArchivePrefixTest, StatesWithDecodedTokensLendNothing) {
  const std::vector<int32_t> tokens = env_.RandomTokens(300);
  Save(tokens, kTenant, 1);
  EXPECT_FALSE(Find(tokens).ok());
}

TEST_F(ArchivePrefixTest, ParkedStatesAreFoundWhileTheyAreParked) {
  ParkingLot lot(env_.archive.get(), env_.store.get());
  const std::vector<int32_t> tokens = env_.RandomTokens(300);
  const absl::StatusOr<std::string> parked = lot.Park(env_.NewState(tokens));
  ASSERT_TRUE(parked.ok()) << parked.status();
  EXPECT_FALSE(Find(tokens).ok());
  const absl::StatusOr<StoredPrefix> found = Find(tokens, ParkingLot::kTenant);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->node_id, *parked);
  lot.Drop(*parked);
  EXPECT_FALSE(Find(tokens, ParkingLot::kTenant).ok());
  EXPECT_TRUE(absl::IsNotFound(
      env_.archive->Restore(ParkingLot::kTenant, found->node_id, {.at_token = found->tokens}).status()));
}

}  // namespace
}  // namespace quicksave::server
