// The disk fails at every point there is; the store holds every node wholly or not at all.
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/env.h"
#include "storage/store.h"
#include "storage/testing/fault_file_system.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;

class FaultInjectionTest : public testing::Test {
 protected:
  FaultInjectionTest() : options_(TestOptions(dir_.path() + "/store")) { options_.env = &env_; }

  std::unique_ptr<Store> Open() { return OpenOrDie(options_); }

  // What n3 has, as "saved 1r 2".
  static std::string FormOf(const NodeRecord& node) {
    std::string form = node.no_saved_blocks() ? "" : "saved";
    for (const v1::EncodingSummary& summary : node.encodings()) {
      absl::StrAppend(&form, " ", summary.step(), summary.has_residual() ? "r" : "");
    }
    return form;
  }

  // Changes the encodings of n3 and, of fewer blocks, of n2; notes what n3 may have come to.
  absl::Status Recode(Store* store) {
    EncodingChange swap = TestChange(TestEncoding(2, {0, 1, 2, 3}, false));
    swap.remove_saved = true;
    EncodingChange strip;
    strip.remove = {TestEncodingKey(2)};
    strip.remove_residuals = {TestEncodingKey(1)};
    const std::pair<EncodingChange, std::string> changes[] = {
        {TestChange(TestEncoding(1, {0, 1, 2, 3}, true)), "saved 1r"}, {swap, " 1r 2"}, {strip, " 1"}};
    for (const auto& [change, form] : changes) {
      forms_.push_back(form);
      absl::Status status = store->ChangeEncodings(kTenant, "n3", change).status();
      if (!status.ok()) return status;
      forms_ = {form};
    }
    EncodingChange other = TestChange(TestEncoding(1, {0, 1, 2}, true));
    other.remove_saved = true;
    return store->ChangeEncodings(kTenant, "n2", other).status();
  }

  // A workload of commits, changes of encodings and deletes; notes what was acknowledged. Stops at the first error.
  absl::Status Work(Store* store) {
    for (int i = 0; i < 6; ++i) {
      const std::string id = absl::StrCat("n", i);
      std::vector<std::string> parents;
      std::vector<uint64_t> blocks;
      if (i > 0) parents.push_back(absl::StrCat("n", i - 1));
      for (int b = 0; b <= i; ++b) blocks.push_back(b);
      if (absl::Status status = store->CommitNode(TestCommit(id, parents, blocks)).status(); !status.ok())
        return status;
      acknowledged_.insert(id);
    }
    if (absl::Status status = Recode(store); !status.ok()) return status;
    deleting_ = "n5";
    if (absl::Status status = store->DeleteNode(kTenant, "n5").status(); !status.ok()) return status;
    acknowledged_.erase("n5");
    deleted_.insert("n5");
    deleting_.clear();
    return absl::OkStatus();
  }

  // What must hold of a store that is opened after whatever happened.
  void ExpectConsistent(Store* store) {
    const std::vector<std::string> ids = AllNodeIds(*store);
    for (const std::string& id : ids) {
      SCOPED_TRACE(id);
      ExpectIntact(*store, id);
      EXPECT_FALSE(deleted_.count(id));
    }
    for (const std::string& id : acknowledged_) {
      if (id != deleting_) {
        EXPECT_TRUE(std::count(ids.begin(), ids.end(), id)) << id << " was acknowledged and is gone";
      }
    }
    ExpectTotalsOfNodes(*store);
    if (const absl::StatusOr<NodeRecord> node = store->GetNode(kTenant, "n3"); node.ok()) {
      EXPECT_THAT(forms_, testing::Contains(FormOf(*node)));
      if (node->encodings_size() > 0) {
        EXPECT_EQ(store->Stats()->format_version, kEncodingsFormatVersion);
      }
    }
    EXPECT_EQ(store->CollectGarbage()->blocks, 0u);
  }

  TempDir dir_;
  const std::shared_ptr<FaultFileSystem> system_ = std::make_shared<FaultFileSystem>();
  FaultEnv env_{system_};
  StoreOptions options_;
  std::set<std::string> acknowledged_, deleted_;
  std::vector<std::string> forms_ = {"saved"};
  std::string deleting_;
};

struct Scenario {
  Durability durability;
  bool cut_power;
};

class EveryChangeFailsTest : public FaultInjectionTest, public testing::WithParamInterface<Scenario> {};

TEST_P(EveryChangeFailsTest, ReopenedStoreHasAcknowledgedNodesAndNoPartsOfOthers) {
  options_.durability = GetParam().durability;
  bool finished = false;
  int64_t n = 0;
  for (; !finished && n < 400; ++n) {
    SCOPED_TRACE(absl::StrCat("change ", n, " fails"));
    options_.path = absl::StrCat(dir_.path(), "/", n);
    acknowledged_.clear();
    deleted_.clear();
    deleting_.clear();
    forms_ = {"saved"};
    std::unique_ptr<Store> store = Open();
    system_->FailFrom(n);
    finished = Work(store.get()).ok();
    store.reset();
    if (GetParam().cut_power) system_->CutPower();
    system_->Heal();
    store = Open();
    ASSERT_NE(store, nullptr);
    ExpectConsistent(store.get());
    EXPECT_TRUE(store->CommitNode(TestCommit("afterwards", {}, {77})).ok());
    store.reset();
    std::filesystem::remove_all(options_.path);
    if (HasFailure()) break;
  }
  EXPECT_TRUE(finished);
  EXPECT_GT(n, 7);
}

INSTANTIATE_TEST_SUITE_P(Durabilities, EveryChangeFailsTest,
                         testing::Values(Scenario{Durability::kProcess, false}, Scenario{Durability::kSync, false},
                                         Scenario{Durability::kSync, true}));

TEST_F(FaultInjectionTest, CreationThatFailsAnywhereCanBeRepeated) {
  bool finished = false;
  int64_t n = 0;
  for (; !finished && n < 400; n += 5) {  // There are over a hundred.
    SCOPED_TRACE(absl::StrCat("change ", n, " fails"));
    options_.path = absl::StrCat(dir_.path(), "/", n);
    system_->FailFrom(n);
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_);
    finished = store.ok();
    if (store.ok()) store->reset();
    system_->Heal();
    std::unique_ptr<Store> again = Open();
    ASSERT_NE(again, nullptr);
    EXPECT_TRUE(again->CommitNode(TestCommit("node", {}, {1})).ok());
    ExpectIntact(*again, "node");
  }
  EXPECT_TRUE(finished);
  EXPECT_GT(n, 10);
}

TEST_F(FaultInjectionTest, FullDiskRefusesWritesServesReadsAndRecoversWithoutRestart) {
  std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(store->CommitNode(TestCommit("before", {}, {1, 2})).ok());
  system_->SetFull(true);
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = store->CommitNode(TestCommit("refused", {}, {3})).status();
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
    ExpectIntact(*store, "before");
    EXPECT_EQ(store->GetNode(kTenant, "refused").status().code(), StatusCode::kNotFound);
    EXPECT_FALSE(store->Stats()->writable);
  }
  system_->SetFull(false);
  ASSERT_TRUE(store->CommitNode(TestCommit("after", {"before"}, {1, 2, 4})).ok());
  EXPECT_TRUE(store->Stats()->writable);
  acknowledged_ = {"before", "after"};
  ExpectConsistent(store.get());
  store.reset();
  store = Open();
  ExpectConsistent(store.get());
  EXPECT_THAT(AllNodeIds(*store), testing::ElementsAre("before", "after"));
}

TEST_F(FaultInjectionTest, FullDiskDuringFlushesAndCompactionsLosesNothing) {
  options_.write_buffer_bytes = 1 << 20;  // Flushes every few commits.
  std::unique_ptr<Store> store = Open();
  int refused = 0;
  for (int i = 0; i < 120; ++i) {
    system_->SetFull(i % 10 >= 7);
    const std::string id = absl::StrCat("n", i);
    std::vector<uint64_t> blocks;
    for (int b = 0; b < 5; ++b) blocks.push_back(1000 * i + b);
    const absl::Status status = store->CommitNode(TestCommit(id, {}, blocks)).status();
    if (status.ok()) acknowledged_.insert(id);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
      ++refused;
    }
    if (i % 10 < 7) {
      EXPECT_TRUE(status.ok()) << i << ": " << status;
    }
  }
  EXPECT_EQ(refused, 36);
  system_->SetFull(false);
  ExpectConsistent(store.get());
  store.reset();
  store = Open();
  ExpectConsistent(store.get());
}

TEST_F(FaultInjectionTest, DiskThatIsFullForMomentsLosesNothing) {
  std::unique_ptr<Store> store = Open();
  std::atomic<bool> done{false};
  std::thread others([&] {
    std::minstd_rand random(7);
    while (!done) {
      // Not to wait for anything: the disk is full for a while, and then not.
      system_->SetFull(true);
      absl::SleepFor(absl::Milliseconds(random() % 20));
      system_->SetFull(false);
      // Not to wait for anything, either.
      absl::SleepFor(absl::Milliseconds(random() % 500));
    }
  });
  std::thread reader([&] {
    while (!done) AllNodeIds(*store);
  });
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    const std::string id = absl::StrCat("n", i);
    const absl::Status status = store->CommitNode(TestCommit(id, {}, {uint64_t(2 * i), uint64_t(2 * i + 1)})).status();
    if (status.ok()) acknowledged_.insert(id);
    EXPECT_TRUE(status.ok() || status.code() == StatusCode::kResourceExhausted) << status;
    if (!status.ok()) ++refused;
  }
  done = true;
  others.join();
  reader.join();
  EXPECT_GT(refused, 0);
  EXPECT_TRUE(store->CommitNode(TestCommit("last", {}, {1})).ok());
  acknowledged_.insert("last");
  ExpectConsistent(store.get());
  store.reset();
  store = Open();
  ExpectConsistent(store.get());
}

TEST_F(FaultInjectionTest, WhatWasRefusedAndIsInTheLogAllTheSameIsCounted) {
  options_.durability = Durability::kSync;
  std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(store->CommitNode(TestCommit("before", {}, {1})).ok());
  acknowledged_.insert("before");
  system_->SetFullAtSync(true);
  EXPECT_EQ(store->CommitNode(TestCommit("refused", {}, {1, 2})).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(store->CommitNode(TestCommit("refused-too", {}, {3})).status().code(), StatusCode::kResourceExhausted);
  system_->SetFullAtSync(false);
  // Computed with what came back in mind.
  EXPECT_TRUE(store->DeleteNode(kTenant, "before").ok());
  acknowledged_.clear();
  EXPECT_TRUE(store->CommitNode(TestCommit("after", {}, {2})).ok());
  acknowledged_.insert("after");
  EXPECT_TRUE(store->GetNode(kTenant, "refused").ok()) << "the test proves nothing otherwise";
  ExpectConsistent(store.get());
  store.reset();
  store = Open();
  ExpectConsistent(store.get());
}

TEST_F(FaultInjectionTest, FullDiskLeavesTheOldEncodingsAndTheChangeCanBeRepeated) {
  std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(store->CommitNode(TestCommit("node", {}, {1, 2})).ok());
  EncodingChange change = TestChange(TestEncoding(1, {1, 2}, true));
  change.remove_saved = true;
  system_->SetFull(true);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(store->ChangeEncodings(kTenant, "node", change).status().code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(FormOf(*store->GetNode(kTenant, "node")), "saved");
    ExpectIntact(*store, "node");
  }
  system_->SetFull(false);
  ASSERT_TRUE(store->ChangeEncodings(kTenant, "node", change).ok());
  EXPECT_EQ(FormOf(*store->GetNode(kTenant, "node")), " 1r");
  ExpectIntact(*store, "node");
  ExpectTotalsOfNodes(*store);
  EXPECT_EQ(store->CollectGarbage()->blocks, 0u);
}

TEST_F(FaultInjectionTest, ChangeThatWasRefusedAndIsInTheLogAllTheSameIsCounted) {
  options_.durability = Durability::kSync;
  std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(store->CommitNode(TestCommit("node", {}, {1, 2})).ok());
  EncodingChange change = TestChange(TestEncoding(1, {1, 2}, true));
  change.remove_saved = true;
  change.etag = EtagOf(*store->GetNode(kTenant, "node"));
  system_->SetFullAtSync(true);
  EXPECT_EQ(store->ChangeEncodings(kTenant, "node", change).status().code(), StatusCode::kResourceExhausted);
  system_->SetFullAtSync(false);
  EXPECT_EQ(store->ChangeEncodings(kTenant, "node", change).status().code(), StatusCode::kAborted)
      << "the test proves nothing otherwise";
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(store->Stats()->format_version, kEncodingsFormatVersion);
    EXPECT_EQ(FormOf(*store->GetNode(kTenant, "node")), " 1r");
    ExpectIntact(*store, "node");
    ExpectTotalsOfNodes(*store);
    EXPECT_EQ(store->CollectGarbage()->blocks, 0u);
    store.reset();
    store = Open();
  }
}

TEST_F(FaultInjectionTest, NearlyFullDiskLetsEncodingsGoAndNoneCome) {
  options_.min_free_disk_bytes = 1000;
  std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(store->CommitNode(TestCommit("node", {}, {1})).ok());
  ASSERT_TRUE(store->ChangeEncodings(kTenant, "node", TestChange(TestEncoding(1, {1}, true))).ok());
  system_->SetFreeBytes(999);
  EncodingChange change = TestChange(TestEncoding(2, {1}, false));
  EXPECT_EQ(store->ChangeEncodings(kTenant, "node", change).status().code(), StatusCode::kResourceExhausted);
  change = {};
  change.remove_saved = true;
  EXPECT_TRUE(store->ChangeEncodings(kTenant, "node", change).ok());
  ExpectIntact(*store, "node");
  ExpectTotalsOfNodes(*store);
}

TEST_F(FaultInjectionTest, NearlyFullDiskRefusesCommitsAndAllowsDeletes) {
  options_.min_free_disk_bytes = 1000;
  std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(store->CommitNode(TestCommit("node", {}, {1})).ok());
  system_->SetFreeBytes(999);
  const absl::Status status = store->CommitNode(TestCommit("refused", {}, {2})).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("999"));
  EXPECT_EQ(store->Stats()->disk_free_bytes, 999u);
  EXPECT_TRUE(store->DeleteNode(kTenant, "node").ok());
  system_->SetFreeBytes(1000);
  EXPECT_TRUE(store->CommitNode(TestCommit("accepted", {}, {2})).ok());
}

TEST_F(FaultInjectionTest, FailedDiskRefusesWritesAndServesReads) {
  std::unique_ptr<Store> store = Open();
  ASSERT_TRUE(store->CommitNode(TestCommit("before", {}, {1, 2})).ok());
  system_->FailOnce(0);
  const absl::Status status = store->CommitNode(TestCommit("failed", {}, {3})).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_EQ(store->CommitNode(TestCommit("refused", {}, {3})).status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(store->Stats()->write_error, testing::HasSubstr("restart the server when the disk is well"));
  ExpectIntact(*store, "before");
  EXPECT_EQ(store->GetNode(kTenant, "failed").status().code(), StatusCode::kNotFound);
  acknowledged_ = {"before"};
  store.reset();
  store = Open();
  ExpectConsistent(store.get());
}

}  // namespace
}  // namespace quicksave::storage
