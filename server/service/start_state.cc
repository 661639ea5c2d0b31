#include "server/service/start_state.h"

#include "absl/strings/str_cat.h"

namespace quicksave::server {

absl::StatusOr<absl::Duration> Lease(const Core& core, bool given, const google::protobuf::Duration& lease) {
  if (!given) return core.sessions->CheckLease(absl::ZeroDuration());
  absl::StatusOr<absl::Duration> duration = FromProto(lease);
  if (!duration.ok()) return absl::InvalidArgumentError(absl::StrCat("lease: ", duration.status().message()));
  if (*duration == absl::ZeroDuration()) return absl::InvalidArgumentError("lease is 0; it must be positive");
  return core.sessions->CheckLease(*duration);
}

absl::StatusOr<TakenSession> CaptureWithTokens(Core& core, const std::string& name, const CallContext& call,
                                               Growth growth) {
  const absl::StatusOr<std::string> id = ParseName(name, "sessions");
  if (!id.ok()) return id.status();
  absl::StatusOr<TakenSession> taken = core.sessions->Capture(*id, call, growth);
  if (taken.ok() && taken->state.sequence.length() == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " has no tokens yet; try again when its input has been computed"));
  }
  return taken;
}

}  // namespace quicksave::server
