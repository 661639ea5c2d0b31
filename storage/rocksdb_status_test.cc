#include "storage/rocksdb_status.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quicksave::storage {
namespace {

using rocksdb::Status;
using testing::HasSubstr;
using testing::Not;

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
      {Status::Incomplete("IO error: No space left on device: /x"), absl::StatusCode::kResourceExhausted},
      {Status::Incomplete("ours"), absl::StatusCode::kInternal},
      {Status::SpaceLimit(), absl::StatusCode::kResourceExhausted},
      {Status::MemoryLimit(), absl::StatusCode::kResourceExhausted},
      {Status::IOError("While lock file: /x/LOCK", "Resource temporarily unavailable"),
       absl::StatusCode::kFailedPrecondition},
      {Status::IOError("lock hold by current process, acquire time 1 acquiring thread 2: /x/LOCK",
                       "No locks available"),
       absl::StatusCode::kFailedPrecondition},
      {Status::IOError("while open a file for lock: /x/LOCK", "Permission denied"),
       absl::StatusCode::kFailedPrecondition},
      {Status::IOError("While appending to file: /x/LOCKED/000012.log", "Input/output error"),
       absl::StatusCode::kUnavailable},
      {Status::IOError("EIO"), absl::StatusCode::kUnavailable},
      {Status::ShutdownInProgress(), absl::StatusCode::kUnavailable},
      {Status::InvalidArgument("ours"), absl::StatusCode::kInternal},
      {Status::NotSupported("ours"), absl::StatusCode::kInternal},
  };
  for (const auto& test : kCases) {
    EXPECT_EQ(FromRocksDb(test.status, "store").code(), test.code) << test.status.ToString();
  }
}

TEST(RocksDbStatusTest, AdviceFitsTheCause) {
  const auto message = [](const char* doing, const char* error) {
    return std::string(FromRocksDb(Status::IOError(doing, error), "store /x").message());
  };
  const std::string held = message("While lock file: /x/LOCK", "Resource temporarily unavailable");
  EXPECT_THAT(held, HasSubstr("another process or Store has it open"));
  const std::string denied = message("while open a file for lock: /x/LOCK", "Permission denied");
  EXPECT_THAT(denied, HasSubstr("permissions"));
  EXPECT_THAT(denied, Not(HasSubstr("has it open")));
}

TEST(RocksDbStatusTest, MessageBeginsWithTheResource) {
  EXPECT_EQ(FromRocksDb(Status::Corruption("bad block"), "node t/n").message().substr(0, 9), "node t/n:");
  EXPECT_EQ(FromRocksDb(Status::NotFound(), "nodes/n").message(), "nodes/n does not exist");
}

}  // namespace
}  // namespace quicksave::storage
