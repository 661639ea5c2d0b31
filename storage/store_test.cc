#include "storage/store.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(StoreTest, CommittedNodeComesBackWholeAfterReopening) {
  NodeCommit commit = TestCommit("node", {}, {1, 2, 3});
  commit.record.set_numerics_version("numerics-1");
  commit.record.set_profile_id("profile-1");
  commit.record.add_lacks("taps");
  commit.record.mutable_sampler()->set_temperature(0.7f);
  commit.record.mutable_contents()->mutable_text()->set_pending_bytes("\xf0\x9f");
  (*commit.record.mutable_annotations()->mutable_rewards())["score"] = 0.25;
  ASSERT_TRUE(store_->CommitNode(commit).ok());
  Reopen();
  ExpectIntact(*store_, "node");
  absl::StatusOr<NodeRecord> node = store_->GetNode(kTenant, "node");
  ASSERT_TRUE(node.ok()) << node.status();
  EXPECT_EQ(node->numerics_version(), "numerics-1");
  EXPECT_EQ(node->profile_id(), "profile-1");
  EXPECT_THAT(node->lacks(), ElementsAre("taps"));
  EXPECT_EQ(node->sampler().temperature(), 0.7f);
  EXPECT_EQ(node->contents().text().pending_bytes(), "\xf0\x9f");
  EXPECT_EQ(node->annotations().rewards().at("score"), 0.25);
  EXPECT_EQ(node->block_count(), 3u);
}

TEST_F(StoreTest, CommitReturnsWhatTheStoreSet) {
  options_.clock = [] { return absl::FromUnixSeconds(1000); };
  Reopen();
  const NodeRecord first = Commit("first", {}, {1, 2});
  const NodeRecord second = Commit("second", {"first"}, {1, 2, 3});
  EXPECT_EQ(first.create_time_us(), 1000000000);
  EXPECT_EQ(first.update_time_us(), first.create_time_us());
  EXPECT_GT(second.create_time_us(), first.create_time_us());
  EXPECT_EQ(first.revision(), 1u);
  EXPECT_FALSE(first.has_contents());
  EXPECT_EQ(first.new_stored_bytes(), first.stored_bytes());
  EXPECT_EQ(second.new_stored_bytes(), TestBlockBytes(TestBlockId(3)).size());
  EXPECT_EQ(second.stored_bytes(), first.stored_bytes() + second.new_stored_bytes());
  EXPECT_EQ(second.raw_bytes(), 2 * second.stored_bytes());
}

TEST_F(StoreTest, BlocksOfBranchesAreKeptOnce) {
  Commit("parent", {}, {1, 2});
  const StoreStats before = *store_->Stats();
  Commit("left", {"parent"}, {1, 2, 3});
  Commit("right", {"parent"}, {1, 2, 3});
  const StoreStats after = *store_->Stats();
  EXPECT_EQ(before.blocks, 2u);
  EXPECT_EQ(after.blocks, 3u);
  EXPECT_EQ(after.block_stored_bytes - before.block_stored_bytes, TestBlockBytes(TestBlockId(3)).size());
  EXPECT_EQ(after.nodes, 3u);
}

TEST_F(StoreTest, ChildMayReferToStoredBlocksWithoutGivingThem) {
  Commit("parent", {}, {1, 2});
  NodeCommit child = TestCommit("child", {"parent"}, {1, 2, 3});
  child.blocks.erase(child.blocks.begin(), child.blocks.begin() + 2);
  ASSERT_TRUE(store_->CommitNode(child).ok());
  ExpectIntact(*store_, "child");
}

TEST_F(StoreTest, TheSameContentInTwoCodecsIsTwoBlocks) {
  Commit("exact", {}, {1});
  NodeCommit lossy = TestCommit("lossy", {}, {1});
  lossy.record.mutable_contents()->mutable_blocks(0)->set_codec("latent.1");
  lossy.blocks[0] = {BlockId{TestBlockId(1).content_id, "latent.1"}, "coarse"};
  ASSERT_TRUE(store_->CommitNode(lossy).ok());
  EXPECT_EQ(*store_->ReadBlock(kTenant, kModel, TestBlockId(1)), TestBlockBytes(TestBlockId(1)));
  EXPECT_EQ(*store_->ReadBlock(kTenant, kModel, lossy.blocks[0].id), "coarse");
}

TEST_F(StoreTest, TenantsAndModelsSeeNothingOfEachOther) {
  Commit("node", {}, {1});
  EXPECT_EQ(store_->GetNode("other", "node").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->ReadBlock("other", kModel, TestBlockId(1)).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->ReadBlock(kTenant, "other", TestBlockId(1)).status().code(), StatusCode::kNotFound);
  NodeCommit theirs = TestCommit("node", {}, {1});
  theirs.record.set_tenant("other");
  theirs.blocks.clear();
  EXPECT_EQ(store_->CommitNode(theirs).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(StoreTest, TakenNodeIdIsRefused) {
  Commit("node", {}, {1});
  const absl::Status status = store_->CommitNode(TestCommit("node", {}, {2})).status();
  EXPECT_EQ(status.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nodes/node"));
  EXPECT_FALSE(IsStored(*store_, TestBlockId(2)));
}

TEST_F(StoreTest, MissingParentOrBlockIsRefusedByName) {
  absl::Status status = store_->CommitNode(TestCommit("child", {"nobody"}, {1})).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nodes/nobody"));
  NodeCommit commit = TestCommit("node", {}, {1});
  commit.blocks.clear();
  status = store_->CommitNode(commit).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(AllNodeIds(*store_), IsEmpty());
}

TEST_F(StoreTest, BadCommitsAreRefusedWithTheRule) {
  const auto code = [&](auto change) {
    NodeCommit commit = TestCommit("node", {}, {1, 2});
    change(commit);
    return store_->CommitNode(commit).status().code();
  };
  const auto kInvalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](NodeCommit& c) { c.record.set_node_id("Upper"); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.set_node_id(std::string(64, 'a')); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.set_tenant(""); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.set_model_fingerprint(std::string(129, 'f')); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.mutable_contents()->mutable_blocks(1)->set_first_token(5); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.set_token_count(7); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.mutable_contents()->mutable_blocks(0)->set_id("short"); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.blocks.push_back(c.blocks[0]); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.blocks.push_back({TestBlockId(9), "unused"}); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.add_parents()->set_node_id("p"); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.state.push_back(c.state[0]); }), kInvalid);
  EXPECT_EQ(code([](NodeCommit& c) { c.record.mutable_annotations()->set_note("\xff"); }), kInvalid);
  EXPECT_EQ(
      code([](NodeCommit& c) { (*c.record.mutable_annotations()->mutable_labels())["k"] = std::string(256, 'v'); }),
      kInvalid);
  EXPECT_EQ(code([](NodeCommit&) {}), StatusCode::kOk);
}

TEST_F(StoreTest, EdgesAreSeenFromBothEnds) {
  Commit("a", {}, {1});
  Commit("b", {}, {2});
  Commit("merged", {"b", "a"}, {3});
  Commit("next", {"a"}, {1, 4});
  std::vector<Edge> children = *store_->Children(kTenant, "a");
  ASSERT_EQ(children.size(), 2u);
  EXPECT_EQ(children[0].node_id, "merged");
  EXPECT_EQ(children[0].type, v1::EDGE_TYPE_MERGE);
  EXPECT_EQ(children[1].node_id, "next");
  EXPECT_EQ(children[1].type, v1::EDGE_TYPE_CONTINUATION);
  EXPECT_EQ(children[1].at_token, 7u);
  std::vector<Edge> parents = *store_->Parents(kTenant, "merged");
  ASSERT_EQ(parents.size(), 2u);
  EXPECT_EQ(parents[0].node_id, "b");
  EXPECT_EQ(parents[1].node_id, "a");
  EXPECT_THAT(*store_->Parents(kTenant, "a"), IsEmpty());
  EXPECT_EQ(store_->Children(kTenant, "nobody").status().code(), StatusCode::kNotFound);
}

TEST_F(StoreTest, ManyNodesAreReadAtOnceInOrder) {
  Commit("a", {}, {1});
  Commit("b", {}, {2});
  const auto nodes = *store_->GetNodes(kTenant, {"b", "nobody", "a"});
  ASSERT_EQ(nodes.size(), 3u);
  EXPECT_EQ(nodes[0]->node_id(), "b");
  EXPECT_FALSE(nodes[1].has_value());
  EXPECT_EQ(nodes[2]->node_id(), "a");
  EXPECT_FALSE(nodes[2]->has_contents());
}

TEST_F(StoreTest, ChildrenBlockDeletionByName) {
  Commit("parent", {}, {1});
  Commit("child", {"parent"}, {1, 2});
  const absl::Status status = store_->DeleteNode(kTenant, "parent").status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("child"));
  ExpectIntact(*store_, "parent");
}

TEST_F(StoreTest, DeletedNodeLeavesBlocksOfOthers) {
  Commit("parent", {}, {1, 2});
  Commit("left", {"parent"}, {1, 2, 3});
  Commit("right", {"parent"}, {1, 2, 3, 4});
  const DeleteReport report = *store_->DeleteNode(kTenant, "right");
  EXPECT_THAT(report.node_ids, ElementsAre("right"));
  EXPECT_EQ(report.blocks, 1u);
  EXPECT_EQ(report.stored_bytes, TestBlockBytes(TestBlockId(4)).size());
  EXPECT_EQ(store_->GetNode(kTenant, "right").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->GetState(kTenant, "right", "logits").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->ReadBlock(kTenant, kModel, TestBlockId(4)).status().code(), StatusCode::kNotFound);
  ExpectIntact(*store_, "parent");
  ExpectIntact(*store_, "left");
  EXPECT_THAT(AllNodeIds(*store_), ElementsAre("parent", "left"));
}

TEST_F(StoreTest, ForceDeletesTheSubtreeAndMergesIntoIt) {
  Commit("root", {}, {1});
  Commit("doomed", {"root"}, {1, 2});
  Commit("child", {"doomed"}, {1, 2, 3});
  Commit("other", {"root"}, {1, 4});
  Commit("merged", {"child", "other"}, {5});
  const DeleteReport report = *store_->DeleteNode(kTenant, "doomed", {.force = true, .etag = ""});
  EXPECT_THAT(report.node_ids, ElementsAre("merged", "child", "doomed"));
  EXPECT_EQ(report.blocks, 3u);
  EXPECT_THAT(AllNodeIds(*store_), ElementsAre("root", "other"));
  ExpectIntact(*store_, "other");
  const StoreStats stats = *store_->Stats();
  EXPECT_EQ(stats.nodes, 2u);
  EXPECT_EQ(stats.blocks, 2u);
}

TEST_F(StoreTest, DeletionWithAnOldEtagIsAborted) {
  const std::string etag = EtagOf(Commit("node", {}, {1}));
  ASSERT_TRUE(store_
                  ->UpdateNode(kTenant, "node", {},
                               [](NodeAnnotations& a) {
                                 a.set_note("changed");
                                 return absl::OkStatus();
                               })
                  .ok());
  EXPECT_EQ(store_->DeleteNode(kTenant, "node", {.force = false, .etag = etag}).status().code(), StatusCode::kAborted);
  EXPECT_TRUE(store_->GetNode(kTenant, "node").ok());
}

TEST_F(StoreTest, PinnedBlockSurvivesItsLastNodeUntilCollected) {
  Commit("node", {}, {1, 2});
  {
    absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, {TestBlockId(1), TestBlockId(3)});
    ASSERT_TRUE(pin.ok());
    EXPECT_THAT(pin->present(), ElementsAre(true, false));
    EXPECT_EQ(store_->DeleteNode(kTenant, "node")->blocks, 1u);
    EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
    EXPECT_TRUE(IsStored(*store_, TestBlockId(1)));
    NodeCommit again = TestCommit("again", {}, {1});
    again.blocks.clear();
    EXPECT_TRUE(store_->CommitNode(again).ok());
    EXPECT_EQ(store_->DeleteNode(kTenant, "again")->blocks, 0u);
  }
  const GarbageReport garbage = *store_->CollectGarbage();
  EXPECT_EQ(garbage.blocks, 1u);
  EXPECT_EQ(garbage.stored_bytes, TestBlockBytes(TestBlockId(1)).size());
  EXPECT_FALSE(IsStored(*store_, TestBlockId(1)));
  EXPECT_EQ(store_->Stats()->blocks, 0u);
}

TEST_F(StoreTest, ReportedBlockIsReplacedByTheNextCommitThatHasIt) {
  NodeCommit wrong = TestCommit("wrong", {}, {1, 2});
  wrong.blocks[0].bytes = "what a failing machine encoded";
  ASSERT_TRUE(store_->CommitNode(wrong).ok());
  store_->ReportDamaged(kTenant, kModel, TestBlockId(1));
  NodeCommit commit = TestCommit("right", {}, {1, 2});
  commit.blocks.clear();
  const absl::Status refused = store_->CommitNode(commit).status();
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("damage"));
  Commit("right", {}, {1, 2});
  ExpectIntact(*store_, "right");
  const uint64_t bytes = TestBlockBytes(TestBlockId(1)).size() + TestBlockBytes(TestBlockId(2)).size();
  EXPECT_EQ(store_->Stats()->blocks, 2u);
  EXPECT_EQ(store_->Stats()->block_stored_bytes, bytes);
  EXPECT_EQ(store_->Stats()->block_raw_bytes, 2 * bytes);
  EXPECT_TRUE(store_->CommitNode(commit).status().code() == StatusCode::kAlreadyExists);
  commit.record.set_node_id("shares");
  EXPECT_TRUE(store_->CommitNode(commit).ok());
}

TEST_F(StoreTest, MissingParentDirectoryAndHeldLockSayWhatToDo) {
  absl::Status status = Store::Open(TestOptions(dir_.path() + "/none/store")).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/none/store: its parent directory does not exist; make it"));
  status = Store::Open(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("another process or Store has it open"));
}

TEST_F(StoreTest, PinMayOutliveTheStore) {
  Commit("node", {}, {1});
  absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, {TestBlockId(1)});
  ASSERT_TRUE(pin.ok());
  store_.reset();
  BlockPin moved = *std::move(pin);
  moved = BlockPin();
}

TEST_F(StoreTest, UpdateChangesAnnotationsAndTheirIndex) {
  const NodeRecord before = Commit("node", {}, {1});
  absl::StatusOr<NodeRecord> after =
      store_->UpdateNode(kTenant, "node", {.etag = EtagOf(before)}, [](NodeAnnotations& a) {
        a.mutable_labels()->clear();
        (*a.mutable_labels())["colour"] = "red";
        return absl::OkStatus();
      });
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->revision(), 2u);
  EXPECT_EQ(after->create_time_us(), before.create_time_us());
  EXPECT_GT(after->update_time_us(), before.update_time_us());
  EXPECT_NE(EtagOf(*after), EtagOf(before));
  Reopen();
  ListRequest request;
  request.tenant = kTenant;
  request.filter.labels = {{"colour", "red"}};
  EXPECT_EQ(store_->ListNodes(request)->nodes.size(), 1u);
  request.filter.labels = {{"name", "node"}};
  EXPECT_THAT(store_->ListNodes(request)->nodes, IsEmpty());
  EXPECT_THAT(store_->VerifyNode(kTenant, "node")->problems, IsEmpty());
}

TEST_F(StoreTest, UpdateWithAnOldEtagOrAnErrorChangesNothing) {
  const NodeRecord before = Commit("node", {}, {1});
  const auto set_note = [](NodeAnnotations& a) {
    a.set_note("x");
    return absl::OkStatus();
  };
  EXPECT_EQ(store_->UpdateNode(kTenant, "node", {.etag = "0-0"}, set_note).status().code(), StatusCode::kAborted);
  EXPECT_EQ(store_->UpdateNode(kTenant, "nobody", {}, set_note).status().code(), StatusCode::kNotFound);
  const auto refuse = [](NodeAnnotations& a) {
    a.set_note("y");
    return absl::CancelledError("no");
  };
  EXPECT_EQ(store_->UpdateNode(kTenant, "node", {}, refuse).status(), absl::CancelledError("no"));
  const auto bad_label = [](NodeAnnotations& a) {
    (*a.mutable_labels())[""] = "v";
    return absl::OkStatus();
  };
  EXPECT_EQ(store_->UpdateNode(kTenant, "node", {}, bad_label).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(EtagOf(*store_->GetNode(kTenant, "node")), EtagOf(before));
}

TEST_F(StoreTest, EtagsOfNodesWithTheSameNameDiffer) {
  const std::string first = EtagOf(Commit("node", {}, {1}));
  ASSERT_TRUE(store_->DeleteNode(kTenant, "node").ok());
  EXPECT_NE(EtagOf(Commit("node", {}, {1})), first);
}

TEST_F(StoreTest, AnswersAreRememberedAcrossReopeningUntilForgotten) {
  absl::Time now = absl::FromUnixSeconds(1000);
  options_.clock = [&] { return now; };
  Reopen();
  for (const char* node : {"a", "b", "c"}) Commit(node, {}, {1});
  const auto remove = [&](const std::string& node, const std::string& request_id) {
    const auto answer = [](const DeleteReport& report) { return "deleted " + report.node_ids.front(); };
    return store_->DeleteNode(
        kTenant, node, {.request = AnsweredRequest<DeleteReport>{{"Delete", request_id, "fingerprint"}, answer}});
  };
  ASSERT_TRUE(remove("a", "id-1").ok());
  EXPECT_EQ(remove("b", "id-1").status().code(), StatusCode::kAborted);
  now += absl::Hours(1);
  ASSERT_TRUE(remove("b", "id-2").ok());
  Reopen();
  EXPECT_EQ(store_->FindRequest(kTenant, "Delete", "id-1")->answer, "deleted a");
  EXPECT_EQ(store_->FindRequest(kTenant, "Delete", "id-1")->fingerprint, "fingerprint");
  EXPECT_EQ(store_->FindRequest(kTenant, "Snapshot", "id-1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->FindRequest("other", "Delete", "id-1").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->ForgetRequests(now).value(), 1u);
  EXPECT_EQ(store_->FindRequest(kTenant, "Delete", "id-1").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(store_->FindRequest(kTenant, "Delete", "id-2").ok());
  EXPECT_EQ(store_->ForgetRequests(now).value(), 0u);
}

TEST_F(StoreTest, AnswerIsStoredWithItsNode) {
  NodeCommit commit = TestCommit("node", {}, {1});
  commit.request =
      AnsweredRequest<NodeRecord>{{"Snapshot", "id", "fingerprint"}, [](const NodeRecord& r) { return EtagOf(r); }};
  const NodeRecord node = *store_->CommitNode(commit);
  EXPECT_EQ(store_->FindRequest(kTenant, "Snapshot", "id")->answer, EtagOf(node));
  commit.record.set_node_id("node-2");
  EXPECT_EQ(store_->CommitNode(commit).status().code(), StatusCode::kAborted);
  EXPECT_EQ(store_->GetNode(kTenant, "node-2").status().code(), StatusCode::kNotFound);
}

TEST_F(StoreTest, TotalsSurviveReopening) {
  Commit("a", {}, {1, 2});
  Commit("b", {"a"}, {1, 2, 3});
  const StoreStats before = *store_->Stats();
  Reopen();
  const StoreStats after = *store_->Stats();
  EXPECT_EQ(after.nodes, 2u);
  EXPECT_EQ(after.blocks, before.blocks);
  EXPECT_EQ(after.block_raw_bytes, before.block_raw_bytes);
  EXPECT_EQ(after.block_stored_bytes, before.block_stored_bytes);
  EXPECT_EQ(after.state_bytes, before.state_bytes);
  EXPECT_GT(after.disk_used_bytes, after.block_stored_bytes);
  EXPECT_TRUE(after.writable);
}

TEST_F(StoreTest, CompactionGivesSpaceBackAndLeavesTheRest) {
  std::vector<uint64_t> blocks;
  for (uint64_t n = 0; n < 60; ++n) blocks.push_back(n);
  Commit("doomed", {}, blocks);
  Commit("kept", {}, {1000, 1001});
  Reopen();
  const uint64_t before = store_->Stats()->disk_used_bytes;
  ASSERT_TRUE(store_->DeleteNode(kTenant, "doomed").ok());
  ASSERT_TRUE(store_->Compact().ok());
  Reopen();
  EXPECT_LT(store_->Stats()->disk_used_bytes, before / 4);
  ExpectIntact(*store_, "kept");
}

TEST_F(StoreTest, OpenStoreCannotBeOpenedAgain) {
  const absl::Status status = Store::Open(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(options_.path));
  Commit("still-works", {}, {1});
}

TEST(StoreOpenTest, FolderWithoutParentIsAnError) {
  TempDir dir;
  EXPECT_FALSE(Store::Open(TestOptions(dir.path() + "/missing/store")).ok());
}

}  // namespace
}  // namespace quicksave::storage
