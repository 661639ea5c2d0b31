// Stores of older formats open and work; a store is of the oldest format that allows what is in it.
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
namespace fs = std::filesystem;

EncodingChange SwitchTo(const v1::Encoding& encoding) {
  EncodingChange change = TestChange(encoding);
  change.remove_saved = true;
  return change;
}

// An encoding of these blocks for a node whose blocks have 4 tokens each.
v1::Encoding EncodingOfFours(const std::vector<uint64_t>& blocks, bool with_residuals) {
  v1::Encoding encoding = TestEncoding(0.5, blocks, with_residuals);
  for (auto* refs : {encoding.mutable_blocks(), encoding.mutable_residuals()}) {
    for (int i = 0; i < refs->size(); ++i) {
      refs->Mutable(i)->set_first_token(4 * i);
      refs->Mutable(i)->set_token_count(4);
    }
  }
  return encoding;
}

// The store in testdata/format_1 was written by the last program that knew no encodings: "root" has blocks 20 and 116,
// its child "child" these and 169, and block 127 of hidden states; there are two profiles and a remembered answer.
class OldStoreTest : public testing::Test {
 protected:
  OldStoreTest() {
    const std::string path = dir_.path() + "/store";
    fs::copy(QUICKSAVE_STORAGE_TESTDATA "/format_1", path);
    for (const auto& file : fs::directory_iterator(path)) fs::permissions(file, fs::perms::owner_all);
    store_ = OpenOrDie(TestOptions(path));
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(OldStoreTest, FormatOneIsReadWhole) {
  EXPECT_THAT(AllNodeIds(*store_), ElementsAre("root", "child"));
  for (const char* id : {"root", "child"}) ExpectIntact(*store_, id);
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->Stats()->blocks, 4u);
  EXPECT_EQ(store_->Stats()->format_version, 1u);
  const NodeRecord child = *store_->GetNode(kTenant, "child");
  EXPECT_FALSE(child.no_saved_blocks());
  EXPECT_THAT(child.encodings(), IsEmpty());
  EXPECT_EQ(child.contents().tap_blocks_size(), 1);
  EXPECT_EQ(store_->FindRequest(kTenant, "Snapshot", "id")->answer, EtagOf(child));
  const std::vector<ProfileInfo> profiles = store_->ListProfiles(kModel).value();
  ASSERT_EQ(profiles.size(), 2u);
  EXPECT_EQ(profiles[0].id, "first");
  EXPECT_EQ(profiles[0].size_bytes, 6u);
  EXPECT_EQ(profiles[1].size_bytes, 5000u);
  EXPECT_TRUE(profiles[1].current);
  EXPECT_FALSE(profiles[1].create_time);
}

TEST_F(OldStoreTest, NodesOfFormatOneTakeEncodingsAndGo) {
  ASSERT_TRUE(store_->ChangeEncodings(kTenant, "root", SwitchTo(EncodingOfFours({20, 116}, true))).ok());
  ASSERT_TRUE(store_->ChangeEncodings(kTenant, "child", TestChange(EncodingOfFours({20, 116, 169}, false))).ok());
  EXPECT_EQ(store_->Stats()->format_version, 2u);
  for (const char* id : {"root", "child"}) ExpectIntact(*store_, id);
  ExpectTotalsOfNodes(*store_);
  EXPECT_EQ(store_->DeleteNode(kTenant, "root", {.force = true})->blocks, 9u);
  EXPECT_EQ(store_->Stats()->blocks, 0u);
  EXPECT_EQ(store_->Stats()->block_stored_bytes, 0u);
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
}

using FormatTest = StoreTest;

TEST_F(FormatTest, FirstEncodingRaisesTheFormatForGood) {
  Commit("node", {}, {1});
  ASSERT_TRUE(store_->PutProfile(kModel, kLatent, {"profile-1", "sidecar"}).ok());
  Reopen();
  EXPECT_EQ(store_->Stats()->format_version, 1u) << "an older program may open it";
  ASSERT_TRUE(store_->ChangeEncodings(kTenant, "node", TestChange(TestEncoding(0.5, {1}, false))).ok());
  EXPECT_EQ(store_->Stats()->format_version, 2u);
  Reopen();
  ASSERT_TRUE(store_->DeleteNode(kTenant, "node").ok());
  Commit("other", {}, {1});
  Reopen();
  EXPECT_EQ(store_->Stats()->format_version, 2u);
}

TEST_F(FormatTest, CommitWithAnEncodingRaisesTheFormat) {
  NodeCommit commit = TestCommit("node", {}, {1});
  *commit.record.mutable_contents()->add_encodings() = TestEncoding(0.5, {1}, false);
  EXPECT_EQ(store_->CommitNode(commit).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Stats()->format_version, 1u);
  GiveBlocks(commit.record.contents().encodings(0), &commit.blocks);
  ASSERT_TRUE(store_->CommitNode(commit).ok());
  Reopen();
  EXPECT_EQ(store_->Stats()->format_version, 2u);
}

TEST_F(FormatTest, NewerFormatIsRefusedWithBothVersions) {
  Commit("node", {}, {1});
  store_.reset();
  std::vector<std::string> names;
  rocksdb::DBOptions database_options;
  ASSERT_TRUE(rocksdb::DB::ListColumnFamilies(database_options, options_.path, &names).ok());
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const std::string& name : names) families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(database_options, options_.path, families, &handles, &db).ok());
  ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), "format_version", "3").ok());
  for (rocksdb::ColumnFamilyHandle* handle : handles) ASSERT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
  delete db;
  const absl::Status status = Store::Open(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("format version 3"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("reads up to 2"));
}

}  // namespace
}  // namespace quicksave::storage
