#include "storage/beginning_index.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "storage/frame.h"
#include "storage/keys.h"
#include "storage/rocksdb_options.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Token ids that go up from `first`.
std::vector<int32_t> Ids(int count, int first = 0) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

std::vector<int32_t> Then(std::vector<int32_t> ids, const std::vector<int32_t>& more) {
  ids.insert(ids.end(), more.begin(), more.end());
  return ids;
}

// A node with these tokens, all in block 1.
NodeCommit CommitOf(const std::string& node_id, const std::vector<int32_t>& ids,
                    const std::vector<std::string>& parents = {}) {
  NodeCommit commit = TestCommit(node_id, parents, {1});
  commit.record.set_token_count(ids.size());
  NodeContents& contents = *commit.record.mutable_contents();
  contents.mutable_blocks(0)->set_token_count(ids.size());
  contents.mutable_token_ids()->Assign(ids.begin(), ids.end());
  return commit;
}

// An encoding of such a node.
v1::Encoding EncodingOf(int tokens, bool with_residuals) {
  v1::Encoding encoding = TestEncoding(0.5, {1}, with_residuals);
  encoding.mutable_blocks(0)->set_token_count(tokens);
  if (with_residuals) encoding.mutable_residuals(0)->set_token_count(tokens);
  return encoding;
}

class BeginningIndexTest : public StoreTest {
 protected:
  void Put(const NodeCommit& commit) {
    const absl::Status status = store_->CommitNode(commit).status();
    ASSERT_TRUE(status.ok()) << status;
  }

  // "NODE TOKENS" of what is found; empty if nothing is.
  std::string Find(const std::vector<int32_t>& ids, const std::string& tenant = kTenant,
                   const std::string& model = kModel) {
    const absl::StatusOr<NodeBeginning> found = store_->FindBeginning(tenant, model, ids);
    if (!found.ok()) {
      EXPECT_EQ(found.status().code(), StatusCode::kNotFound) << found.status();
      return "";
    }
    EXPECT_EQ(static_cast<uint32_t>(found->node.contents().token_ids_size()), found->node.token_count());
    return absl::StrCat(found->node.node_id(), " ", found->in_common);
  }

  // Calls work(RocksDB, column families) with the store closed, and opens it again.
  template <class Work>
  void Tamper(Work work) {
    store_.reset();
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, options_.path, FamilyDescriptors(options_), &handles, &db).ok());
    work(db, handles);
    for (rocksdb::ColumnFamilyHandle* handle : handles) ASSERT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
    delete db;
    store_ = OpenOrDie(options_);
  }

  // Keys of the index of beginnings.
  std::vector<std::string> Keys() {
    std::vector<std::string> keys;
    Tamper([&](rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& handles) {
      const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, handles[static_cast<size_t>(Family::kIndexes)]));
      for (it->Seek(rocksdb::Slice(kBeginningsPrefix.data(), kBeginningsPrefix.size()));
           it->Valid() && it->key().starts_with(std::string(kBeginningsPrefix)); it->Next()) {
        keys.push_back(it->key().ToString());
      }
    });
    return keys;
  }
};

TEST_F(BeginningIndexTest, ANodeIsFoundByTheTokensThatItBeginsWith) {
  Put(CommitOf("node", Ids(1000)));
  EXPECT_EQ(Find(Ids(1000)), "node 1000");
  EXPECT_EQ(Find(Ids(2000)), "node 1000");
  EXPECT_EQ(Find(Ids(500)), "node 500");
  EXPECT_EQ(Find(Ids(128)), "node 128");
  EXPECT_EQ(Find(Ids(127)), "") << "too short to stand in the index";
  EXPECT_EQ(Find(Then(Ids(700), Ids(400, 9000))), "node 700") << "between two steps";
  EXPECT_EQ(Find(Then(Ids(100), Ids(900, 9000))), "");
  EXPECT_EQ(Find(Ids(1000, 1)), "");
  EXPECT_EQ(Find({}), "");
  Reopen();
  EXPECT_EQ(Find(Ids(1000)), "node 1000");
}

TEST_F(BeginningIndexTest, NodesShorterThanAStepAreNotFound) {
  Put(CommitOf("short", Ids(127)));
  Put(CommitOf("long", Ids(128)));
  EXPECT_EQ(Find(Ids(200)), "long 128");
  EXPECT_THAT(Keys(), SizeIs(1));
}

TEST_F(BeginningIndexTest, TheLongestBeginningWinsAndOfEqualOnesTheNewest) {
  Put(CommitOf("root", Ids(300)));
  Put(CommitOf("child", Then(Ids(300), Ids(300, 5000)), {"root"}));
  Put(CommitOf("other", Then(Ids(300), Ids(300, 7000)), {"root"}));
  EXPECT_EQ(Find(Then(Ids(300), Ids(300, 5000))), "child 600");
  EXPECT_EQ(Find(Then(Ids(300), Ids(200, 7000))), "other 500");
  EXPECT_EQ(Find(Then(Ids(300), Ids(20, 5000))), "child 320") << "not the newest, but longer";
  EXPECT_EQ(Find(Ids(400)), "other 300") << "all have as many";
}

TEST_F(BeginningIndexTest, TenantsAndModelsDoNotSeeEachOther) {
  Put(CommitOf("node", Ids(300)));
  EXPECT_EQ(Find(Ids(300), "another"), "");
  EXPECT_EQ(Find(Ids(300), kTenant, "another"), "");
  NodeCommit same = CommitOf("node", Ids(256));
  same.record.set_tenant("another");
  Put(same);
  EXPECT_EQ(Find(Ids(300), "another"), "node 256");
  EXPECT_EQ(Find(Ids(300)), "node 300");
}

TEST_F(BeginningIndexTest, KeysComeAndGoWithTheirNodes) {
  Put(CommitOf("root", Ids(300)));
  Put(CommitOf("child", Ids(600), {"root"}));
  EXPECT_EQ(store_->GetNode(kTenant, "child")->beginnings(), 4u);
  EXPECT_THAT(Keys(), SizeIs(2 + 4));
  ASSERT_TRUE(store_->DeleteNode(kTenant, "child").ok());
  EXPECT_THAT(Keys(), SizeIs(2));
  EXPECT_EQ(Find(Ids(600)), "root 300");
  ASSERT_TRUE(store_->DeleteNode(kTenant, "root").ok());
  EXPECT_THAT(Keys(), IsEmpty());
}

TEST_F(BeginningIndexTest, AnnotationsLeaveTheIndexAlone) {
  Put(CommitOf("node", Ids(300)));
  const auto relabel = [](NodeAnnotations& annotations) {
    (*annotations.mutable_labels())["name"] = "other";
    return absl::OkStatus();
  };
  ASSERT_TRUE(store_->UpdateNode(kTenant, "node", {}, relabel).ok());
  EXPECT_EQ(Find(Ids(300)), "node 300");
  EXPECT_THAT(store_->VerifyNode(kTenant, "node")->problems, IsEmpty());
}

TEST_F(BeginningIndexTest, StatesWithLossyTokensAreNotLent) {
  NodeCommit commit = CommitOf("node", Ids(300));
  commit.record.set_lossy_tokens(1);
  commit.record.set_beginnings(2);
  Put(commit);
  EXPECT_THAT(Keys(), IsEmpty());
  EXPECT_EQ(Find(Ids(300)), "");
}

TEST_F(BeginningIndexTest, ANodeIsFoundWhileItHasItsExactBits) {
  Put(CommitOf("node", Ids(300)));
  const auto change = [&](const EncodingChange& how) {
    const absl::Status status = store_->ChangeEncodings(kTenant, "node", how).status();
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_THAT(store_->VerifyNode(kTenant, "node")->problems, IsEmpty());
  };
  EncodingChange layered = TestChange(EncodingOf(300, true));
  layered.remove_saved = true;
  change(layered);
  EXPECT_EQ(Find(Ids(300)), "node 300") << "its residuals have the exact bits";
  EncodingChange to_latent;
  to_latent.remove_residuals = {TestEncodingKey(0.5)};
  change(to_latent);
  EXPECT_EQ(Find(Ids(300)), "");
  EXPECT_THAT(Keys(), IsEmpty());
  change(TestChange(EncodingOf(300, true)));
  EXPECT_EQ(Find(Ids(300)), "node 300");
}

TEST_F(BeginningIndexTest, AMissingKeyIsAProblemOfTheNode) {
  Put(CommitOf("node", Ids(300)));
  Tamper([&](rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& handles) {
    const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}, handles[static_cast<size_t>(Family::kIndexes)]));
    it->Seek(std::string(kBeginningsPrefix));
    ASSERT_TRUE(it->Valid());
    ASSERT_TRUE(db->Delete({}, handles[static_cast<size_t>(Family::kIndexes)], it->key()).ok());
  });
  EXPECT_THAT(store_->VerifyNode(kTenant, "node")->problems, ElementsAre(HasSubstr("index of beginnings")));
}

TEST_F(BeginningIndexTest, ADamagedNodeIsPassedOverAndGoesWithItsKeys) {
  Put(CommitOf("first", Ids(300)));
  Put(CommitOf("second", Ids(400)));
  Tamper([&](rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& handles) {
    ASSERT_TRUE(
        db->Put({}, handles[static_cast<size_t>(Family::kContents)], NodeKey(kTenant, "second"), "damage").ok());
  });
  EXPECT_EQ(Find(Ids(400)), "first 300");
  ASSERT_TRUE(store_->DeleteNode(kTenant, "second").ok());
  EXPECT_THAT(Keys(), SizeIs(2));
}

TEST_F(BeginningIndexTest, NodesOfOldProgramsAreFoundOnceTheirEncodingsChange) {
  NodeRecord record = *store_->CommitNode(CommitOf("node", Ids(300)));
  const std::vector<std::string> keys = Keys();
  Tamper([&](rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& handles) {
    for (const std::string& key : keys) {
      ASSERT_TRUE(db->Delete({}, handles[static_cast<size_t>(Family::kIndexes)], key).ok());
    }
    record.clear_beginnings();
    const std::string key = NodeKey(kTenant, "node");
    const std::string payload = record.SerializeAsString();
    const auto header = FrameHeader(key, payload);
    const std::string framed = absl::StrCat(absl::string_view(header.data(), header.size()), payload);
    ASSERT_TRUE(db->Put({}, handles[static_cast<size_t>(Family::kNodes)], key, framed).ok());
  });
  EXPECT_EQ(Find(Ids(300)), "");
  EXPECT_THAT(store_->VerifyNode(kTenant, "node")->problems, IsEmpty());
  ASSERT_TRUE(store_->ChangeEncodings(kTenant, "node", TestChange(EncodingOf(300, false))).ok());
  EXPECT_EQ(Find(Ids(300)), "node 300");
  EXPECT_THAT(store_->VerifyNode(kTenant, "node")->problems, IsEmpty());
}

// A program that does not know the index deletes nodes without their keys, and takes away exact bits without a look at
// it.
TEST_F(BeginningIndexTest, WhatOldProgramsLeaveBehindIsPassedOverAndCollected) {
  Put(CommitOf("gone", Ids(500)));
  Put(CommitOf("again", Ids(300)));
  Put(CommitOf("stays", Ids(260)));
  const size_t all = Keys().size();
  ASSERT_EQ(all, 3u + 2u + 2u);
  // As if an old program had deleted them, and made one of them anew.
  Tamper([&](rocksdb::DB* db, const std::vector<rocksdb::ColumnFamilyHandle*>& handles) {
    for (const char* id : {"gone", "again"}) {
      for (const Family family : {Family::kNodes, Family::kContents}) {
        ASSERT_TRUE(db->Delete({}, handles[static_cast<size_t>(family)], NodeKey(kTenant, id)).ok());
      }
    }
  });
  Put(CommitOf("again", Ids(300)));
  EXPECT_EQ(Find(Ids(500)), "again 300");
  EXPECT_THAT(Keys(), SizeIs(all + 2));
  ASSERT_TRUE(store_->CollectGarbage().ok());
  EXPECT_THAT(Keys(), SizeIs(4));
  EXPECT_EQ(Find(Ids(500)), "again 300");
  for (const char* id : {"again", "stays"}) EXPECT_THAT(store_->VerifyNode(kTenant, id)->problems, IsEmpty());
}

TEST_F(BeginningIndexTest, ManyNodesThatBeginAlikeCostALookAtTheNewest) {
  for (int i = 0; i < 40; ++i) Put(CommitOf(absl::StrCat("n", i), Then(Ids(200), Ids(60, 1000 * (i + 1)))));
  EXPECT_EQ(Find(Ids(200)), "n39 200");
  EXPECT_EQ(Find(Then(Ids(200), Ids(60, 1000 * 38))), "n37 260") << "256 tokens of it are in the index";
  EXPECT_EQ(Find(Then(Ids(200), Ids(50, 1000 * 38))), "n37 250") << "one of the newest";
  EXPECT_EQ(Find(Then(Ids(200), Ids(50, 1000 * 2))), "n39 200") << "too many are newer";
}

TEST(HashBeginningsTest, EachDependsOnAllTokensBefore) {
  std::vector<uint32_t> tokens(3 * kBeginningStep + 5, 7);
  const std::vector<uint64_t> hashes = HashBeginnings(tokens);
  ASSERT_THAT(hashes, SizeIs(3));
  EXPECT_NE(hashes[0], hashes[1]);
  tokens[kBeginningStep] = 8;
  const std::vector<uint64_t> others = HashBeginnings(tokens);
  EXPECT_EQ(others[0], hashes[0]);
  EXPECT_NE(others[1], hashes[1]);
  EXPECT_NE(others[2], hashes[2]);
}

TEST(HashBeginningsTest, HashesAreThoseOnDisk) {
  std::vector<uint32_t> tokens(2 * kBeginningStep);
  std::iota(tokens.begin(), tokens.end(), 0);
  // By the Python package xxhash: xxh3_64_intdigest of struct.pack("<128I", *range(128)), and of the next 128 with the
  // first as seed.
  EXPECT_THAT(HashBeginnings(tokens), ElementsAre(0x24b21cb5803a6432, 0x919130110157f9ce));
}

}  // namespace
}  // namespace quicksave::storage
