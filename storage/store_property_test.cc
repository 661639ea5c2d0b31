// Random operations on a store, compared with a model of it in memory that is too simple to be wrong.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;

class StorePropertyTest : public StoreTest {
 protected:
  struct ModelNode {
    std::vector<std::string> parents;
    std::vector<uint64_t> blocks;
    std::string note;
  };

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  std::string AnyNode() {
    if (model_.empty()) return "nobody";
    return std::next(model_.begin(), Below(model_.size()))->first;
  }

  std::set<std::string> ChildrenOf(const std::string& id) const {
    std::set<std::string> children;
    for (const auto& [child, node] : model_) {
      if (std::count(node.parents.begin(), node.parents.end(), id)) children.insert(child);
    }
    return children;
  }

  std::set<std::string> SubtreeOf(const std::string& id) const {
    std::set<std::string> subtree = {id};
    for (const std::string& child : ChildrenOf(id)) subtree.merge(SubtreeOf(child));
    return subtree;
  }

  std::set<uint64_t> ReferencedBlocks() const {
    std::set<uint64_t> blocks;
    for (const auto& [id, node] : model_) blocks.insert(node.blocks.begin(), node.blocks.end());
    return blocks;
  }

  void CommitSomething() {
    const std::string id = absl::StrCat("n", Below(40));
    ModelNode node;
    for (uint64_t parents = Below(3); parents > 0; --parents) node.parents.push_back(AnyNode());
    std::sort(node.parents.begin(), node.parents.end());
    node.parents.erase(std::unique(node.parents.begin(), node.parents.end()), node.parents.end());
    if (std::count(node.parents.begin(), node.parents.end(), id)) return;
    if (!node.parents.empty() && model_.count(node.parents[0])) node.blocks = model_[node.parents[0]].blocks;
    for (uint64_t blocks = Below(4); blocks > 0; --blocks) node.blocks.push_back(Below(60));
    NodeCommit commit = TestCommit(id, node.parents, node.blocks);
    // Blocks are given once, and sometimes not at all although they are not stored.
    std::set<std::string> given;
    const bool give_all = Below(5) > 0;
    auto end = std::remove_if(commit.blocks.begin(), commit.blocks.end(), [&](const NewBlock& block) {
      return !given.insert(block.id.content_id).second || (!give_all && Below(2) == 0);
    });
    commit.blocks.erase(end, commit.blocks.end());
    const absl::Status status = store_->CommitNode(commit).status();
    ASSERT_EQ(status.code(), ExpectedOfCommit(id, node, commit)) << status;
    if (status.ok()) model_[id] = node;
  }

  StatusCode ExpectedOfCommit(const std::string& id, const ModelNode& node, const NodeCommit& commit) const {
    if (model_.count(id)) return StatusCode::kAlreadyExists;
    for (const std::string& parent : node.parents) {
      if (!model_.count(parent)) return StatusCode::kFailedPrecondition;
    }
    std::set<std::string> available;
    for (const NewBlock& block : commit.blocks) available.insert(block.id.content_id);
    for (uint64_t n : ReferencedBlocks()) available.insert(TestBlockId(n).content_id);
    for (uint64_t n : pinned_leftovers_) available.insert(TestBlockId(n).content_id);
    for (uint64_t n : node.blocks) {
      if (!available.count(TestBlockId(n).content_id)) return StatusCode::kFailedPrecondition;
    }
    return StatusCode::kOk;
  }

  void DeleteSomething(bool force) {
    const std::string id = AnyNode();
    std::set<std::string> doomed = {id};
    StatusCode expected = StatusCode::kOk;
    if (!model_.count(id)) {
      expected = StatusCode::kNotFound;
    } else if (!ChildrenOf(id).empty()) {
      if (!force) expected = StatusCode::kFailedPrecondition;
      doomed = SubtreeOf(id);
    }
    absl::StatusOr<DeleteReport> report = store_->DeleteNode(kTenant, id, {.force = force, .etag = ""});
    ASSERT_EQ(report.status().code(), expected) << report.status();
    if (!report.ok()) return;
    EXPECT_EQ(std::set<std::string>(report->node_ids.begin(), report->node_ids.end()), doomed);
    const std::set<uint64_t> before = ReferencedBlocks();
    for (const std::string& gone : doomed) model_.erase(gone);
    const std::set<uint64_t> after = ReferencedBlocks();
    for (uint64_t n : before) {
      if (after.count(n)) continue;
      // A block that an earlier pin left behind goes with the last node that came to refer to it.
      if (pinned_.count(n)) {
        pinned_leftovers_.insert(n);
      } else {
        pinned_leftovers_.erase(n);
      }
    }
  }

  void UpdateSomething() {
    const std::string id = AnyNode();
    const std::string note = absl::StrCat("note ", Below(1000));
    const absl::Status status = store_
                                    ->UpdateNode(kTenant, id, {},
                                                 [&](NodeAnnotations& annotations) {
                                                   annotations.set_note(note);
                                                   return absl::OkStatus();
                                                 })
                                    .status();
    ASSERT_EQ(status.code(), model_.count(id) ? StatusCode::kOk : StatusCode::kNotFound);
    if (status.ok()) model_[id].note = note;
  }

  void PinSomething() {
    pin_ = BlockPin();
    pinned_.clear();
    std::vector<BlockId> ids;
    for (int i = 0; i < 10; ++i) {
      const uint64_t n = Below(60);
      if (pinned_.insert(n).second) ids.push_back(TestBlockId(n));
    }
    absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, ids);
    ASSERT_TRUE(pin.ok()) << pin.status();
    pin_ = *std::move(pin);
  }

  void Collect() {
    ASSERT_TRUE(store_->CollectGarbage().ok());
    const std::set<uint64_t> referenced = ReferencedBlocks();
    for (auto it = pinned_leftovers_.begin(); it != pinned_leftovers_.end();) {
      it = pinned_.count(*it) && !referenced.count(*it) ? std::next(it) : pinned_leftovers_.erase(it);
    }
  }

  void ExpectEqualToModel() {
    std::vector<std::string> ids = AllNodeIds(*store_);
    std::sort(ids.begin(), ids.end());
    std::vector<std::string> expected;
    for (const auto& [id, node] : model_) expected.push_back(id);
    ASSERT_EQ(ids, expected);
    for (const auto& [id, node] : model_) {
      ExpectIntact(*store_, id);
      absl::StatusOr<NodeRecord> record = store_->GetNode(kTenant, id);
      EXPECT_EQ(record->annotations().note(), node.note);
      EXPECT_EQ(record->block_count(), node.blocks.size());
      std::set<std::string> children;
      const std::vector<Edge> edges = store_->Children(kTenant, id).value();
      for (const Edge& edge : edges) children.insert(edge.node_id);
      EXPECT_EQ(children, ChildrenOf(id));
    }
    ExpectTotalsOfModel();
  }

  void ExpectTotalsOfModel() {
    std::set<uint64_t> blocks = ReferencedBlocks();
    blocks.insert(pinned_leftovers_.begin(), pinned_leftovers_.end());
    uint64_t bytes = 0;
    for (uint64_t n : blocks) bytes += TestBlockBytes(TestBlockId(n)).size();
    const StoreStats stats = *store_->Stats();
    EXPECT_EQ(stats.nodes, model_.size());
    EXPECT_EQ(stats.blocks, blocks.size());
    EXPECT_EQ(stats.block_stored_bytes, bytes);
    EXPECT_EQ(stats.block_raw_bytes, 2 * bytes);
    for (uint64_t n = 0; n < 60; ++n) {
      EXPECT_EQ(IsStored(*store_, TestBlockId(n)), blocks.count(n) > 0) << "block " << n;
    }
  }

  void DoSomething() {
    const uint64_t choice = Below(100);
    if (choice < 60) return CommitSomething();
    if (choice < 75) return DeleteSomething(false);
    if (choice < 79) return DeleteSomething(true);
    if (choice < 89) return UpdateSomething();
    if (choice < 94) return PinSomething();
    if (choice < 98) return Collect();
    // Pins are of the process: they do not survive.
    pin_ = BlockPin();
    pinned_.clear();
    Reopen();
  }

  std::mt19937_64 random_;
  std::map<std::string, ModelNode> model_;
  BlockPin pin_;
  std::set<uint64_t> pinned_;
  std::set<uint64_t> pinned_leftovers_;  // Stored, referenced by nothing, kept by the pin.
};

TEST_F(StorePropertyTest, RandomOperationsKeepTheStoreEqualToItsModel) {
  const char* given = std::getenv("QUICKSAVE_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  random_.seed(seed);
  for (int step = 0; step < 1500 && !HasFailure(); ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    DoSomething();
    if (step % 100 == 99 && !HasFailure()) ExpectEqualToModel();
  }
  pin_ = BlockPin();
  pinned_.clear();
  Collect();
  Reopen();
  ExpectEqualToModel();
}

}  // namespace
}  // namespace quicksave::storage
