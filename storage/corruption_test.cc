// Bytes of the store's files are flipped; reads return the right bytes or DATA_LOSS, never other bytes.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "rocksdb/db.h"
#include "storage/keys.h"
#include "storage/rocksdb_options.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

namespace quicksave::storage {
namespace {

using absl::StatusCode;
using testing::HasSubstr;
namespace fs = std::filesystem;

constexpr int kNodes = 6;
// Where a process that reads a damaged store finds it, and what it says when something in it is lost.
constexpr char kStoreVariable[] = "QUICKSAVE_DAMAGED_STORE";
constexpr char kSomeLost[] = "some is lost";

// Reads a store whose content is known.
class ReadingTest : public StoreTest {
 protected:
  // OK, or DATA_LOSS; counts the latter.
  void ExpectRightOrLost(const absl::Status& status) {
    if (status.ok()) return;
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
    ++lost_;
  }

  // Reads everything; only right bytes or DATA_LOSS may come.
  void ReadAll() {
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options_);
    if (!store.ok()) return ExpectRightOrLost(store.status());
    for (int i = 0; i < kNodes; ++i) {
      const std::string id = absl::StrCat("n", i);
      const NodeCommit expected = TestCommit(id, {}, {1, 2, static_cast<uint64_t>(10 + i)});
      absl::StatusOr<NodeRecord> node = (*store)->GetNode(kTenant, id);
      ExpectRightOrLost(node.status());
      if (node.ok()) {
        EXPECT_EQ(node->contents().settings(), expected.record.contents().settings());
      } else {
        EXPECT_THAT(std::string(node.status().message()), HasSubstr(id));
      }
      absl::StatusOr<std::string> logits = (*store)->GetState(kTenant, id, "logits");
      ExpectRightOrLost(logits.status());
      if (logits.ok()) {
        EXPECT_TRUE(*logits == expected.state[0].bytes);
      }
      for (const NewBlock& block : expected.blocks) {
        absl::StatusOr<std::string> bytes = (*store)->ReadBlock(kTenant, kModel, block.id);
        ExpectRightOrLost(bytes.status());
        if (bytes.ok()) {
          EXPECT_TRUE(*bytes == block.bytes);
        }
      }
    }
  }

  int lost_ = 0;
};

class CorruptionTest : public ReadingTest {
 protected:
  CorruptionTest() {
    for (int i = 0; i < kNodes; ++i) {
      std::vector<std::string> parents;
      if (i > 0) parents.push_back(absl::StrCat("n", i - 1));
      Commit(absl::StrCat("n", i), parents, {1, 2, static_cast<uint64_t>(10 + i)});
    }
    store_.reset();
  }

  std::vector<std::string> Files(const std::string& extension) const {
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(options_.path)) {
      if (entry.path().extension() == extension) files.push_back(entry.path().string());
    }
    std::sort(files.begin(), files.end());
    return files;
  }

  static void FlipBit(const std::string& file, uint64_t bit) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(bit / 8);
    const char byte = static_cast<char>(stream.get() ^ (1 << bit % 8));
    stream.seekp(bit / 8);
    stream.put(byte);
    ASSERT_TRUE(stream.good()) << file;
  }

  // Reads everything by ReadsADamagedStore in a process of its own, which may die of the one assertion of Debian's
  // RocksDB that a flipped bit can reach: properties are looked at before their checksum is. Then nothing is served
  // either.
  void ReadAllInAnotherProcess() {
    const std::string log = dir_.path() + "/reader.log";
    const std::string command =
        absl::StrCat(kStoreVariable, "='", options_.path, "' '", fs::read_symlink("/proc/self/exe").string(),
                     "' --gtest_filter=ReadingTest.ReadsADamagedStore > '", log, "' 2>&1");
    const int status = std::system(command.c_str());
    std::ifstream stream(log);
    const std::string said(std::istreambuf_iterator<char>(stream), {});
    const bool refused = status != 0 && said.find("DataBlockHashIndex::Initialize") != std::string::npos;
    EXPECT_TRUE(status == 0 || refused) << said;
    if (refused || said.find(kSomeLost) != std::string::npos) ++lost_;
  }

  void FlipBitsOneByOne(const std::string& extension, int count) {
    const std::vector<std::string> files = Files(extension);
    ASSERT_FALSE(files.empty());
    const uint64_t seed = std::random_device()();
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    for (int i = 0; i < count && !HasFailure(); ++i) {
      const std::string& file = files[random() % files.size()];
      const uint64_t bit = random() % (8 * fs::file_size(file));
      SCOPED_TRACE(absl::StrCat(file, " bit ", bit));
      // A store that is opened may write; each flip gets a fresh copy.
      const std::string pristine = dir_.path() + "/pristine";
      fs::copy(options_.path, pristine, fs::copy_options::recursive);
      FlipBit(file, bit);
      ReadAllInAnotherProcess();
      fs::remove_all(options_.path);
      fs::rename(pristine, options_.path);
    }
    EXPECT_GT(lost_, 0) << "no flip was noticed: does the test reach the data?";
  }
};

TEST_F(ReadingTest, ReadsADamagedStore) {
  const char* path = std::getenv(kStoreVariable);
  if (path == nullptr) GTEST_SKIP() << "is for ReadAllInAnotherProcess";
  options_.path = path;
  ReadAll();
  if (lost_ > 0) std::cout << kSomeLost << "\n";
}

TEST_F(CorruptionTest, FlippedBitInATableIsNeverServed) { FlipBitsOneByOne(".sst", 60); }

TEST_F(CorruptionTest, FlippedBitInABlobFileIsNeverServed) { FlipBitsOneByOne(".blob", 60); }

TEST_F(CorruptionTest, TruncatedOrMissingBlobFileIsDataLoss) {
  for (const std::string& file : Files(".blob")) {
    const uint64_t size = fs::file_size(file);
    const std::string pristine = dir_.path() + "/pristine";
    for (const uint64_t left : {size - 1, size / 2, uint64_t{0}}) {
      fs::copy(options_.path, pristine, fs::copy_options::recursive);
      fs::resize_file(file, left);
      ReadAll();
      fs::remove_all(options_.path);
      fs::rename(pristine, options_.path);
    }
    fs::copy(options_.path, pristine, fs::copy_options::recursive);
    fs::remove(file);
    ReadAll();
    fs::remove_all(options_.path);
    fs::rename(pristine, options_.path);
  }
  EXPECT_GT(lost_, 0);
}

// Damage that RocksDB's own checksums cannot see.
class TamperingTest : public CorruptionTest {
 protected:
  TamperingTest() { store_ = OpenOrDie(options_); }

  // Opens RocksDB below the store, lets `change` tamper, and opens the store again.
  template <typename Change>
  void Tamper(Change change) {
    store_.reset();
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(
        rocksdb::DB::Open(DatabaseOptions(options_), options_.path, FamilyDescriptors(options_), &handles, &db).ok());
    change(db, [&](Family family) { return handles[static_cast<size_t>(family)]; });
    for (rocksdb::ColumnFamilyHandle* handle : handles) ASSERT_TRUE(db->DestroyColumnFamilyHandle(handle).ok());
    delete db;
    store_ = OpenOrDie(options_);
  }

  // Makes the value under `key` one that no reader takes.
  void Damage(Family damaged, const std::string& key) {
    Tamper([&](rocksdb::DB* db, auto family) {
      std::string value;
      ASSERT_TRUE(db->Get(rocksdb::ReadOptions(), family(damaged), key, &value).ok());
      ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), family(damaged), key, "not a frame").ok());
    });
  }

  // Nothing is left of any node, in any family.
  void ExpectNothingLeft() {
    EXPECT_THAT(AllNodeIds(*store_), testing::IsEmpty());
    EXPECT_EQ(store_->Stats()->nodes, 0u);
    EXPECT_EQ(store_->Stats()->blocks, 0u);
    Tamper([&](rocksdb::DB* db, auto family) {
      for (const Family used : {Family::kNodes, Family::kContents, Family::kEdges, Family::kBlocks, Family::kReferences,
                                Family::kIndexes, Family::kState}) {
        const std::unique_ptr<rocksdb::Iterator> keys(db->NewIterator(rocksdb::ReadOptions(), family(used)));
        for (keys->SeekToFirst(); keys->Valid(); keys->Next()) {
          ADD_FAILURE() << "left in family " << static_cast<int>(used) << ": " << keys->key().ToString(true);
        }
      }
    });
  }

  const std::string block_key_ = BlockKey(kTenant, kModel, TestBlockId(1));
};

TEST_F(TamperingTest, MissingBlockIsDataLossByName) {
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Delete(rocksdb::WriteOptions(), family(Family::kBlocks), block_key_).ok());
  });
  const absl::Status status = store_->ReadBlock(kTenant, kModel, TestBlockId(1)).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("block "));
  absl::StatusOr<VerifyReport> report = store_->VerifyNode(kTenant, "n0");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->problems.size(), 1u);
  EXPECT_EQ(report->blocks, 3u);  // Two blocks and the logits.
}

TEST_F(TamperingTest, BlockUnderAnotherBlocksKeyIsDataLoss) {
  Tamper([&](rocksdb::DB* db, auto family) {
    std::string other;
    ASSERT_TRUE(
        db->Get(rocksdb::ReadOptions(), family(Family::kBlocks), BlockKey(kTenant, kModel, TestBlockId(2)), &other)
            .ok());
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), family(Family::kBlocks), block_key_, other).ok());
  });
  EXPECT_EQ(store_->ReadBlock(kTenant, kModel, TestBlockId(1)).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(store_->VerifyNode(kTenant, "n0")->problems.size(), 1u);
}

TEST_F(TamperingTest, MissingStateAndContentsAreDataLossByName) {
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Delete(rocksdb::WriteOptions(), family(Family::kState), StateKey(kTenant, "n1", "logits")).ok());
    ASSERT_TRUE(db->Delete(rocksdb::WriteOptions(), family(Family::kContents), NodeKey(kTenant, "n2")).ok());
  });
  absl::Status status = store_->GetState(kTenant, "n1", "logits").status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nodes/n1"));
  EXPECT_EQ(store_->GetState(kTenant, "n1", "taps").status().code(), StatusCode::kNotFound);
  status = store_->GetNode(kTenant, "n2").status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nodes/n2"));
  ExpectIntact(*store_, "n3");
}

TEST_F(TamperingTest, DamagedRecordIsListedAsUnreadableBesideTheOthers) {
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), family(Family::kNodes), NodeKey(kTenant, "n2"), "not a frame").ok());
  });
  EXPECT_EQ(store_->GetNode(kTenant, "n2").status().code(), StatusCode::kDataLoss);
  ListRequest request;
  request.tenant = kTenant;
  const NodePage page = store_->ListNodes(request).value();
  EXPECT_THAT(page.unreadable, testing::ElementsAre("n2"));
  EXPECT_EQ(page.nodes.size(), static_cast<size_t>(kNodes - 1));
}

TEST_F(TamperingTest, DamagedBlockIsMendedByTheNextCommitThatHasItsBytes) {
  const StoreStats before = *store_->Stats();
  Damage(Family::kBlocks, block_key_);
  EXPECT_TRUE(IsStored(*store_, TestBlockId(1))) << "nobody has read it";
  EXPECT_EQ(store_->ReadBlock(kTenant, kModel, TestBlockId(1)).status().code(), StatusCode::kDataLoss);
  EXPECT_FALSE(IsStored(*store_, TestBlockId(1)));
  NodeCommit commit = TestCommit("again", {}, {1, 2});
  EXPECT_EQ(store_->CommitNode(commit)->new_stored_bytes(), TestBlockBytes(TestBlockId(1)).size());
  EXPECT_TRUE(IsStored(*store_, TestBlockId(1)));
  for (const char* id : {"again", "n0", "n5"}) ExpectIntact(*store_, id);
  EXPECT_EQ(store_->Stats()->blocks, before.blocks);
  EXPECT_EQ(store_->Stats()->block_raw_bytes, before.block_raw_bytes);
  EXPECT_EQ(store_->Stats()->block_stored_bytes, before.block_stored_bytes);
  commit = TestCommit("shares", {}, {1, 2});
  commit.blocks.clear();
  EXPECT_TRUE(store_->CommitNode(commit).ok());
}

TEST_F(TamperingTest, BlockWithADamagedEntryIsStoredAnew) {
  const StoreStats before = *store_->Stats();
  Damage(Family::kReferences, block_key_);
  EXPECT_FALSE(IsStored(*store_, TestBlockId(1)));
  NodeCommit commit = TestCommit("again", {}, {1, 2});
  commit.blocks.clear();
  EXPECT_EQ(store_->CommitNode(commit).status().code(), StatusCode::kFailedPrecondition);
  Commit("again", {}, {1, 2});
  EXPECT_TRUE(IsStored(*store_, TestBlockId(1)));
  for (const char* id : {"again", "n0", "n5"}) ExpectIntact(*store_, id);
  EXPECT_EQ(store_->Stats()->block_stored_bytes, before.block_stored_bytes);
  EXPECT_EQ(store_->Stats()->blocks, before.blocks);
}

TEST_F(TamperingTest, NodeWithDamagedContentsIsDeletedWithItsBlocks) {
  Damage(Family::kContents, NodeKey(kTenant, "n5"));
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Delete(rocksdb::WriteOptions(), family(Family::kContents), NodeKey(kTenant, "n4")).ok());
  });
  for (const char* id : {"n5", "n4"}) {
    absl::StatusOr<DeleteReport> report = store_->DeleteNode(kTenant, id);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->blocks, 1u);
  }
  EXPECT_EQ(store_->CollectGarbage()->blocks, 0u);
  ExpectIntact(*store_, "n3");
  ASSERT_TRUE(store_->DeleteNode(kTenant, "n0", {.force = true}).ok());
  ExpectNothingLeft();
}

TEST_F(TamperingTest, NodeWithADamagedRecordIsDeletedByForce) {
  NodeRecord etag = *store_->GetNode(kTenant, "n5");
  Damage(Family::kNodes, NodeKey(kTenant, "n5"));
  const absl::Status refused = store_->DeleteNode(kTenant, "n5").status();
  EXPECT_EQ(refused.code(), StatusCode::kDataLoss);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("force"));
  EXPECT_EQ(store_->DeleteNode(kTenant, "n5", {.force = true, .etag = EtagOf(etag)}).status().code(),
            StatusCode::kDataLoss);
  const uint64_t state_bytes = store_->Stats()->state_bytes;
  absl::StatusOr<DeleteReport> report = store_->DeleteNode(kTenant, "n5", {.force = true});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->blocks, 1u);
  EXPECT_EQ(store_->Stats()->state_bytes, state_bytes / kNodes * (kNodes - 1));
  ListRequest request;
  request.tenant = kTenant;
  EXPECT_THAT(store_->ListNodes(request)->unreadable, testing::IsEmpty());
  EXPECT_THAT(*store_->Children(kTenant, "n4"), testing::IsEmpty());
  ExpectIntact(*store_, "n4");
  ASSERT_TRUE(store_->DeleteNode(kTenant, "n0", {.force = true}).ok());
  ExpectNothingLeft();
}

TEST_F(TamperingTest, AncestorsOfDamagedAndLostNodesAreDeletedByForce) {
  Damage(Family::kNodes, NodeKey(kTenant, "n2"));
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Delete(rocksdb::WriteOptions(), family(Family::kNodes), NodeKey(kTenant, "n4")).ok());
  });
  EXPECT_EQ(store_->DeleteNode(kTenant, "n1").status().code(), StatusCode::kFailedPrecondition);
  absl::StatusOr<DeleteReport> report = store_->DeleteNode(kTenant, "n1", {.force = true});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->node_ids, testing::ElementsAre("n5", "n4", "n3", "n2", "n1"));
  EXPECT_THAT(AllNodeIds(*store_), testing::ElementsAre("n0"));
  ExpectIntact(*store_, "n0");
}

TEST_F(TamperingTest, BlockWithADamagedEntryIsDeletedWithItsLastNode) {
  const StoreStats before = *store_->Stats();
  Damage(Family::kReferences, block_key_);
  absl::StatusOr<DeleteReport> report = store_->DeleteNode(kTenant, "n0", {.force = true});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->blocks, before.blocks);
  EXPECT_EQ(store_->Stats()->block_stored_bytes, TestBlockBytes(TestBlockId(1)).size());
  ExpectNothingLeft();
}

TEST_F(TamperingTest, GarbageIsCollectedBesideDamagedEntries) {
  absl::StatusOr<BlockPin> pin = store_->PinBlocks(kTenant, kModel, {TestBlockId(1), TestBlockId(2)});
  ASSERT_TRUE(store_->DeleteNode(kTenant, "n0", {.force = true}).ok());
  pin = BlockPin();
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), family(Family::kReferences), block_key_, "not a frame").ok());
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), family(Family::kReferences), "!not a key", "").ok());
  });
  absl::StatusOr<GarbageReport> report = store_->CollectGarbage();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->blocks, 2u);
  EXPECT_EQ(store_->Stats()->blocks, 0u);
}

// n5 with a latent and residuals, and without the blocks that it was saved with.
class TamperingWithEncodingsTest : public TamperingTest {
 protected:
  TamperingWithEncodingsTest() {
    EncodingChange change = TestChange(TestEncoding(1, {1, 2, 15}, true));
    change.remove_saved = true;
    EXPECT_TRUE(store_->ChangeEncodings(kTenant, "n5", change).ok());
  }

  static std::string KeyOf(const char* codec) {
    return BlockKey(kTenant, kModel, {TestBlockId(2).content_id, absl::StrCat(codec, "-1")});
  }
};

TEST_F(TamperingWithEncodingsTest, VerifyNamesWhatIsWrongWithEncodings) {
  EXPECT_THAT(store_->VerifyNode(kTenant, "n5")->problems, testing::IsEmpty());
  Damage(Family::kBlocks, KeyOf(kLatent));
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Delete(rocksdb::WriteOptions(), family(Family::kBlocks), KeyOf(kResidual)).ok());
    ASSERT_TRUE(
        db->Delete(rocksdb::WriteOptions(), family(Family::kReferences), ReferenceKey(KeyOf(kResidual), "n5")).ok());
  });
  EXPECT_THAT(
      store_->VerifyNode(kTenant, "n5")->problems,
      testing::ElementsAre(HasSubstr("latent-1"), HasSubstr("residual-1"), testing::StartsWith("reference to block ")));
}

TEST_F(TamperingWithEncodingsTest, VerifyNoticesContentsOfAnotherTime) {
  std::string contents;
  const auto read = [&](rocksdb::DB* db, auto family) {
    const std::string key = NodeKey(kTenant, "n5");
    ASSERT_TRUE(db->Get(rocksdb::ReadOptions(), family(Family::kContents), key, &contents).ok());
  };
  Tamper(read);
  EncodingChange change;
  change.remove_residuals = {TestEncodingKey(1)};
  ASSERT_TRUE(store_->ChangeEncodings(kTenant, "n5", change).ok());
  Tamper([&](rocksdb::DB* db, auto family) {
    ASSERT_TRUE(db->Put(rocksdb::WriteOptions(), family(Family::kContents), NodeKey(kTenant, "n5"), contents).ok());
  });
  EXPECT_THAT(store_->VerifyNode(kTenant, "n5")->problems, testing::Contains(HasSubstr("other encodings")));
}

TEST_F(TamperingWithEncodingsTest, NodeWithDamagedContentsIsDeletedWithItsEncodings) {
  Damage(Family::kContents, NodeKey(kTenant, "n5"));
  EncodingChange change;
  change.remove_residuals = {TestEncodingKey(1)};
  EXPECT_EQ(store_->ChangeEncodings(kTenant, "n5", change).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(store_->DeleteNode(kTenant, "n5")->blocks, 6u);
  ExpectTotalsOfNodes(*store_);
  ASSERT_TRUE(store_->DeleteNode(kTenant, "n0", {.force = true}).ok());
  ExpectNothingLeft();
}

TEST_F(TamperingWithEncodingsTest, NodeWithADamagedRecordIsDeletedWithItsEncodings) {
  Damage(Family::kNodes, NodeKey(kTenant, "n5"));
  EXPECT_EQ(store_->ChangeEncodings(kTenant, "n5", TestChange(TestEncoding(2, {1, 2, 15}, false))).status().code(),
            StatusCode::kDataLoss);
  EXPECT_EQ(store_->DeleteNode(kTenant, "n5", {.force = true})->blocks, 6u);
  ExpectTotalsOfNodes(*store_);
  ASSERT_TRUE(store_->DeleteNode(kTenant, "n0", {.force = true}).ok());
  ExpectNothingLeft();
}

TEST_F(TamperingWithEncodingsTest, BlockWithADamagedEntryGoesWithItsEncoding) {
  Damage(Family::kReferences, KeyOf(kResidual));
  EncodingChange change;
  change.remove_residuals = {TestEncodingKey(1)};
  ASSERT_TRUE(store_->ChangeEncodings(kTenant, "n5", change).ok());
  ExpectIntact(*store_, "n5");
  ASSERT_TRUE(store_->DeleteNode(kTenant, "n0", {.force = true}).ok());
  ExpectNothingLeft();
}

TEST_F(TamperingWithEncodingsTest, DamagedLatentIsMendedByTheChangeThatHasItsBytes) {
  Damage(Family::kBlocks, KeyOf(kLatent));
  const BlockId id = {TestBlockId(2).content_id, "latent-1"};
  EXPECT_EQ(store_->ReadBlock(kTenant, kModel, id).status().code(), StatusCode::kDataLoss);
  ASSERT_TRUE(store_->ChangeEncodings(kTenant, "n5", TestChange(TestEncoding(1, {1, 2, 15}, true))).ok());
  ExpectIntact(*store_, "n5");
  ExpectTotalsOfNodes(*store_);
}

TEST_F(TamperingTest, VerifyNamesMissingReferencesEdgesAndIndexes) {
  Tamper([&](rocksdb::DB* db, auto family) {
    const rocksdb::WriteOptions write;
    ASSERT_TRUE(db->Delete(write, family(Family::kReferences), ReferenceKey(block_key_, "n1")).ok());
    ASSERT_TRUE(db->Delete(write, family(Family::kEdges), ChildKey(kTenant, "n0", "n1")).ok());
  });
  EXPECT_EQ(store_->VerifyNode(kTenant, "n1")->problems.size(), 2u);
  EXPECT_THAT(store_->VerifyNode(kTenant, "n0")->problems, testing::IsEmpty());
}

}  // namespace
}  // namespace quicksave::storage
