// Several encodings of one node's K and V, side by side.
#include "storage/encoding.h"

#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/error_reason.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
using testing::IsEmpty;

class EncodingTest : public StoreTest {
 protected:
  // Changes or fails the test.
  NodeRecord Change(absl::string_view node_id, const EncodingChange& change) {
    absl::StatusOr<NodeRecord> record = store_->ChangeEncodings(kTenant, node_id, change);
    EXPECT_TRUE(record.ok()) << record.status();
    return record.ok() ? *std::move(record) : NodeRecord();
  }

  StatusCode CodeOf(const EncodingChange& change, absl::string_view node_id = "node") {
    return store_->ChangeEncodings(kTenant, node_id, change).status().code();
  }

  static EncodingChange DropSaved() {
    EncodingChange change;
    change.remove_saved = true;
    return change;
  }

  static uint64_t SizeOf(const std::string& codec, const std::vector<uint64_t>& blocks) {
    uint64_t size = 0;
    for (uint64_t n : blocks) size += TestBlockBytes({TestBlockId(n).content_id, codec}).size();
    return size;
  }

  bool Has(const std::string& codec, uint64_t n) { return IsStored(*store_, {TestBlockId(n).content_id, codec}); }
};

TEST_F(EncodingTest, AddedEncodingStandsBesideTheSavedBlocks) {
  options_.clock = [] { return absl::FromUnixSeconds(1000); };
  Reopen();
  const NodeRecord before = Commit("node", {}, {1, 2});
  v1::Encoding encoding = TestEncoding(0.5, {1, 2}, true);
  v1::Fidelity& fidelity = *encoding.mutable_fidelity();
  fidelity.set_probe_tokens(8);
  fidelity.set_mean_kl(0.25);
  fidelity.set_max_kl(0.75);
  fidelity.set_top1_agreement(0.875);
  fidelity.add_key_cosine(0.5);
  const NodeRecord after = Change("node", TestChange(encoding));
  EXPECT_FALSE(after.has_contents());
  EXPECT_EQ(after.revision(), 2u);
  EXPECT_GT(after.update_time_us(), before.update_time_us());
  EXPECT_EQ(after.stored_bytes(), before.stored_bytes());
  EXPECT_EQ(after.block_count(), 2u);
  EXPECT_FALSE(after.no_saved_blocks());
  Reopen();
  ExpectIntact(*store_, "node");
  ExpectTotalsOfNodes(*store_);
  const NodeRecord node = *store_->GetNode(kTenant, "node");
  ASSERT_EQ(node.contents().encodings_size(), 1);
  const v1::Encoding& stored = node.contents().encodings(0);
  EXPECT_EQ(EncodingKeyOf(stored), TestEncodingKey(0.5));
  EXPECT_EQ(stored.create_time_us(), after.update_time_us());
  EXPECT_EQ(stored.raw_bytes(), before.raw_bytes());
  EXPECT_EQ(stored.stored_bytes(), SizeOf("latent-0.5", {1, 2}));
  EXPECT_EQ(stored.residual_bytes(), SizeOf("residual-0.5", {1, 2}));
  EXPECT_EQ(stored.fidelity().key_cosine(0), 0.5);
  EXPECT_EQ(store_->VerifyNode(kTenant, "node")->blocks, 7u) << "six blocks and the logits";
}

TEST_F(EncodingTest, ListsSayWhatEncodingsThereAre) {
  Commit("node", {}, {1, 2});
  v1::Encoding measured = TestEncoding(0.5, {1, 2}, true);
  measured.mutable_fidelity()->set_max_kl(0.75);
  Change("node", TestChange(measured));
  Change("node", TestChange(TestEncoding(2, {1, 2}, false)));
  ListRequest request;
  request.tenant = kTenant;
  const NodePage page = store_->ListNodes(request).value();
  ASSERT_EQ(page.nodes.size(), 1u);
  ASSERT_EQ(page.nodes[0].encodings_size(), 2);
  const v1::EncodingSummary& fine = page.nodes[0].encodings(0);
  EXPECT_EQ(EncodingKeyOf(fine), TestEncodingKey(0.5));
  EXPECT_TRUE(fine.has_residual());
  EXPECT_EQ(fine.raw_bytes(), page.nodes[0].raw_bytes());
  EXPECT_EQ(fine.stored_bytes(), SizeOf("latent-0.5", {1, 2}));
  EXPECT_EQ(fine.residual_bytes(), SizeOf("residual-0.5", {1, 2}));
  EXPECT_EQ(fine.max_kl(), 0.75);
  EXPECT_TRUE(fine.has_mean_kl()) << "measured, and 0";
  const v1::EncodingSummary& coarse = page.nodes[0].encodings(1);
  EXPECT_FALSE(coarse.has_residual());
  EXPECT_FALSE(coarse.has_max_kl()) << "not measured";
}

TEST_F(EncodingTest, EncodingOfTheSameKeyIsReplacedInItsPlace) {
  Commit("node", {}, {1, 2});
  Change("node", TestChange(TestEncoding(0.5, {1, 2}, true)));
  Change("node", TestChange(TestEncoding(1, {1, 2}, false)));
  v1::Encoding other = TestEncoding(0.5, {1, 2}, false);
  other.mutable_blocks(1)->set_codec("latent-finer");
  const NodeRecord after = Change("node", TestChange(other));
  ASSERT_EQ(after.encodings_size(), 2);
  EXPECT_EQ(after.encodings(0).step(), 0.5);
  EXPECT_FALSE(after.encodings(0).has_residual());
  EXPECT_EQ(after.encodings(0).stored_bytes(), SizeOf("latent-0.5", {1}) + SizeOf("latent-finer", {2}));
  EXPECT_TRUE(Has("latent-0.5", 1));
  EXPECT_FALSE(Has("latent-0.5", 2));
  EXPECT_FALSE(Has("residual-0.5", 1));
  ExpectIntact(*store_, "node");
  ExpectTotalsOfNodes(*store_);
}

TEST_F(EncodingTest, SavedBlocksGiveWayToAnEncodingInOneStep) {
  Commit("node", {}, {1, 2});
  EncodingChange change = TestChange(TestEncoding(0.5, {1, 2}, true));
  change.remove_saved = true;
  const NodeRecord after = Change("node", change);
  EXPECT_TRUE(after.no_saved_blocks());
  EXPECT_EQ(after.block_count(), 0u);
  EXPECT_EQ(after.raw_bytes(), 0u);
  EXPECT_EQ(after.stored_bytes(), 0u);
  EXPECT_EQ(after.codec(), kCodec) << "what it was saved with";
  Reopen();
  ExpectIntact(*store_, "node");
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->ReadBlock(kTenant, kModel, TestBlockId(1)).status().code(), StatusCode::kNotFound);
  EXPECT_THAT(store_->GetNode(kTenant, "node")->contents().blocks(), IsEmpty());
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
}

TEST_F(EncodingTest, SavedBlocksMayComeBackAsAnEncoding) {
  Commit("node", {}, {1, 2});
  EncodingChange change = TestChange(TestEncoding(0.5, {1, 2}, false));
  change.remove_saved = true;
  Change("node", change);
  v1::Encoding exact;
  exact.set_codec("exact");
  *exact.add_blocks() = TestBlockRef(1, 0);
  *exact.add_blocks() = TestBlockRef(2, kTokensPerBlock);
  change = TestChange(exact);
  change.remove = {TestEncodingKey(0.5)};
  const NodeRecord after = Change("node", change);
  ASSERT_EQ(after.encodings_size(), 1);
  EXPECT_EQ(after.encodings(0).codec(), "exact");
  EXPECT_TRUE(after.no_saved_blocks());
  ExpectIntact(*store_, "node");
  EXPECT_EQ(store_->Stats()->blocks, 2u);
}

TEST_F(EncodingTest, LastEncodingOfAllTokensStays) {
  const std::string etag = EtagOf(Commit("node", {}, {1, 2}));
  const absl::Status refused = store_->ChangeEncodings(kTenant, "node", DropSaved()).status();
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(refused), "LAST_ENCODING");
  EXPECT_EQ(EtagOf(*store_->GetNode(kTenant, "node")), etag);
  EncodingChange change = TestChange(TestEncoding(0.5, {1, 2}, false));
  change.remove_saved = true;
  Change("node", change);
  change = {};
  change.remove = {TestEncodingKey(0.5)};
  EXPECT_EQ(CodeOf(change), StatusCode::kFailedPrecondition);
  ExpectIntact(*store_, "node");
}

TEST_F(EncodingTest, SavedBlocksOfSomeTokensAreNoEncodingOfAll) {
  NodeCommit commit = TestCommit("node", {}, {1, 2});
  commit.record.mutable_contents()->mutable_blocks()->RemoveLast();
  commit.blocks.pop_back();
  ASSERT_TRUE(store_->CommitNode(commit).ok());
  Change("node", TestChange(TestEncoding(0.5, {1, 2}, false)));
  EncodingChange change;
  change.remove = {TestEncodingKey(0.5)};
  EXPECT_EQ(CodeOf(change), StatusCode::kFailedPrecondition);
}

TEST_F(EncodingTest, ResidualsGoAndTheirEncodingStays) {
  Commit("node", {}, {1, 2});
  Change("node", TestChange(TestEncoding(0.5, {1, 2}, true)));
  EncodingChange change;
  change.remove_residuals = {TestEncodingKey(0.5)};
  const NodeRecord after = Change("node", change);
  EXPECT_FALSE(after.encodings(0).has_residual());
  EXPECT_EQ(after.encodings(0).residual_bytes(), 0u);
  EXPECT_EQ(after.encodings(0).stored_bytes(), SizeOf("latent-0.5", {1, 2}));
  EXPECT_FALSE(Has("residual-0.5", 1));
  ExpectIntact(*store_, "node");
  ExpectTotalsOfNodes(*store_);
}

TEST_F(EncodingTest, ParentsAndChildrenKeepTheBlocksTheyShare) {
  Commit("parent", {}, {1, 2});
  Commit("child", {"parent"}, {1, 2, 3});
  EncodingChange change = TestChange(TestEncoding(0.5, {1, 2}, true));
  change.remove_saved = true;
  Change("parent", change);
  EXPECT_TRUE(Has(kCodec, 1)) << "the child's";
  change = TestChange(TestEncoding(0.5, {1, 2, 3}, false));
  change.blocks.erase(change.blocks.begin(), change.blocks.begin() + 2);
  change.remove_saved = true;
  Change("child", change);
  EXPECT_FALSE(Has(kCodec, 1));
  for (const char* id : {"parent", "child"}) ExpectIntact(*store_, id);
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->DeleteNode(kTenant, "child")->blocks, 1u);
  ExpectIntact(*store_, "parent");
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->DeleteNode(kTenant, "parent")->blocks, 4u);
  EXPECT_EQ(store_->Stats()->blocks, 0u);
  EXPECT_EQ(store_->Stats()->block_raw_bytes, 0u);
}

TEST_F(EncodingTest, BlocksSharedByTwoEncodingsOfANodeStayWithEither) {
  Commit("node", {}, {1, 2});
  // The first block is the one that was saved; residuals are for the others only.
  v1::Encoding mixed = TestEncoding(0.5, {1, 2}, true);
  *mixed.mutable_blocks(0) = TestBlockRef(1, 0);
  mixed.mutable_residuals()->DeleteSubrange(0, 1);
  EncodingChange change = TestChange(mixed);
  change.blocks.erase(change.blocks.begin());
  change.remove_saved = true;
  Change("node", change);
  EXPECT_TRUE(Has(kCodec, 1));
  EXPECT_FALSE(Has(kCodec, 2));
  ExpectIntact(*store_, "node");
  change = TestChange(TestEncoding(1, {1, 2}, false));
  *change.add[0].mutable_blocks(1) = mixed.blocks(1);
  change.blocks.pop_back();
  change.remove = {TestEncodingKey(0.5)};
  Change("node", change);
  EXPECT_FALSE(Has(kCodec, 1));
  EXPECT_TRUE(Has("latent-0.5", 2));
  ExpectIntact(*store_, "node");
  ExpectTotalsOfNodes(*store_);
}

TEST_F(EncodingTest, WhatIsNotThereCannotBeRemoved) {
  Commit("node", {}, {1});
  EncodingChange change = TestChange(TestEncoding(0.5, {1}, false));
  EXPECT_EQ(CodeOf(change, "nobody"), StatusCode::kNotFound);
  Change("node", change);
  change = {};
  change.remove = {TestEncodingKey(1)};
  const absl::Status status = store_->ChangeEncodings(kTenant, "node", change).status();
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("nodes/node has no encoding latent (profile profile-1, split 2"));
  change = {};
  change.remove_residuals = {TestEncodingKey(0.5)};
  EXPECT_EQ(CodeOf(change), StatusCode::kNotFound);
  Change("node", DropSaved());
  EXPECT_EQ(CodeOf(DropSaved()), StatusCode::kNotFound);
}

TEST_F(EncodingTest, OldEtagIsAbortedAndTheRequestIsAnsweredOnce) {
  const NodeRecord before = Commit("node", {}, {1});
  EncodingChange change = TestChange(TestEncoding(0.5, {1}, false));
  change.etag = "0-0";
  EXPECT_EQ(CodeOf(change), StatusCode::kAborted);
  change.etag = EtagOf(before);
  change.request =
      AnsweredRequest<NodeRecord>{{"Recode", "id", "fingerprint"}, [](const NodeRecord& r) { return EtagOf(r); }};
  const NodeRecord after = Change("node", change);
  EXPECT_NE(EtagOf(after), EtagOf(before));
  Reopen();
  EXPECT_EQ(store_->FindRequest(kTenant, "Recode", "id")->answer, EtagOf(after));
  change.etag.clear();
  EXPECT_EQ(CodeOf(change), StatusCode::kAborted);
}

TEST_F(EncodingTest, BadChangesAreRefusedWithTheRule) {
  Commit("node", {}, {1, 2});
  Change("node", TestChange(TestEncoding(2, {1, 2}, true)));
  const auto code = [&](auto change_it) {
    EncodingChange change = TestChange(TestEncoding(0.5, {1, 2}, true));
    change_it(change, change.add[0]);
    return CodeOf(change);
  };
  using C = EncodingChange;
  using E = v1::Encoding;
  const auto kInvalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(CodeOf({}), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.set_codec(""); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.set_profile_id("UPPER"); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.set_step(-1); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.set_step(std::numeric_limits<float>::quiet_NaN()); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_blocks(0)->set_first_token(1); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_blocks(1)->set_first_token(3); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_blocks(1)->set_token_count(3); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_blocks(1)->set_token_count(5); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_blocks(0)->set_id("short"); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_residuals()->SwapElements(0, 1); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_residuals(0)->set_token_count(3); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.mutable_residuals(0)->set_codec(e.blocks(0).codec()); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { *e.add_residuals() = e.residuals(1); }), kInvalid);
  EXPECT_EQ(code([](C& c, E& e) { c.add.emplace_back(e); }), kInvalid);
  EXPECT_EQ(code([](C& c, E&) { c.remove = {TestEncodingKey(0.5)}; }), kInvalid);
  EXPECT_EQ(code([](C& c, E&) { c.remove = c.remove_residuals = {TestEncodingKey(2)}; }), kInvalid);
  EXPECT_EQ(code([](C& c, E&) { c.blocks.push_back({TestBlockId(9), "unused"}); }), kInvalid);
  EXPECT_EQ(code([](C& c, E&) { c.blocks.push_back(c.blocks[0]); }), kInvalid);
  EXPECT_EQ(code([](C&, E& e) { e.clear_blocks(); }), kInvalid);
  EXPECT_EQ(code([](C& c, E&) { c.blocks.pop_back(); }), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->GetNode(kTenant, "node")->revision(), 2u);
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(code([](C&, E&) {}), StatusCode::kOk);
}

TEST_F(EncodingTest, NumberOfEncodingsHasALimit) {
  Commit("node", {}, {1});
  for (int i = 1; i <= 16; ++i) Change("node", TestChange(TestEncoding(i, {1}, false)));
  EXPECT_EQ(CodeOf(TestChange(TestEncoding(17, {1}, false))), StatusCode::kInvalidArgument);
  EncodingChange change = TestChange(TestEncoding(17, {1}, false));
  change.remove = {TestEncodingKey(3)};
  EXPECT_EQ(Change("node", change).encodings_size(), 16);
  ExpectTotalsOfNodes(*store_);
}

TEST_F(EncodingTest, PinnedBlocksOutliveTheirRemoval) {
  Commit("node", {}, {1, 2});
  absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, {TestBlockId(1)});
  EncodingChange change = TestChange(TestEncoding(0.5, {1, 2}, false));
  change.remove_saved = true;
  Change("node", change);
  EXPECT_EQ(*store_->ReadBlock(kTenant, kModel, TestBlockId(1)), TestBlockBytes(TestBlockId(1)));
  EXPECT_FALSE(Has(kCodec, 2));
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
  pin = BlockPin();
  EXPECT_EQ(store_->CollectGarbage()->blocks, 1u);
  ExpectTotalsOfNodes(*store_);
}

TEST_F(EncodingTest, NodeIsCommittedWithEncodingsAtOnceAndDeletedWithThem) {
  NodeCommit commit = TestCommit("node", {}, {1, 2});
  const v1::Encoding encoding = TestEncoding(0.5, {1, 2}, true);
  *commit.record.mutable_contents()->add_encodings() = encoding;
  commit.record.set_no_saved_blocks(true);
  commit.record.add_encodings()->set_codec("set by the store");
  GiveBlocks(encoding, &commit.blocks);
  const absl::StatusOr<NodeRecord> head = store_->CommitNode(commit);
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_FALSE(head->no_saved_blocks());
  ASSERT_EQ(head->encodings_size(), 1);
  EXPECT_EQ(head->encodings(0).codec(), kLatent);
  EXPECT_EQ(head->new_stored_bytes(),
            head->stored_bytes() + head->encodings(0).stored_bytes() + head->encodings(0).residual_bytes());
  Reopen();
  ExpectIntact(*store_, "node");
  EXPECT_EQ(store_->GetNode(kTenant, "node")->contents().encodings(0).create_time_us(), head->create_time_us());
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->DeleteNode(kTenant, "node")->blocks, 6u);
  EXPECT_EQ(store_->Stats()->blocks, 0u);
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
}

TEST_F(EncodingTest, NodeMayBeCommittedWithEncodingsOnly) {
  NodeCommit commit = TestCommit("node", {}, {1, 2});
  const v1::Encoding encoding = TestEncoding(0.5, {1, 2}, false);
  commit.record.mutable_contents()->clear_blocks();
  *commit.record.mutable_contents()->add_encodings() = encoding;
  commit.blocks.clear();
  EXPECT_EQ(store_->CommitNode(commit).status().code(), StatusCode::kFailedPrecondition);
  GiveBlocks(encoding, &commit.blocks);
  const absl::StatusOr<NodeRecord> head = store_->CommitNode(commit);
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_TRUE(head->no_saved_blocks());
  EXPECT_EQ(head->block_count(), 0u);
  ExpectIntact(*store_, "node");
  commit.record.set_node_id("twice");
  *commit.record.mutable_contents()->add_encodings() = encoding;
  EXPECT_EQ(store_->CommitNode(commit).status().code(), StatusCode::kInvalidArgument);
  commit.record.mutable_contents()->mutable_encodings()->RemoveLast();
  commit.record.mutable_contents()->mutable_encodings(0)->mutable_blocks()->RemoveLast();
  EXPECT_EQ(store_->CommitNode(commit).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(EncodingTest, UpdateLeavesEncodingsAsTheyAre) {
  Commit("node", {}, {1});
  Change("node", TestChange(TestEncoding(0.5, {1}, false)));
  const absl::StatusOr<NodeRecord> updated = store_->UpdateNode(kTenant, "node", {}, [](NodeAnnotations& annotations) {
    annotations.set_note("x");
    return absl::OkStatus();
  });
  EXPECT_EQ(updated->encodings_size(), 1);
  EXPECT_EQ(updated->revision(), 3u);
  EXPECT_EQ(Change("node", DropSaved()).annotations().note(), "x");
  ExpectIntact(*store_, "node");
}

TEST_F(EncodingTest, DamagedBlockIsMendedByTheChangeThatHasItsBytes) {
  Commit("node", {}, {1, 2});
  Change("node", TestChange(TestEncoding(0.5, {1, 2}, false)));
  store_->ReportDamaged(kTenant, kModel, {TestBlockId(1).content_id, "latent-0.5"});
  EncodingChange change = TestChange(TestEncoding(0.5, {1, 2}, false));
  change.blocks.clear();
  const absl::Status refused = store_->ChangeEncodings(kTenant, "node", change).status();
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("damage"));
  Change("node", TestChange(TestEncoding(0.5, {1, 2}, false)));
  EXPECT_TRUE(Has("latent-0.5", 1));
  ExpectTotalsOfNodes(*store_);
}

TEST_F(EncodingTest, DamageOfOneEncodingDoesNotKeepItFromGoing) {
  Commit("node", {}, {1, 2});
  store_->ReportDamaged(kTenant, kModel, TestBlockId(1));
  Change("node", TestChange(TestEncoding(0.5, {1, 2}, false)));
  Change("node", DropSaved());
  ExpectIntact(*store_, "node");
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
}

}  // namespace
}  // namespace quicksave::storage
