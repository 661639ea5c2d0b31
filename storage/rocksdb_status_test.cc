#include "storage/rocksdb_status.h"

#include "gtest/gtest.h"

namespace quicksave::storage {
namespace {

using rocksdb::Status;

TEST(RocksDbStatusTest, EveryKindHasItsCode) {
  const struct {
    Status status;
    absl::StatusCode code;
  } kCases[] = {
      {Status::OK(), absl::StatusCode::kOk},
      {Status::NotFound(), absl::StatusCode::kNotFound},
      {Status::Corruption("bad block"), absl::StatusCode::kDataLoss},
      {Status::PathNotFound("000012.sst"), absl::StatusCode::kDataLoss},
      {Status::NoSpace(), absl::StatusCode::kResourceExhausted},
      {Status::SpaceLimit(), absl::StatusCode::kResourceExhausted},
      {Status::MemoryLimit(), absl::StatusCode::kResourceExhausted},
      {Status::IOError("While lock file: /x/LOCK", "Resource temporarily unavailable"),
       absl::StatusCode::kFailedPrecondition},
      {Status::IOError("EIO"), absl::StatusCode::kUnavailable},
      {Status::ShutdownInProgress(), absl::StatusCode::kUnavailable},
      {Status::InvalidArgument("ours"), absl::StatusCode::kInternal},
      {Status::NotSupported("ours"), absl::StatusCode::kInternal},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(FromRocksDb(test.status, "store").code(), test.code) << test.status.ToString();
  }
}

TEST(RocksDbStatusTest, MessageBeginsWithTheResource) {
  EXPECT_EQ(FromRocksDb(Status::Corruption("bad block"), "node t/n").message().substr(0, 9), "node t/n:");
}

}  // namespace
}  // namespace quicksave::storage
