#include "server/service/status_mapping.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

constexpr char kDomain[] = "quicksave";

// A message that begins with the name of a limit or a resource and a colon says what it is about: "max_sessions: ...".
std::string Subject(absl::string_view message) {
  const size_t colon = message.find(": ");
  if (colon > 63) return "";  // or there is none
  const absl::string_view subject = message.substr(0, colon);
  for (const char c : subject) {
    const bool word = absl::ascii_islower(c) || absl::ascii_isdigit(c) || absl::StrContains("_/-", c);
    if (!word) return "";
  }
  return std::string(subject);
}

// Whether the same call may succeed later. A session or node that is too large stays so.
bool MaySucceedLater(const absl::Status& error) {
  if (absl::IsUnavailable(error)) return true;
  return absl::IsResourceExhausted(error) && Subject(error.message()) != "max_tap_bytes_per_session";
}

// A reason of its own, or else the name of the code.
std::string Reason(const absl::Status& error) {
  std::string reason = storage::ReasonOf(error);
  if (!reason.empty()) return reason;
  return absl::StatusCodeToString(absl::IsOutOfRange(error) ? absl::StatusCode::kInvalidArgument : error.code());
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& given) {
  if (given.ok()) return grpc::Status::OK;
  // States do not change: a position outside of one is wrong whatever happens, and callers know one code for that.
  const absl::Status status = absl::IsOutOfRange(given) ? absl::InvalidArgumentError(given.message()) : given;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));

  google::rpc::ErrorInfo info;
  info.set_reason(Reason(given));
  info.set_domain(kDomain);
  if (const std::string subject = Subject(status.message()); !subject.empty()) {
    (*info.mutable_metadata())["subject"] = subject;
  }
  details.add_details()->PackFrom(info);
  if (MaySucceedLater(status)) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(1);
    details.add_details()->PackFrom(retry);
  }
  return grpc::Status(code, std::string(status.message()), details.SerializeAsString());
}

}  // namespace quicksave::server
