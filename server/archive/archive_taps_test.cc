// Hidden states are saved and restored with their state.

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/archive/archive.h"
#include "server/archive/parking_lot.h"
#include "server/archive/tap_blocks.h"
#include "server/archive/testing/archive_environment.h"

namespace quicksave::server {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// Values that are a function of the tokens up to theirs, as the engine's are.
float Value(const std::vector<int32_t>& tokens, int token, int layer, int i) {
  uint32_t hash = 17;
  for (int k = 0; k <= token; ++k) hash = hash * 31 + static_cast<uint32_t>(tokens[k]);
  return static_cast<float>(static_cast<int32_t>(hash * 2654435761u + layer * 977 + i * 13)) / 1e6F;
}

class ArchiveTapsTest : public ArchiveTestBase {
 protected:
  void Capture(SessionState& state, int first_token) {
    const std::vector<int32_t>& tokens = state.sequence.tokens();
    const std::vector<float*> rows = state.taps.Append(first_token, static_cast<int>(tokens.size()) - first_token);
    for (size_t k = 0; k < rows.size(); ++k) {
      if (rows[k] == nullptr) continue;
      float* to = rows[k];
      for (const int layer : state.taps.layers()) {
        for (int i = 0; i < kHiddenSize; ++i) *to++ = Value(tokens, first_token + static_cast<int>(k), layer, i);
      }
    }
  }

  // A state of random tokens that captures from token `from` on.
  SessionState NewTapped(int length, const engine::TapSpec& spec, int from = 0) {
    SessionState state = env_.NewState(env_.RandomTokens(length));
    state.taps = engine::Taps(spec, kHiddenSize);
    Capture(state, from);
    return state;
  }

  // Whether the hidden states are those of the tokens from `first` to `end`.
  testing::AssertionResult Agrees(const SessionState& state, int first, int end) {
    const engine::TapExtent extent = state.taps.extent();
    if (extent.token_count != end - first || (end > first && extent.first_token != first)) {
      return testing::AssertionFailure() << extent.token_count << " tokens from " << extent.first_token;
    }
    for (size_t layer = 0; layer < extent.spec.layers.size(); ++layer) {
      for (int token = first; token < end; ++token) {
        for (int i = 0; i < kHiddenSize; ++i) {
          const float expected = Value(state.sequence.tokens(), token, extent.spec.layers[layer], i);
          if (state.taps.Row(static_cast<int>(layer), token)[i] != expected) {
            return testing::AssertionFailure() << "layer " << layer << ", token " << token << ", " << i;
          }
        }
      }
    }
    return testing::AssertionSuccess();
  }
};

const engine::TapSpec kAll{.layers = {0, 2, 4}, .all_tokens = true};
const engine::TapSpec kLast{.layers = {1, 3}};

TEST_F(ArchiveTapsTest, AllTokensComeBackBitForBitAfterReopening) {
  for (const auto& [length, from] : {std::pair(1, 0), {128, 0}, {300, 0}, {300, 128}, {300, 100}, {300, 299}}) {
    SessionState state = NewTapped(length, kAll, from);
    const absl::StatusOr<SavedNode> saved = env_.Save(state);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(saved->record.taps().raw_bytes(), static_cast<uint64_t>(3 * (length - from) * kHiddenSize * 4));
    EXPECT_GT(saved->record.taps().stored_bytes(), 0u);
    EXPECT_EQ(saved->report.new_blocks, (length + 127) / 128) << "of K and V";
    env_.Reopen();
    const absl::StatusOr<RestoredState> restored = Restore(saved->record.node_id());
    ASSERT_TRUE(restored.ok()) << restored.status();
    EXPECT_TRUE(Agrees(restored->state, from, length));
    EXPECT_EQ(restored->state.taps.extent(), state.taps.extent());
    const absl::StatusOr<VerifiedNode> verified = env_.archive->Verify(kTenant, saved->record.node_id());
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_EQ(verified->blocks, saved->record.block_count() + PlanTapPieces(state.taps.extent()).size());
  }
}

TEST_F(ArchiveTapsTest, LastTokenComesBackAndIsLeftOutOfARewoundState) {
  SessionState state = NewTapped(200, kLast);
  const std::string node_id = env_.Save(state)->record.node_id();
  absl::StatusOr<RestoredState> restored = Restore(node_id);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE(Agrees(restored->state, 199, 200));
  restored = Restore(node_id, 150);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE(restored->state.taps.on()) << "it goes on capturing";
  EXPECT_EQ(restored->state.taps.extent().token_count, 0);
}

TEST_F(ArchiveTapsTest, RewindingTruncates) {
  SessionState state = NewTapped(300, kAll, 100);
  const std::string node_id = env_.Save(state)->record.node_id();
  for (const int at : {300, 299, 257, 256, 255, 129, 128, 101, 100, 50}) {
    const absl::StatusOr<RestoredState> restored = Restore(node_id, at);
    ASSERT_TRUE(restored.ok()) << restored.status();
    EXPECT_TRUE(Agrees(restored->state, 100, std::max(100, at))) << at;
  }
}

TEST_F(ArchiveTapsTest, AChildStoresOnlyWhatIsNew) {
  SessionState state = NewTapped(256, kAll);
  ASSERT_TRUE(env_.Save(state).ok());
  const absl::StatusOr<SavedNode> again = env_.Save(state);
  EXPECT_EQ(again->record.new_stored_bytes(), 0u);
  env_.Append(state, env_.RandomTokens(10));
  Capture(state, 256);
  const absl::StatusOr<SavedNode> child = env_.Save(state);
  ASSERT_TRUE(child.ok()) << child.status();
  const uint64_t kv = child->record.new_stored_bytes();
  EXPECT_LT(kv, child->record.stored_bytes() / 10 + 3 * (10 * kHiddenSize * 4 + 200));
  EXPECT_TRUE(Agrees(Restore(child->record.node_id())->state, 0, 266));
}

TEST_F(ArchiveTapsTest, BlocksGoWithTheirLastNode) {
  SessionState state = NewTapped(300, kAll);
  const std::string one = env_.Save(state)->record.node_id();
  state.origin = nullptr;
  state.origin_tokens = 0;
  const std::string two = env_.Save(state)->record.node_id();
  ASSERT_TRUE(env_.store->DeleteNode(kTenant, one).ok());
  EXPECT_TRUE(Agrees(Restore(two)->state, 0, 300));
  ASSERT_TRUE(env_.store->DeleteNode(kTenant, two).ok());
  EXPECT_EQ(env_.store->Stats()->blocks, 0u);
}

TEST_F(ArchiveTapsTest, NodesWithoutTapsAreAsBefore) {
  SessionState state = env_.NewState(env_.RandomTokens(40));
  const absl::StatusOr<SavedNode> saved = env_.Save(state);
  EXPECT_FALSE(saved->record.has_taps());
  EXPECT_FALSE(Restore(saved->record.node_id())->state.taps.on());
}

TEST_F(ArchiveTapsTest, ParkingKeepsThem) {
  ParkingLot lot(env_.archive.get(), env_.store.get());
  const SessionState state = NewTapped(150, kAll, 20);
  const absl::StatusOr<std::string> name = lot.Park(state);
  ASSERT_TRUE(name.ok()) << name.status();
  engine::PageReservation pages = env_.pool->Reserve(engine::PagesFor(150)).value();
  const absl::StatusOr<ParkedState> parked = lot.Unpark(*name, pages);
  ASSERT_TRUE(parked.ok()) << parked.status();
  SessionState back;
  back.sequence = parked->sequence;
  back.taps = parked->taps;
  EXPECT_TRUE(Agrees(back, 20, 150));
  lot.Drop(*name);
  EXPECT_EQ(env_.store->Stats()->blocks, 0u);
}

TEST_F(ArchiveTapsTest, TheCallerAdmitsTheirBytes) {
  SessionState all = NewTapped(100, kAll);
  SessionState last = NewTapped(100, kLast);
  SessionState none = env_.NewState(env_.RandomTokens(100));
  const auto admitted = [&](SessionState& state, std::optional<int> at_token) {
    int64_t asked = -1;
    const auto admit = [&](int64_t bytes) {
      asked = bytes;
      return absl::ResourceExhaustedError("no");
    };
    const RestoreOptions options{.at_token = at_token, .admit_taps = admit};
    const absl::Status status = env_.archive->Restore(kTenant, env_.Save(state)->record.node_id(), options).status();
    EXPECT_EQ(absl::IsResourceExhausted(status), asked >= 0) << status;
    return asked;
  };
  EXPECT_EQ(admitted(all, std::nullopt), 100 * 3 * kHiddenSize * 4);
  EXPECT_EQ(admitted(all, 50), 50 * 3 * kHiddenSize * 4);
  EXPECT_EQ(admitted(last, std::nullopt), 2 * kHiddenSize * 4);
  EXPECT_EQ(admitted(last, 50), 2 * kHiddenSize * 4) << "it will have its last token's again";
  EXPECT_EQ(admitted(none, std::nullopt), -1);
}

TEST_F(ArchiveTapsTest, TheyCanBeLeftOut) {
  SessionState state = NewTapped(100, kAll);
  const auto refuse = [](int64_t) { return absl::ResourceExhaustedError("no"); };
  const auto restored =
      env_.archive->Restore(kTenant, env_.Save(state)->record.node_id(), {.admit_taps = refuse, .without_taps = true});
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_FALSE(restored->state.taps.on());
  EXPECT_EQ(restored->state.sequence.tokens(), state.sequence.tokens());
}

// Damaged copies of a node's record.
class ArchiveTapsDamageTest : public ArchiveTapsTest {
 protected:
  void TearDown() override {
    state_ = {};
    ArchiveTapsTest::TearDown();
  }

  void Save(const engine::TapSpec& spec) {
    state_ = NewTapped(300, spec);
    good_ = env_.Save(state_)->record.node_id();
  }

  // Commits a node like the good one that `change` has altered, and returns its id.
  std::string CommitChanged(const std::function<void(storage::NodeCommit&)>& change) {
    storage::NodeCommit commit;
    commit.record = env_.store->GetNode(kTenant, good_).value();
    commit.record.set_node_id(absl::StrCat("changed-", ++changed_));
    commit.state.push_back({.name = "logits", .bytes = env_.store->GetState(kTenant, good_, "logits").value()});
    change(commit);
    const absl::Status status = env_.store->CommitNode(commit).status();
    EXPECT_TRUE(status.ok()) << status;
    return commit.record.node_id();
  }

  void ExpectLoss(const std::string& node_id, const std::string& part) {
    for (const absl::Status& status : {Restore(node_id).status(), env_.archive->Verify(kTenant, node_id).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("nodes/" + node_id), HasSubstr(part)));
    }
    EXPECT_TRUE(Restore(good_).ok());
  }

  SessionState state_;
  std::string good_;
  int changed_ = 0;
};

TEST_F(ArchiveTapsDamageTest, TokensThatAreNotTheLastAreDataLoss) {
  Save(kLast);
  const auto changed = [this](uint32_t first) {
    return CommitChanged([=](storage::NodeCommit& commit) {
      commit.record.mutable_taps()->set_first_token(first);
      for (storage::v1::TapBlock& tap : *commit.record.mutable_contents()->mutable_tap_blocks()) {
        tap.mutable_block()->set_first_token(first);
      }
    });
  };
  EXPECT_TRUE(Restore(changed(299)).ok());
  ExpectLoss(changed(298), "not those of its tokens");
  ExpectLoss(changed(0), "not those of its tokens");
}

TEST_F(ArchiveTapsDamageTest, MoreTokensThanTheLastAreDataLoss) {
  Save(kAll);
  ExpectLoss(CommitChanged([](storage::NodeCommit& commit) {
               commit.record.mutable_taps()->set_tokens(storage::v1::TapState::TOKENS_LAST);
             }),
             "not those of its tokens");
}

TEST_F(ArchiveTapsDamageTest, LayersThatDoNotAscendAreDataLossWhateverTheModel) {
  Save(kLast);
  for (const auto& [one, other] : {std::pair(1u, 1u), {3u, 1u}, {1u, 4096u}, {1u, 1u << 31}}) {
    const std::string node_id = CommitChanged([one = one, other = other](storage::NodeCommit& commit) {
      const uint32_t layers[] = {one, other};
      for (int i : {0, 1}) {
        commit.record.mutable_taps()->set_layers(i, layers[i]);
        commit.record.mutable_contents()->mutable_tap_blocks(i)->set_layer(layers[i]);
      }
    });
    const absl::Status status = env_.archive->Verify(kTenant, node_id).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("not those of its tokens")) << one << " " << other;
  }
}

TEST_F(ArchiveTapsDamageTest, ARecordThatIsWrongAboutABlockDoesNotCondemnIt) {
  Save(kAll);
  storage::NodeRecord record = env_.store->GetNode(kTenant, good_).value();
  record.mutable_taps()->set_token_count(299);
  for (const int last : {2, 5, 8}) {
    storage::BlockRef& ref = *record.mutable_contents()->mutable_tap_blocks(last)->mutable_block();
    ref.set_token_count(43);
    ref.set_raw_bytes(43 * kHiddenSize * 4);
  }
  ASSERT_TRUE(CheckTaps(record).ok());
  const absl::Status status = env_.archive->ReadTaps(record, 2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 44 rows of"));
  EXPECT_EQ(env_.Save(state_)->record.new_stored_bytes(), 0u) << "the blocks are whole";
}

TEST_F(ArchiveTapsDamageTest, ABlockThatIsDamagedIsStoredAgain) {
  Save(kAll);
  storage::NodeCommit commit{.record = env_.store->GetNode(kTenant, good_).value()};
  const auto add = [&](const storage::BlockRef& ref) {
    const storage::BlockId id = storage::IdOf(ref);
    commit.blocks.push_back({.id = id, .bytes = env_.store->ReadBlock(kTenant, env_.model.fingerprint, id).value()});
  };
  for (const storage::v1::TapBlock& tap : commit.record.contents().tap_blocks()) add(tap.block());
  for (const storage::BlockRef& ref : commit.record.contents().blocks()) add(ref);
  commit.blocks[4].bytes[100] ^= 1;
  commit.state.push_back({.name = "logits", .bytes = env_.store->GetState(kTenant, good_, "logits").value()});
  ASSERT_TRUE(env_.store->DeleteNode(kTenant, good_).ok());
  ASSERT_TRUE(env_.store->CommitNode(commit).ok());
  EXPECT_EQ(Restore(good_).status().code(), absl::StatusCode::kDataLoss);
  state_.origin = nullptr;
  state_.origin_tokens = 0;
  EXPECT_GT(env_.Save(state_)->record.new_stored_bytes(), 0u);
  EXPECT_TRUE(Agrees(Restore(good_)->state, 0, 300));
}

TEST_F(ArchiveTapsDamageTest, DamageIsDataLossThatNamesNodeLayerAndTokens) {
  Save(kAll);
  // Another block's bytes, of the same shape.
  ExpectLoss(CommitChanged([&](storage::NodeCommit& commit) {
               storage::BlockRef& ref = *commit.record.mutable_contents()->mutable_tap_blocks(4)->mutable_block();
               std::string bytes = env_.store->ReadBlock(kTenant, env_.model.fingerprint, storage::IdOf(ref)).value();
               ref.set_id("0123456789abcdef");
               commit.blocks.push_back({.id = storage::IdOf(ref), .bytes = std::move(bytes)});
             }),
             "hidden states of layer 2, tokens 128 to 256");
  // Records that contradict themselves.
  ExpectLoss(CommitChanged([](storage::NodeCommit& commit) { commit.record.mutable_taps()->set_token_count(200); }),
             "hidden states");
  ExpectLoss(CommitChanged([](storage::NodeCommit& commit) { commit.record.mutable_taps()->set_hidden_size(8); }),
             "hidden states");
  ExpectLoss(CommitChanged([](storage::NodeCommit& commit) { commit.record.mutable_taps()->set_layers(2, 7); }),
             "hidden states");
  ExpectLoss(CommitChanged([](storage::NodeCommit& commit) {
               commit.record.mutable_contents()->mutable_tap_blocks()->RemoveLast();
             }),
             "8 blocks of hidden states, not 9");
  EXPECT_TRUE(Agrees(Restore(good_)->state, 0, 300));
}

}  // namespace
}  // namespace quicksave::server
