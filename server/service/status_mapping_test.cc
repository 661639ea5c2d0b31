#include "server/service/status_mapping.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

google::rpc::Status DetailsOf(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  return details;
}

// Unpacks the only detail of a type; whether there was one.
template <class Detail>
bool Unpack(const google::rpc::Status& status, Detail* out) {
  int found = 0;
  for (const auto& detail : status.details()) {
    if (detail.Is<Detail>()) found += detail.UnpackTo(out) ? 1 : 0;
  }
  EXPECT_LE(found, 1);
  return found == 1;
}

TEST(StatusMappingTest, OkIsOk) {
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  EXPECT_EQ(ToGrpc(absl::OkStatus()).error_details(), "");
}

TEST(StatusMappingTest, EveryErrorKeepsItsCodeAndMessageAndHasErrorInfo) {
  const std::pair<absl::Status, grpc::StatusCode> errors[] = {
      {absl::CancelledError("m"), grpc::StatusCode::CANCELLED},
      {absl::InvalidArgumentError("m"), grpc::StatusCode::INVALID_ARGUMENT},
      {absl::DeadlineExceededError("m"), grpc::StatusCode::DEADLINE_EXCEEDED},
      {absl::NotFoundError("m"), grpc::StatusCode::NOT_FOUND},
      {absl::AlreadyExistsError("m"), grpc::StatusCode::ALREADY_EXISTS},
      {absl::PermissionDeniedError("m"), grpc::StatusCode::PERMISSION_DENIED},
      {absl::ResourceExhaustedError("m"), grpc::StatusCode::RESOURCE_EXHAUSTED},
      {absl::FailedPreconditionError("m"), grpc::StatusCode::FAILED_PRECONDITION},
      {absl::AbortedError("m"), grpc::StatusCode::ABORTED},
      {absl::UnimplementedError("m"), grpc::StatusCode::UNIMPLEMENTED},
      {absl::InternalError("m"), grpc::StatusCode::INTERNAL},
      {absl::UnavailableError("m"), grpc::StatusCode::UNAVAILABLE},
      {absl::DataLossError("m"), grpc::StatusCode::DATA_LOSS},
  };
  for (const auto& [error, code] : errors) {
    const grpc::Status status = ToGrpc(error);
    EXPECT_EQ(status.error_code(), code);
    EXPECT_EQ(status.error_message(), "m");
    const google::rpc::Status details = DetailsOf(status);
    EXPECT_EQ(details.code(), code);
    EXPECT_EQ(details.message(), "m");
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(Unpack(details, &info)) << error;
    EXPECT_EQ(info.reason(), absl::StatusCodeToString(error.code()));
    EXPECT_EQ(info.domain(), "quicksave");
    google::rpc::RetryInfo retry;
    const bool again = absl::IsResourceExhausted(error) || absl::IsUnavailable(error);
    EXPECT_EQ(Unpack(details, &retry), again) << error;
    EXPECT_EQ(retry.retry_delay().seconds() > 0, again);
  }
}

TEST(StatusMappingTest, ASessionThatIsTooLargeIsNotToBeTriedAgain) {
  google::rpc::RetryInfo retry;
  const auto details = [](const char* message) { return DetailsOf(ToGrpc(absl::ResourceExhaustedError(message))); };
  EXPECT_FALSE(Unpack(details("max_tap_bytes_per_session: nodes/a has 9 bytes"), &retry));
  EXPECT_TRUE(Unpack(details("max_tap_bytes: all sessions together"), &retry)) << "others may end";
}

TEST(StatusMappingTest, GivesTheReasonWhereThereIsOne) {
  google::rpc::ErrorInfo info;
  const absl::Status error = storage::WithReason("NODE_HAS_CHILDREN", absl::FailedPreconditionError("m"));
  ASSERT_TRUE(Unpack(DetailsOf(ToGrpc(error)), &info));
  EXPECT_EQ(info.reason(), "NODE_HAS_CHILDREN");
}

TEST(StatusMappingTest, NamesTheLimitOrResourceThatTheMessageBeginsWith) {
  const auto subject = [](const std::string& message) {
    google::rpc::ErrorInfo info;
    EXPECT_TRUE(Unpack(DetailsOf(ToGrpc(absl::NotFoundError(message))), &info));
    const auto it = info.metadata().find("subject");
    return it == info.metadata().end() ? std::string("(none)") : it->second;
  };
  EXPECT_EQ(subject("max_sessions: 4 of 4 sessions are live"), "max_sessions");
  EXPECT_EQ(subject("nodes/abc-1: a block is damaged"), "nodes/abc-1");
  EXPECT_EQ(subject("sessions/x does not exist"), "(none)");
  EXPECT_EQ(subject("kv_memory: 4 pages"), "kv_memory");
  EXPECT_EQ(subject("a sentence: with a colon"), "(none)");
  EXPECT_EQ(subject(": nothing before it"), "(none)");
  EXPECT_EQ(subject(absl::StrCat(std::string(64, 'a'), ": too long")), "(none)");
  EXPECT_EQ(subject("no_space:after"), "(none)");
}

}  // namespace
}  // namespace quicksave::server
