#include "quicksave/errors.h"

#include "absl/strings/cord.h"
#include "client/src/error_details.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace quicksave::client {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

template <typename Detail>
std::optional<Detail> FindDetail(const absl::Status& status, const char* url) {
  const absl::optional<absl::Cord> payload = status.GetPayload(url);
  Detail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

}  // namespace

absl::Status MakeStatus(absl::StatusCode code, const std::string& message, const std::string& serialized_details) {
  absl::Status status(code, message);
  google::rpc::Status details;
  if (!details.ParseFromString(serialized_details)) return status;
  for (const google::protobuf::Any& detail : details.details()) {
    status.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return status;
}

bool HasDetails(const absl::Status& status) {
  bool found = false;
  status.ForEachPayload([&found](absl::string_view, const absl::Cord&) { found = true; });
  return found;
}

std::string ErrorReason(const absl::Status& status) {
  const auto info = FindDetail<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  return info.has_value() ? info->reason() : "";
}

std::map<std::string, std::string> ErrorMetadata(const absl::Status& status) {
  const auto info = FindDetail<google::rpc::ErrorInfo>(status, kErrorInfoUrl);
  if (!info.has_value()) return {};
  return {info->metadata().begin(), info->metadata().end()};
}

std::optional<absl::Duration> ErrorRetryDelay(const absl::Status& status) {
  const auto info = FindDetail<google::rpc::RetryInfo>(status, kRetryInfoUrl);
  if (!info.has_value()) return std::nullopt;
  return absl::Seconds(info->retry_delay().seconds()) + absl::Nanoseconds(info->retry_delay().nanos());
}

}  // namespace quicksave::client
