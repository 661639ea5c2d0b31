// Blocks of hidden states are blocks like those of K and V, but with sizes of their own.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;

// A node with blocks 1 and 2 of K and V, and these of hidden states.
NodeCommit CommitWithTaps(absl::string_view node_id, const std::vector<uint64_t>& taps) {
  NodeCommit commit = TestCommit(node_id, {}, {1, 2});
  v1::TapState& state = *commit.record.mutable_taps();
  state.set_tokens(v1::TapState::TOKENS_ALL);
  state.add_layers(3);
  state.set_hidden_size(16);
  state.set_token_count(2 * kTokensPerBlock);
  for (const uint64_t n : taps) {
    v1::TapBlock& tap = *commit.record.mutable_contents()->add_tap_blocks();
    tap.set_layer(3);
    *tap.mutable_block() = TestBlockRef(n, 0);
    const BlockId id = TestBlockId(n);
    commit.blocks.push_back({id, TestBlockBytes(id)});
  }
  return commit;
}

uint64_t Size(uint64_t n) { return TestBlockBytes(TestBlockId(n)).size(); }

TEST_F(StoreTest, TapBlocksComeBackAndHaveSizesOfTheirOwn) {
  const absl::StatusOr<NodeRecord> head = store_->CommitNode(CommitWithTaps("node", {11, 12}));
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->stored_bytes(), Size(1) + Size(2));
  EXPECT_EQ(head->block_count(), 2u);
  EXPECT_EQ(head->taps().stored_bytes(), Size(11) + Size(12));
  EXPECT_EQ(head->taps().raw_bytes(), 2 * (Size(11) + Size(12)));
  EXPECT_EQ(head->new_stored_bytes(), head->stored_bytes() + head->taps().stored_bytes());
  Reopen();
  ExpectIntact(*store_, "node");
  const absl::StatusOr<NodeRecord> node = store_->GetNode(kTenant, "node");
  ASSERT_TRUE(node.ok());
  EXPECT_EQ(node->taps().layers(0), 3u);
  ASSERT_EQ(node->contents().tap_blocks_size(), 2);
  EXPECT_EQ(node->contents().tap_blocks(1).block().stored_bytes(), Size(12));
  EXPECT_EQ(*store_->ReadBlock(kTenant, kModel, TestBlockId(12)), TestBlockBytes(TestBlockId(12)));
  EXPECT_EQ(store_->VerifyNode(kTenant, "node")->blocks, 5u) << "and the logits";
}

TEST_F(StoreTest, TapBlocksAreSharedAndGoWithTheirLastNode) {
  ASSERT_TRUE(store_->CommitNode(CommitWithTaps("one", {11, 12})).ok());
  const absl::StatusOr<NodeRecord> two = store_->CommitNode(CommitWithTaps("two", {11, 13}));
  ASSERT_TRUE(two.ok());
  EXPECT_EQ(two->new_stored_bytes(), Size(13));
  EXPECT_EQ(store_->Stats()->blocks, 5u);
  ASSERT_TRUE(store_->DeleteNode(kTenant, "one").ok());
  EXPECT_TRUE(IsStored(*store_, TestBlockId(11)));
  EXPECT_FALSE(IsStored(*store_, TestBlockId(12)));
  ExpectIntact(*store_, "two");
  ASSERT_TRUE(store_->DeleteNode(kTenant, "two").ok());
  EXPECT_EQ(store_->Stats()->blocks, 0u);
  EXPECT_EQ(store_->Stats()->block_stored_bytes, 0u);
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
}

TEST_F(StoreTest, TapBlocksMustBeGivenOrStored) {
  NodeCommit commit = CommitWithTaps("node", {11});
  commit.blocks.pop_back();
  EXPECT_EQ(store_->CommitNode(commit).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(StoreTest, BadTapsAreRefused) {
  const auto code = [&](auto change) {
    NodeCommit commit = CommitWithTaps("node", {11});
    change(commit.record);
    return store_->CommitNode(commit).status().code();
  };
  EXPECT_EQ(code([](NodeRecord& record) { record.clear_taps(); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](NodeRecord& record) { record.mutable_taps()->set_token_count(2 * kTokensPerBlock + 1); }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](NodeRecord& record) { record.mutable_taps()->set_first_token(1); }), StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](NodeRecord& record) {
              record.mutable_contents()->mutable_tap_blocks(0)->mutable_block()->set_id("short");
            }),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code([](NodeRecord&) {}), StatusCode::kOk);
}

}  // namespace
}  // namespace quicksave::storage
