// Whatever is wrong in the store, a restore fails by name or is exact, and other nodes stay as they are.

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/exact_profile.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/archive/archive.h"
#include "server/archive/block_pages.h"
#include "server/archive/testing/archive_environment.h"

namespace quicksave::server {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class ArchiveDamageTest : public ArchiveTestBase {
 protected:
  // A node of 300 tokens, whole; damaged copies are made of its record.
  void SetUp() override {
    SessionState state = env_.NewState(env_.RandomTokens(300));
    tokens_ = state.sequence.tokens();
    good_ = env_.Save(state)->record.node_id();
  }

  // Commits a node like the good one that `change` has altered, and returns its id.
  std::string CommitChanged(const std::function<void(storage::NodeCommit&)>& change) {
    std::string node_id = absl::StrCat("changed-", ++changed_);
    storage::NodeCommit commit;
    commit.record = env_.store->GetNode(kTenant, good_).value();
    commit.record.set_node_id(node_id);
    commit.state.push_back({.name = "logits", .bytes = env_.store->GetState(kTenant, good_, "logits").value()});
    change(commit);
    const absl::Status status = env_.store->CommitNode(commit).status();
    EXPECT_TRUE(status.ok()) << status;
    return node_id;
  }

  // The same where block 1 of the node is stored as what `bytes` makes of its bytes.
  std::string CommitChangedBlock(const std::function<std::string(const std::string&)>& bytes) {
    return CommitChanged([&](storage::NodeCommit& commit) {
      storage::BlockRef& ref = *commit.record.mutable_contents()->mutable_blocks(1);
      const std::string whole = env_.store->ReadBlock(kTenant, env_.model.fingerprint, storage::IdOf(ref)).value();
      ref.set_codec(absl::StrCat("exact-changed-", changed_));
      commit.blocks.push_back({.id = storage::IdOf(ref), .bytes = bytes(whole)});
    });
  }

  // Restore and Verify say DATA_LOSS, naming node and part; the good node is as it was.
  void ExpectDataLoss(const std::string& node_id, const std::string& part) {
    const absl::Status restored = Restore(node_id).status();
    EXPECT_EQ(restored.code(), absl::StatusCode::kDataLoss) << restored;
    EXPECT_THAT(std::string(restored.message()), AllOf(HasSubstr("nodes/" + node_id), HasSubstr(part)));
    EXPECT_EQ(env_.archive->Verify(kTenant, node_id).status().code(), absl::StatusCode::kDataLoss);
    EXPECT_TRUE(RestoresExactly(good_, tokens_));
  }

  std::vector<int32_t> tokens_;
  std::string good_;
  int changed_ = 0;
};

TEST_F(ArchiveDamageTest, FlippedByteInTheStoresFilesIsDataLossOfThatNodeOnly) {
  SessionState other = env_.NewState(env_.RandomTokens(300));
  const std::string other_id = env_.Save(other)->record.node_id();
  const storage::BlockRef ref = env_.store->GetNode(kTenant, good_)->contents().blocks(2);
  const std::string block = env_.store->ReadBlock(kTenant, env_.model.fingerprint, storage::IdOf(ref)).value();
  // From the log to the files that blocks are read from.
  ASSERT_TRUE(env_.store->Compact().ok());
  env_.archive.reset();
  env_.store.reset();
  int flipped = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(env_.folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string content = ReadFile(entry.path());
    const size_t at = content.find(block);
    if (at == std::string::npos) continue;
    std::fstream file(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(static_cast<std::streamoff>(at + env_.random() % block.size()));
    file.put(static_cast<char>(~content[file.tellp()]));
    ++flipped;
  }
  ASSERT_GE(flipped, 1);
  env_.Reopen();
  const absl::Status status = Restore(good_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("nodes/" + good_), HasSubstr(absl::BytesToHexString(ref.id()))));
  EXPECT_EQ(env_.archive->Verify(kTenant, good_).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Restore(good_, 256).ok()) << "the blocks before are whole";
  EXPECT_TRUE(RestoresExactly(other_id, other.sequence.tokens()));
}

TEST_F(ArchiveDamageTest, AnyFlippedBitOfABlockIsDataLoss) {
  for (int round = 0; round < 100; ++round) {
    const std::string node_id = CommitChangedBlock([&](std::string bytes) {
      // The header is short, so it gets half of the flips.
      const size_t end = round % 2 == 0 ? 200 : bytes.size();
      bytes[env_.random() % end] ^= static_cast<char>(1 << env_.random() % 8);
      return bytes;
    });
    const absl::Status status = Restore(node_id).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  }
  EXPECT_TRUE(RestoresExactly(good_, tokens_));
}

TEST_F(ArchiveDamageTest, BlockThatIsCutShortIsDataLoss) {
  ExpectDataLoss(CommitChangedBlock([](const std::string& bytes) { return bytes.substr(0, bytes.size() / 2); }),
                 "tokens 128 to 256");
}

TEST_F(ArchiveDamageTest, EmptyBlockIsDataLoss) {
  ExpectDataLoss(CommitChangedBlock([](const std::string&) { return std::string(); }), "tokens 128 to 256");
}

TEST_F(ArchiveDamageTest, WholeButDifferentBlockIsDataLoss) {
  ExpectDataLoss(CommitChangedBlock([&](const std::string&) {
                   const storage::BlockRef ref = env_.store->GetNode(kTenant, good_)->contents().blocks(0);
                   return env_.store->ReadBlock(kTenant, env_.model.fingerprint, storage::IdOf(ref)).value();
                 }),
                 "the stored bytes are block");
}

TEST_F(ArchiveDamageTest, SavingTheSameTokensMendsABlockThatIsNotItsId) {
  storage::NodeCommit commit{.record = env_.store->GetNode(kTenant, good_).value()};
  for (const storage::BlockRef& ref : commit.record.contents().blocks()) {
    const storage::BlockId id = storage::IdOf(ref);
    commit.blocks.push_back({.id = id, .bytes = env_.store->ReadBlock(kTenant, env_.model.fingerprint, id).value()});
  }
  commit.blocks[1].bytes = commit.blocks[0].bytes;
  commit.state.push_back({.name = "logits", .bytes = env_.store->GetState(kTenant, good_, "logits").value()});
  ASSERT_TRUE(env_.store->DeleteNode(kTenant, good_).ok());
  ASSERT_TRUE(env_.store->CommitNode(commit).ok());
  EXPECT_EQ(Restore(good_).status().code(), absl::StatusCode::kDataLoss);
  SessionState again = env_.NewState(tokens_);
  const absl::StatusOr<SavedNode> saved = env_.Save(again);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->report.new_blocks, 1);
  EXPECT_TRUE(RestoresExactly(saved->record.node_id(), tokens_));
  EXPECT_TRUE(RestoresExactly(good_, tokens_));
}

TEST_F(ArchiveDamageTest, RecordThatIsWrongAboutABlockDoesNotCondemnIt) {
  const std::string node_id = CommitChanged([](storage::NodeCommit& commit) {
    commit.record.mutable_contents()->mutable_blocks(2)->set_token_count(40);
    commit.record.mutable_contents()->mutable_token_ids()->Truncate(296);
    commit.record.set_token_count(296);
  });
  EXPECT_EQ(Restore(node_id).status().code(), absl::StatusCode::kDataLoss);
  SessionState again = env_.NewState(tokens_);
  EXPECT_EQ(env_.Save(again)->report.new_blocks, 0);
}

TEST_F(ArchiveDamageTest, BlockWithUnknownProfileIsDataLoss) {
  const auto encode_with_unstored_profile = [&](const std::string&) {
    RestoredState state = Restore(good_).value();
    const compressor::BlockShape shape = ShapeOfBlock(env_.shape, 128);
    std::vector<uint16_t> values(shape.values());
    GatherBlock(state.state.sequence.pages(), 128, {shape, absl::MakeSpan(values)});
    compressor::ExactProfileBuilder builder(env_.model.fingerprint);
    EXPECT_TRUE(builder.AddBlock({shape, values}).ok());
    compressor::CodecRegistry registry;
    EXPECT_TRUE(registry
                    .Register(compressor::NewExactCodec(
                        std::make_shared<const compressor::ExactProfile>(builder.Build().value())))
                    .ok());
    return compressor::EncodeBlock(registry, "exact", {shape, values}, {}).value();
  };
  ExpectDataLoss(CommitChangedBlock(encode_with_unstored_profile), "profile");
}

TEST_F(ArchiveDamageTest, TokenOutsideTheVocabularyIsDataLoss) {
  ExpectDataLoss(
      CommitChanged([](storage::NodeCommit& commit) { commit.record.mutable_contents()->set_token_ids(7, kVocab); }),
      "vocabulary");
}

TEST_F(ArchiveDamageTest, MissingTokenIdsAreDataLoss) {
  ExpectDataLoss(
      CommitChanged([](storage::NodeCommit& commit) { commit.record.mutable_contents()->clear_token_ids(); }),
      "token ids");
}

TEST_F(ArchiveDamageTest, MissingBlockInTheRecordIsDataLoss) {
  ExpectDataLoss(CommitChanged([](storage::NodeCommit& commit) {
                   commit.record.mutable_contents()->mutable_blocks()->RemoveLast();
                 }),
                 "blocks hold 256 of 300 tokens");
}

TEST_F(ArchiveDamageTest, BlockAcrossAWindowIsDataLoss) {
  ExpectDataLoss(CommitChanged([](storage::NodeCommit& commit) {
                   auto* blocks = commit.record.mutable_contents()->mutable_blocks();
                   blocks->Mutable(0)->set_token_count(100);
                   blocks->Mutable(1)->set_first_token(100);
                   blocks->Mutable(1)->set_token_count(156);
                 }),
                 "tokens 100 to 256");
}

TEST_F(ArchiveDamageTest, BlockOfAnotherSizeIsDataLoss) {
  ExpectDataLoss(CommitChanged([](storage::NodeCommit& commit) {
                   auto* blocks = commit.record.mutable_contents()->mutable_blocks();
                   blocks->Mutable(2)->set_token_count(40);
                   commit.record.mutable_contents()->mutable_token_ids()->Truncate(296);
                   commit.record.set_token_count(296);
                 }),
                 "a block of 40 tokens");
}

TEST_F(ArchiveDamageTest, DetokenizerBeyondTheTokensIsDataLoss) {
  ExpectDataLoss(CommitChanged([](storage::NodeCommit& commit) {
                   commit.record.mutable_contents()->mutable_text()->set_detokenizer_read_offset(301);
                 }),
                 "detokenizer");
}

TEST_F(ArchiveDamageTest, ConstraintThatCannotBeIsDataLoss) {
  using storage::v1::ConstraintState;
  const auto changed = [this](ConstraintState::Kind kind, int texts, uint32_t tokens) {
    return CommitChanged([=](storage::NodeCommit& commit) {
      ConstraintState& constraint = *commit.record.mutable_contents()->mutable_text()->mutable_constraint();
      constraint.set_kind(kind);
      for (int i = 0; i < texts; ++i) constraint.add_texts("a");
      constraint.set_token_count(tokens);
    });
  };
  EXPECT_TRUE(Restore(changed(ConstraintState::KIND_CHOICES, 2, 300)).ok());
  ExpectDataLoss(changed(ConstraintState::KIND_REGEX, 1, 301), "constraint");
  ExpectDataLoss(changed(ConstraintState::KIND_REGEX, 2, 3), "constraint");
  ExpectDataLoss(changed(ConstraintState::KIND_UNSPECIFIED, 1, 3), "constraint");
  ExpectDataLoss(changed(static_cast<ConstraintState::Kind>(9), 1, 3), "constraint");
}

TEST_F(ArchiveDamageTest, BiasOfATokenOutsideOfTheVocabularyIsDataLoss) {
  ExpectDataLoss(CommitChanged([](storage::NodeCommit& commit) {
                   (*commit.record.mutable_sampler()->mutable_logit_bias())[kVocab] = 1;
                 }),
                 "biased token id");
}

TEST_F(ArchiveDamageTest, LogitsOfAnotherSizeAreDataLoss) {
  ExpectDataLoss(CommitChanged([](storage::NodeCommit& commit) { commit.state[0].bytes.resize(4 * kVocab - 4); }),
                 "logits");
}

TEST_F(ArchiveDamageTest, MissingLogitsAreDataLossButRewindingNeedsNone) {
  const std::string node_id = CommitChanged([](storage::NodeCommit& commit) { commit.state.clear(); });
  ExpectDataLoss(node_id, "logits is missing");
  EXPECT_TRUE(Restore(node_id, 299).ok());
}

TEST_F(ArchiveDamageTest, NodeThatLacksSomethingIsRefused) {
  const std::string node_id = CommitChanged([](storage::NodeCommit& commit) { commit.record.add_lacks("taps"); });
  const absl::Status status = Restore(node_id).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("taps"));
}

}  // namespace
}  // namespace quicksave::server
