// Random changes of encodings, compared with a model in memory that is too simple to be wrong.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;

constexpr uint64_t kContents = 10;  // Different contents of blocks, so that nodes share them.
constexpr int kSteps = 3;

class EncodingPropertyTest : public StoreTest {
 protected:
  // Codec and number.
  using Block = std::pair<std::string, uint64_t>;

  struct ModelNode {
    std::vector<uint64_t> blocks;
    bool saved = true;
    std::map<int, bool> encodings;  // Step; has residuals.
  };

  uint64_t Below(uint64_t limit) { return random_() % limit; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }

  std::string AnyNode() {
    return model_.empty() || OneIn(20) ? "nobody" : std::next(model_.begin(), Below(model_.size()))->first;
  }

  static void AddBlocks(const ModelNode& node, std::set<Block>* blocks) {
    for (uint64_t n : node.blocks) {
      if (node.saved) blocks->insert({kCodec, n});
      for (const auto& [step, residuals] : node.encodings) {
        blocks->insert({absl::StrCat(kLatent, "-", step), n});
        if (residuals) blocks->insert({absl::StrCat(kResidual, "-", step), n});
      }
    }
  }

  std::set<Block> Referenced() const {
    std::set<Block> blocks;
    for (const auto& [id, node] : model_) AddBlocks(node, &blocks);
    return blocks;
  }

  std::set<Block> Stored() const {
    std::set<Block> stored = Referenced();
    stored.insert(leftovers_.begin(), leftovers_.end());
    return stored;
  }

  static BlockId IdOf(const Block& block) { return {TestBlockId(block.second).content_id, block.first}; }

  // Takes over what the model becomes, and what that leaves behind.
  void Become(std::map<std::string, ModelNode> model) {
    const std::set<Block> before = Referenced();
    model_ = std::move(model);
    const std::set<Block> after = Referenced();
    for (const Block& block : before) {
      if (after.count(block)) continue;
      // A block that an earlier pin left behind goes with the last node that came to refer to it.
      if (pinned_.count(block)) {
        leftovers_.insert(block);
      } else {
        leftovers_.erase(block);
      }
    }
  }

  // Forgets some of the given blocks, sometimes; are the needed ones stored or still given?
  bool GiveSome(const std::set<Block>& needed, std::vector<NewBlock>* blocks) {
    if (OneIn(3)) {
      auto end = std::remove_if(blocks->begin(), blocks->end(), [&](const NewBlock&) { return OneIn(2); });
      blocks->erase(end, blocks->end());
    }
    const std::set<Block> stored = Stored();
    return std::all_of(needed.begin(), needed.end(), [&](const Block& block) {
      return stored.count(block) || std::any_of(blocks->begin(), blocks->end(),
                                                [&](const NewBlock& given) { return given.id == IdOf(block); });
    });
  }

  void CommitSomething() {
    const std::string id = absl::StrCat("n", Below(8));
    ModelNode node;
    for (uint64_t count = 1 + Below(4); count > 0; --count) {
      const uint64_t n = Below(kContents);
      if (!std::count(node.blocks.begin(), node.blocks.end(), n)) node.blocks.push_back(n);
    }
    NodeCommit commit = TestCommit(id, {}, node.blocks);
    NodeContents& contents = *commit.record.mutable_contents();
    for (int step = 1; step <= kSteps; ++step) {
      if (!OneIn(4)) continue;
      node.encodings[step] = OneIn(2);
      *contents.add_encodings() = TestEncoding(step, node.blocks, node.encodings[step]);
      GiveBlocks(contents.encodings(contents.encodings_size() - 1), &commit.blocks);
    }
    if (!node.encodings.empty() && OneIn(3)) {
      node.saved = false;
      contents.clear_blocks();
      commit.blocks.erase(commit.blocks.begin(), commit.blocks.begin() + node.blocks.size());
    }
    std::set<Block> needed;
    AddBlocks(node, &needed);
    StatusCode expected = GiveSome(needed, &commit.blocks) ? StatusCode::kOk : StatusCode::kFailedPrecondition;
    if (model_.count(id)) expected = StatusCode::kAlreadyExists;
    const absl::Status status = store_->CommitNode(commit).status();
    ASSERT_EQ(status.code(), expected) << status;
    if (!status.ok()) return;
    std::map<std::string, ModelNode> next = model_;
    next[id] = node;
    Become(std::move(next));
  }

  // What becomes of the node by the change; NOT_FOUND where something to remove is not there.
  static StatusCode Apply(const EncodingChange& change, ModelNode* node) {
    for (const EncodingKey& key : change.remove) {
      if (!node->encodings.erase(static_cast<int>(key.step))) return StatusCode::kNotFound;
    }
    for (const EncodingKey& key : change.remove_residuals) {
      auto encoding = node->encodings.find(static_cast<int>(key.step));
      if (encoding == node->encodings.end() || !encoding->second) return StatusCode::kNotFound;
      encoding->second = false;
    }
    if (change.remove_saved && !std::exchange(node->saved, false)) return StatusCode::kNotFound;
    for (const v1::Encoding& added : change.add) {
      node->encodings[static_cast<int>(added.step())] = !added.residuals().empty();
    }
    return node->saved || !node->encodings.empty() ? StatusCode::kOk : StatusCode::kFailedPrecondition;
  }

  void ChangeSomething() {
    const std::string id = AnyNode();
    ModelNode node = model_.count(id) ? model_[id] : ModelNode{.blocks = {1}};
    EncodingChange change;
    for (int step = 1; step <= kSteps; ++step) {
      const uint64_t choice = Below(8);
      if (choice == 0) change.remove.push_back(TestEncodingKey(step));
      if (choice == 1) change.remove_residuals.push_back(TestEncodingKey(step));
      if (choice < 2 || choice > 3) continue;
      change.add.push_back(TestEncoding(step, node.blocks, OneIn(2)));
      GiveBlocks(change.add.back(), &change.blocks);
    }
    change.remove_saved = OneIn(4);
    StatusCode expected = Apply(change, &node);
    ModelNode added{.blocks = node.blocks, .saved = false};
    for (const v1::Encoding& encoding : change.add) {
      added.encodings[static_cast<int>(encoding.step())] = !encoding.residuals().empty();
    }
    std::set<Block> needed;
    AddBlocks(added, &needed);
    if (!GiveSome(needed, &change.blocks) && expected == StatusCode::kOk) expected = StatusCode::kFailedPrecondition;
    if (!model_.count(id)) expected = StatusCode::kNotFound;
    const bool nothing =
        change.add.empty() && change.remove.empty() && change.remove_residuals.empty() && !change.remove_saved;
    if (nothing) expected = StatusCode::kInvalidArgument;
    const absl::Status status = store_->ChangeEncodings(kTenant, id, change).status();
    ASSERT_EQ(status.code(), expected) << status;
    if (!status.ok()) return;
    ++changes_;
    std::map<std::string, ModelNode> next = model_;
    next[id] = node;
    Become(std::move(next));
  }

  void DeleteSomething() {
    const std::string id = AnyNode();
    const absl::Status status = store_->DeleteNode(kTenant, id).status();
    ASSERT_EQ(status.code(), model_.count(id) ? StatusCode::kOk : StatusCode::kNotFound) << status;
    std::map<std::string, ModelNode> next = model_;
    next.erase(id);
    Become(std::move(next));
  }

  void PinSomething() {
    pin_ = BlockPin();
    pinned_.clear();
    std::vector<BlockId> ids;
    for (const Block& block : Stored()) {
      if (!OneIn(4)) continue;
      pinned_.insert(block);
      ids.push_back(IdOf(block));
    }
    absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, ids);
    ASSERT_TRUE(pin.ok()) << pin.status();
    for (const bool present : pin->present()) EXPECT_TRUE(present);
    pin_ = *std::move(pin);
  }

  void Collect() {
    ASSERT_TRUE(store_->CollectGarbage().ok());
    const std::set<Block> referenced = Referenced();
    for (auto it = leftovers_.begin(); it != leftovers_.end();) {
      it = pinned_.count(*it) && !referenced.count(*it) ? std::next(it) : leftovers_.erase(it);
    }
  }

  void ExpectEqualToModel() {
    ASSERT_EQ(AllNodeIds(*store_).size(), model_.size());
    for (const auto& [id, node] : model_) {
      ExpectIntact(*store_, id);
      const NodeRecord record = *store_->GetNode(kTenant, id);
      EXPECT_EQ(record.no_saved_blocks(), !node.saved);
      EXPECT_EQ(record.block_count(), node.saved ? node.blocks.size() : 0u);
      std::map<int, bool> encodings;
      for (const v1::EncodingSummary& summary : record.encodings()) {
        encodings[static_cast<int>(summary.step())] = summary.has_residual();
      }
      EXPECT_EQ(encodings, node.encodings);
    }
    uint64_t bytes = 0, raw_bytes = 0;
    const std::set<Block> stored = Stored();
    for (const Block& block : stored) {
      bytes += TestBlockBytes(IdOf(block)).size();
      raw_bytes += 2 * TestBlockBytes(TestBlockId(block.second)).size();
      EXPECT_TRUE(IsStored(*store_, IdOf(block))) << block.first << " " << block.second;
    }
    EXPECT_EQ(store_->Stats()->blocks, stored.size());
    EXPECT_EQ(store_->Stats()->block_stored_bytes, bytes);
    EXPECT_EQ(store_->Stats()->block_raw_bytes, raw_bytes);
  }

  void DoSomething() {
    const uint64_t choice = Below(100);
    if (choice < 20) return CommitSomething();
    if (choice < 80) return ChangeSomething();
    if (choice < 88) return DeleteSomething();
    if (choice < 93) return PinSomething();
    if (choice < 98) return Collect();
    // Pins are of the process: they do not survive.
    pin_ = BlockPin();
    pinned_.clear();
    Reopen();
  }

  std::mt19937_64 random_;
  std::map<std::string, ModelNode> model_;
  BlockPin pin_;
  std::set<Block> pinned_;
  std::set<Block> leftovers_;  // Stored, kept by the pin when nothing referred to them any more.
  int changes_ = 0;
};

TEST_F(EncodingPropertyTest, RandomChangesKeepTheStoreEqualToItsModel) {
  const char* given = std::getenv("QUICKSAVE_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  random_.seed(seed);
  for (int step = 0; step < 1500 && !HasFailure(); ++step) {
    SCOPED_TRACE(absl::StrCat("step ", step));
    DoSomething();
    if (step % 50 == 49 && !HasFailure()) ExpectEqualToModel();
  }
  EXPECT_GT(changes_, 100) << "the test proves little otherwise";
  pin_ = BlockPin();
  pinned_.clear();
  Collect();
  Reopen();
  ExpectEqualToModel();
  ExpectTotalsOfNodes(*store_);
}

}  // namespace
}  // namespace quicksave::storage
