// Codec profiles: kept, found again, listed, however big.
#include "storage/profile_shelf.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
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
using testing::IsEmpty;

class ProfileShelfTest : public StoreTest {
 protected:
  // "codec/id bytes [current]" of each.
  std::vector<std::string> List() {
    std::vector<std::string> list;
    const absl::StatusOr<std::vector<ProfileInfo>> profiles = store_->ListProfiles(kModel);
    EXPECT_TRUE(profiles.ok()) << profiles.status();
    if (!profiles.ok()) return list;
    for (const ProfileInfo& profile : *profiles) {
      list.push_back(
          absl::StrCat(profile.codec, "/", profile.id, " ", profile.size_bytes, profile.current ? " current" : "",
                       profile.create_time ? absl::StrCat(" at ", absl::ToUnixSeconds(*profile.create_time)) : ""));
    }
    return list;
  }

  // Opens RocksDB below the store, and the store again.
  template <typename Change>
  void Tamper(Change change) {
    store_.reset();
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* opened = nullptr;
    ASSERT_TRUE(
        rocksdb::DB::Open(DatabaseOptions(options_), options_.path, FamilyDescriptors(options_), &handles, &opened)
            .ok());
    change(*opened, handles[static_cast<size_t>(Family::kProfiles)]);
    for (rocksdb::ColumnFamilyHandle* handle : handles) ASSERT_TRUE(opened->DestroyColumnFamilyHandle(handle).ok());
    delete opened;
    store_ = OpenOrDie(options_);
  }
};

TEST_F(ProfileShelfTest, ProfilesAreKeptAndTheLastOneIsCurrent) {
  EXPECT_EQ(store_->GetProfile(kModel, kCodec).status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(store_->PutProfile(kModel, kCodec, {"first", "tables"}).ok());
  ASSERT_TRUE(store_->PutProfile(kModel, kCodec, {"second", "better tables"}).ok());
  EXPECT_EQ(store_->PutProfile(kModel, kCodec, {"first", "other"}).code(), StatusCode::kAlreadyExists);
  Reopen();
  EXPECT_EQ(store_->GetProfile(kModel, kCodec)->id, "second");
  EXPECT_EQ(store_->GetProfile(kModel, kCodec, "first")->bytes, "tables");
  EXPECT_EQ(store_->GetProfile(kModel, kCodec, "third").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store_->GetProfile("other", kCodec).status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(store_->PutProfile(kModel, kCodec, {"first", "tables"}).ok());
  EXPECT_EQ(store_->GetProfile(kModel, kCodec)->bytes, "tables");
}

TEST_F(ProfileShelfTest, ProfilesAreListedByCodecAndIdWithWhatIsCurrent) {
  absl::Time now = absl::FromUnixSeconds(100);
  options_.clock = [&] { return now; };
  Reopen();
  EXPECT_THAT(List(), IsEmpty());
  ASSERT_TRUE(store_->PutProfile(kModel, "latent", {"b", std::string(5000, 'x')}).ok());
  now += absl::Seconds(5);
  ASSERT_TRUE(store_->PutProfile(kModel, "latent", {"a", "1234"}).ok());
  now += absl::Seconds(5);
  ASSERT_TRUE(store_->PutProfile(kModel, "exact", {"b", "12"}).ok());
  ASSERT_TRUE(store_->PutProfile("other", "latent", {"c", "1"}).ok());
  Reopen();
  EXPECT_THAT(List(),
              testing::ElementsAre("exact/b 2 current at 110", "latent/a 4 current at 105", "latent/b 5000 at 100"));
  ASSERT_TRUE(store_->PutProfile(kModel, "latent", {"b", std::string(5000, 'x')}).ok());
  EXPECT_THAT(List(),
              testing::ElementsAre("exact/b 2 current at 110", "latent/a 4 at 105", "latent/b 5000 current at 100"))
      << "the first put counts";
  EXPECT_EQ(store_->ListProfiles("").status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ProfileShelfTest, ProfilesOfOlderProgramsAreListedToo) {
  for (const char* id : {"a", "b", "c", "d", "e"}) {
    ASSERT_TRUE(store_->PutProfile(kModel, "latent", {id, std::string(6000, id[0])}).ok());
  }
  Tamper([](rocksdb::DB& db, rocksdb::ColumnFamilyHandle* family) {
    for (const char* id : {"a", "c", "e"}) {
      ASSERT_TRUE(db.Delete(rocksdb::WriteOptions(), family, ProfileEntryKey(kModel, "latent", id)).ok());
    }
  });
  const std::vector<ProfileInfo> profiles = store_->ListProfiles(kModel).value();
  ASSERT_EQ(profiles.size(), 5u);
  for (size_t i = 0; i < profiles.size(); ++i) {
    EXPECT_EQ(profiles[i].id, std::string(1, static_cast<char>('a' + i)));
    EXPECT_EQ(profiles[i].size_bytes, 6000u);
    EXPECT_EQ(profiles[i].create_time.has_value(), i % 2 == 1);
    EXPECT_EQ(profiles[i].current, i == 4);
  }
  ASSERT_TRUE(store_->PutProfile(kModel, "latent", {"a", std::string(6000, 'a')}).ok());
  EXPECT_EQ(store_->PutProfile(kModel, "latent", {"c", "other"}).code(), StatusCode::kAlreadyExists);
  EXPECT_TRUE(store_->ListProfiles(kModel)->front().current);
}

TEST_F(ProfileShelfTest, ListingReadsNoProfileThatHasAnEntry) {
  for (const char* id : {"a", "b"}) {
    ASSERT_TRUE(store_->PutProfile(kModel, "latent", {id, std::string(6000, 'x')}).ok());
  }
  Tamper([](rocksdb::DB& db, rocksdb::ColumnFamilyHandle* family) {
    ASSERT_TRUE(db.Put(rocksdb::WriteOptions(), family, ProfileKey(kModel, "latent", "a"), "not a frame").ok());
  });
  EXPECT_EQ(store_->ListProfiles(kModel)->size(), 2u);
  EXPECT_EQ(store_->GetProfile(kModel, "latent", "a").status().code(), StatusCode::kDataLoss);
}

TEST_F(ProfileShelfTest, BigProfileComesBackBesideOtherWrites) {
  const Profile big{"sidecar", PseudoRandomBytes(1, size_t{60} << 20)};
  Commit("before", {}, {1, 2});
  ASSERT_TRUE(store_->PutProfile(kModel, "latent", big).ok());
  Commit("after", {}, {1, 2, 3});
  EXPECT_TRUE(store_->GetProfile(kModel, "latent")->bytes == big.bytes);
  Reopen();
  const absl::StatusOr<Profile> read = store_->GetProfile(kModel, "latent", "sidecar");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->bytes == big.bytes);
  EXPECT_EQ(store_->ListProfiles(kModel)->front().size_bytes, big.bytes.size());
  EXPECT_TRUE(store_->PutProfile(kModel, "latent", big).ok());
  EXPECT_LT(store_->Stats()->disk_used_bytes, 2 * big.bytes.size()) << "an equal one is not written again";
  for (const char* id : {"before", "after"}) ExpectIntact(*store_, id);
}

TEST_F(ProfileShelfTest, TooBigAProfileIsRefusedWithTheLimit) {
  const absl::Status status = store_->PutProfile(kModel, "latent", {"id", std::string((size_t{256} << 20) + 1, 'x')});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("268435456"));
}

TEST_F(ProfileShelfTest, OfTwoProfilesOfOneNameOneWins) {
  for (int round = 0; round < 20; ++round) {
    const std::string id = absl::StrCat("p", round);
    const std::string mine(100000, 'm'), theirs(100000, 't');
    absl::Status other;
    std::thread thread([&] { other = store_->PutProfile(kModel, "latent", {id, theirs}); });
    const absl::Status first = store_->PutProfile(kModel, "latent", {id, mine});
    thread.join();
    ASSERT_NE(first.ok(), other.ok());
    EXPECT_EQ((first.ok() ? other : first).code(), StatusCode::kAlreadyExists);
    EXPECT_TRUE(store_->GetProfile(kModel, "latent", id)->bytes == (first.ok() ? mine : theirs));
  }
}

}  // namespace
}  // namespace quicksave::storage
