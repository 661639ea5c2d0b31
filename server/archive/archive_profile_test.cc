#include <string>
#include <vector>

#include "compressor/exact_codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/archive/archive.h"
#include "server/archive/testing/archive_environment.h"

namespace quicksave::server {
namespace {

using testing::HasSubstr;

class ArchiveProfileTest : public ArchiveTestBase {
 protected:
  // Saves a new state of 200 tokens; remembers what the node must restore to.
  SavedNode SaveNew() {
    SessionState state = env_.NewState(env_.RandomTokens(200));
    SavedNode saved = env_.Save(state).value();
    nodes_.emplace_back(saved.record.node_id(), state.sequence.tokens());
    return saved;
  }
  absl::Status Calibrate(int tokens) {
    return env_.archive->Calibrate(
        {env_.NewState(env_.RandomTokens(tokens)).sequence, env_.NewState(env_.RandomTokens(17)).sequence});
  }
  void ExpectAllReadable() {
    for (const auto& [node_id, tokens] : nodes_) {
      EXPECT_TRUE(RestoresExactly(node_id, tokens));
      EXPECT_TRUE(env_.archive->Verify(kTenant, node_id).ok());
    }
  }

  std::vector<std::pair<std::string, std::vector<int32_t>>> nodes_;
};

TEST_F(ArchiveProfileTest, CalibrationMakesBlocksSmallerAndIsRemembered) {
  EXPECT_FALSE(env_.archive->has_profile());
  const SavedNode before = SaveNew();
  EXPECT_EQ(before.record.profile_id(), "");
  ASSERT_TRUE(Calibrate(1000).ok());
  EXPECT_TRUE(env_.archive->has_profile());
  const SavedNode after = SaveNew();
  EXPECT_NE(after.record.profile_id(), "");
  EXPECT_LT(after.record.stored_bytes(), before.record.stored_bytes());
  EXPECT_NE(after.origin->blocks[0].codec, before.origin->blocks[0].codec);
  ExpectAllReadable();
  env_.Reopen();
  EXPECT_TRUE(env_.archive->has_profile());
  EXPECT_EQ(SaveNew().record.profile_id(), after.record.profile_id());
  ExpectAllReadable();
}

TEST_F(ArchiveProfileTest, NodesOfEarlierProfilesAreReadAndTheCurrentOneStaysInUse) {
  SaveNew();
  ASSERT_TRUE(Calibrate(300).ok());
  const std::string first = SaveNew().record.profile_id();
  ASSERT_TRUE(Calibrate(700).ok());
  const std::string second = SaveNew().record.profile_id();
  EXPECT_NE(first, second);
  env_.Reopen();
  ExpectAllReadable();
  EXPECT_EQ(SaveNew().record.profile_id(), second);
}

TEST_F(ArchiveProfileTest, ChildUnderANewProfileKeepsItsParentsBlocks) {
  SessionState state = env_.NewState(env_.RandomTokens(200));
  ASSERT_TRUE(env_.Save(state).ok());
  ASSERT_TRUE(Calibrate(300).ok());
  env_.Append(state, env_.RandomTokens(100));
  const SavedNode child = env_.Save(state).value();
  EXPECT_EQ(child.report.shared_blocks, 2);
  EXPECT_EQ(child.report.new_blocks, 2);
  EXPECT_TRUE(RestoresExactly(child.record.node_id(), state.sequence.tokens()));
}

TEST_F(ArchiveProfileTest, NodeOfAnotherModelIsVerifiedWithThatModelsProfile) {
  ASSERT_TRUE(Calibrate(300).ok());
  const std::string node_id = SaveNew().record.node_id();
  ModelIdentity other = env_.model;
  other.fingerprint = "model-b";
  env_.codecs = std::make_unique<compressor::CodecRegistry>();
  auto archive = env_.OpenArchive(other);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_FALSE((*archive)->has_profile());
  const absl::Status verified = (*archive)->Verify(kTenant, node_id).status();
  EXPECT_TRUE(verified.ok()) << verified;
  SessionState state = env_.NewState(env_.RandomTokens(20));
  EXPECT_TRUE((*archive)->Save({.state = state, .tenant = kTenant}).ok()) << "encodes with a foreign profile";
  env_.archive.reset();
}

TEST_F(ArchiveProfileTest, CalibrationOnNothingIsRefused) {
  EXPECT_EQ(env_.archive->Calibrate({}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(env_.archive->Calibrate({engine::Sequence()}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(env_.archive->has_profile());
}

TEST_F(ArchiveProfileTest, DamagedProfileIsDataLossAtStart) {
  ASSERT_TRUE(Calibrate(300).ok());
  storage::Profile profile = env_.store->GetProfile(env_.model.fingerprint, "exact").value();
  profile.bytes[profile.bytes.size() / 2] ^= 1;
  profile.id = "damaged";
  ASSERT_TRUE(env_.store->PutProfile(env_.model.fingerprint, "exact", profile).ok());
  const absl::Status status = env_.OpenArchive(env_.model).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("profile damaged"));
}

TEST_F(ArchiveProfileTest, ProfileUnderAnotherNameIsDataLossAtStart) {
  ASSERT_TRUE(Calibrate(300).ok());
  storage::Profile profile = env_.store->GetProfile(env_.model.fingerprint, "exact").value();
  profile.id = "renamed";
  ASSERT_TRUE(env_.store->PutProfile(env_.model.fingerprint, "exact", profile).ok());
  EXPECT_EQ(env_.OpenArchive(env_.model).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace quicksave::server
