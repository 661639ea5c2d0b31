// Several threads at once. Most telling under the thread sanitizer.
#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;

using StoreConcurrencyTest = StoreTest;

// Each thread commits and deletes nodes over the same few blocks, which come and go all the time.
TEST_F(StoreConcurrencyTest, CommitsAndDeletesOfSharedBlocksLeaveWholeNodes) {
  constexpr int kThreads = 3;
  constexpr int kRounds = 60;
  std::atomic<bool> done = false;
  std::thread collector([&] {
    while (!done) ASSERT_TRUE(store_->CollectGarbage().ok());
  });
  std::vector<std::thread> writers;
  for (int t = 0; t < kThreads; ++t) {
    writers.emplace_back([&, t] {
      for (int i = 0; i < kRounds; ++i) {
        const std::string id = absl::StrCat("t", t, "-", i);
        const uint64_t first = i % 4;
        const auto committed = store_->CommitNode(TestCommit(id, {}, {first, first + 1, first + 2}));
        ASSERT_TRUE(committed.ok()) << committed.status();
        ExpectIntact(*store_, id);
        if (i % 7 != 0) {
          ASSERT_TRUE(store_->DeleteNode(kTenant, id).ok());
        }
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  done = true;
  collector.join();
  const std::vector<std::string> ids = AllNodeIds(*store_);
  EXPECT_EQ(ids.size(), kThreads * ((kRounds + 6) / 7));
  for (const std::string& id : ids) ExpectIntact(*store_, id);
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
}

// A child is committed with blocks that it does not give, pinned while another thread deletes their only node.
TEST_F(StoreConcurrencyTest, PinnedBlocksCanBeCountedOnWhileTheirNodeIsDeleted) {
  for (int round = 0; round < 40; ++round) {
    const std::string first = absl::StrCat("first-", round);
    const std::string second = absl::StrCat("second-", round);
    Commit(first, {}, {1, 2});
    std::thread deleter([&] { ASSERT_TRUE(store_->DeleteNode(kTenant, first).ok()); });
    NodeCommit commit = TestCommit(second, {}, {1, 2});
    absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, {TestBlockId(1), TestBlockId(2)});
    ASSERT_TRUE(pin.ok()) << pin.status();
    if (pin->present() == std::vector<bool>{true, true}) commit.blocks.clear();
    const absl::Status status = store_->CommitNode(commit).status();
    deleter.join();
    ASSERT_TRUE(status.ok()) << status;
    ExpectIntact(*store_, second);
    ASSERT_TRUE(store_->DeleteNode(kTenant, second).ok());
    pin = BlockPin();
    ASSERT_TRUE(store_->CollectGarbage().ok());
    ASSERT_EQ(store_->Stats()->blocks, 0u);
  }
}

// A parent is deleted while a child is committed: either the child finds no parent, or the parent has a child.
TEST_F(StoreConcurrencyTest, ParentAndChildNeverPart) {
  for (int round = 0; round < 60; ++round) {
    const std::string parent = absl::StrCat("parent-", round);
    const std::string child = absl::StrCat("child-", round);
    Commit(parent, {}, {1});
    absl::Status deleted;
    std::thread deleter([&] { deleted = store_->DeleteNode(kTenant, parent).status(); });
    const absl::Status committed = store_->CommitNode(TestCommit(child, {parent}, {1, 2})).status();
    deleter.join();
    ASSERT_NE(deleted.ok(), committed.ok());
    EXPECT_EQ((deleted.ok() ? committed : deleted).code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(store_->GetNode(kTenant, parent).ok(), committed.ok());
    if (committed.ok()) ExpectIntact(*store_, child);
  }
}

TEST_F(StoreConcurrencyTest, OfEqualCommitsOneWins) {
  for (int round = 0; round < 30; ++round) {
    const NodeCommit commit = TestCommit(absl::StrCat("node-", round), {}, {1, 2});
    absl::Status other;
    std::thread thread([&] { other = store_->CommitNode(commit).status(); });
    const absl::Status mine = store_->CommitNode(commit).status();
    thread.join();
    ASSERT_NE(mine.ok(), other.ok());
    EXPECT_EQ((mine.ok() ? other : mine).code(), StatusCode::kAlreadyExists);
  }
}

TEST_F(StoreConcurrencyTest, UpdatesByEtagLoseNoChange) {
  Commit("node", {}, {1});
  constexpr int kThreads = 3;
  constexpr int kIncrements = 30;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kIncrements;) {
        const NodeRecord seen = *store_->GetNode(kTenant, "node");
        const auto seen_rewards = seen.annotations().rewards();
        const auto count = seen_rewards.find("count");
        const double next = (count == seen_rewards.end() ? 0 : count->second) + 1;
        const absl::Status status = store_
                                        ->UpdateNode(kTenant, "node", {.etag = EtagOf(seen)},
                                                     [&](NodeAnnotations& annotations) {
                                                       (*annotations.mutable_rewards())["count"] = next;
                                                       return absl::OkStatus();
                                                     })
                                        .status();
        if (status.ok()) ++i;
        if (!status.ok()) {
          ASSERT_EQ(status.code(), StatusCode::kAborted) << status;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->GetNode(kTenant, "node")->annotations().rewards().at("count"), kThreads * kIncrements);
}

// Readers of a node that is deleted and made again see it whole or not at all: never DATA_LOSS.
TEST_F(StoreConcurrencyTest, ReadersNeverTakeADeletionForDamage) {
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int i = 0; i < 150; ++i) {
      ASSERT_TRUE(store_->CommitNode(TestCommit("node", {}, {1, 2})).ok());
      ASSERT_TRUE(store_->DeleteNode(kTenant, "node").ok());
    }
    done = true;
  });
  const auto expect_whole_or_absent = [](const absl::Status& status) {
    if (!status.ok()) {
      EXPECT_EQ(status.code(), StatusCode::kNotFound) << status;
    }
  };
  ListRequest request;
  request.tenant = kTenant;
  while (!done) {
    expect_whole_or_absent(store_->GetNode(kTenant, "node").status());
    expect_whole_or_absent(store_->GetState(kTenant, "node", "logits").status());
    expect_whole_or_absent(store_->ReadBlock(kTenant, kModel, TestBlockId(1)).status());
    absl::StatusOr<VerifyReport> report = store_->VerifyNode(kTenant, "node");
    expect_whole_or_absent(report.status());
    if (report.ok()) {
      EXPECT_TRUE(report->problems.empty()) << report->problems.front();
    }
    EXPECT_TRUE(store_->ListNodes(request).ok());
  }
  writer.join();
}

// Readers of a node whose encodings change back and forth: what they have pinned they can read, of one moment.
TEST_F(StoreConcurrencyTest, ReadersDuringASwitchSeeOneEncodingWhole) {
  Commit("node", {}, {1, 2, 3});
  std::atomic<bool> done = false;
  std::thread writer([&] {
    EncodingChange first = TestChange(TestEncoding(1, {1, 2, 3}, true));
    first.remove_saved = true;
    ASSERT_TRUE(store_->ChangeEncodings(kTenant, "node", first).ok());
    for (int i = 0; i < 200; ++i) {
      EncodingChange change = TestChange(TestEncoding(i % 2 == 0 ? 2 : 1, {1, 2, 3}, i % 2 == 1));
      change.remove = {TestEncodingKey(i % 2 == 0 ? 1 : 2)};
      ASSERT_TRUE(store_->ChangeEncodings(kTenant, "node", change).ok());
    }
    done = true;
  });
  int whole = 0;
  while (!done || whole == 0) {
    const absl::StatusOr<NodeRecord> node = store_->GetNode(kTenant, "node");
    ASSERT_TRUE(node.ok()) << node.status();
    EXPECT_EQ(node->encodings_size(), node->contents().encodings_size());
    EXPECT_TRUE(CoversTokens(node->contents(), node->token_count()));
    std::vector<BlockId> ids;
    ForEachBlock(node->contents(), [&](const BlockRef& ref) { ids.push_back(IdOf(ref)); });
    const absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, ids);
    ASSERT_TRUE(pin.ok()) << pin.status();
    const bool all = std::count(pin->present().begin(), pin->present().end(), false) == 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const absl::StatusOr<std::string> bytes = store_->ReadBlock(kTenant, kModel, ids[i]);
      if (pin->present()[i]) {
        ASSERT_TRUE(bytes.ok()) << bytes.status();
        EXPECT_TRUE(*bytes == TestBlockBytes(ids[i]));
      } else if (!bytes.ok()) {
        EXPECT_EQ(bytes.status().code(), StatusCode::kNotFound) << bytes.status();
      }
    }
    if (all) ++whole;
    EXPECT_THAT(store_->VerifyNode(kTenant, "node")->problems, testing::IsEmpty());
  }
  writer.join();
  ASSERT_TRUE(store_->CollectGarbage().ok());
  ExpectIntact(*store_, "node");
  ExpectTotalsOfNodes(*store_);
}

// Each thread changes the encodings of a node of its own, over blocks that all share.
TEST_F(StoreConcurrencyTest, ChangesOfNodesThatShareBlocksLeaveThemWhole) {
  constexpr int kThreads = 3;
  for (int t = 0; t < kThreads; ++t) Commit(absl::StrCat("t", t), {}, {1, 2, 3});
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const std::string id = absl::StrCat("t", t);
      for (int i = 0; i < 40; ++i) {
        EncodingChange add = TestChange(TestEncoding(1, {1, 2, 3}, i % 3 == 0));
        add.remove_saved = i == 0;
        ASSERT_TRUE(store_->ChangeEncodings(kTenant, id, add).ok());
        add = TestChange(TestEncoding(2, {1, 2, 3}, false));
        add.remove = {TestEncodingKey(1)};
        ASSERT_TRUE(store_->ChangeEncodings(kTenant, id, add).ok());
        ExpectIntact(*store_, id);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->Stats()->blocks, 3u);
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
}

}  // namespace
}  // namespace quicksave::storage
