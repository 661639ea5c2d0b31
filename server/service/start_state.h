#ifndef QUICKSAVE_SERVER_SERVICE_START_STATE_H_
#define QUICKSAVE_SERVER_SERVICE_START_STATE_H_

// What the calls that start from a session or a node have in common.

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/duration.pb.h"
#include "server/service/convert.h"
#include "server/service/restore.h"

namespace quicksave::server {

template <class Request>
std::optional<int> AtToken(const Request& request) {
  return request.has_at_token() ? std::optional<int>(request.at_token()) : std::nullopt;
}

// The lease that a request asks for, or the default. INVALID_ARGUMENT when it is out of range.
absl::StatusOr<absl::Duration> Lease(const Core& core, bool given, const google::protobuf::Duration& lease);

// A copy of a session's state, and pages for its growth. FAILED_PRECONDITION while it has no tokens.
absl::StatusOr<TakenSession> CaptureWithTokens(Core& core, const std::string& name, const CallContext& call,
                                               Growth growth = NoGrowth);

// RestoreWithProof of a request's node, or the state of its session.
template <class Request>
absl::StatusOr<ProvenState> StartState(Core& core, const CallContext& call, const Request& request,
                                       const StartUse& use = {}) {
  switch (request.start_case()) {
    case Request::kNode:
      return RestoreWithProof(core, request.node(), AtToken(request), request.skip_check(), call, use);
    case Request::kSession: {
      if (request.has_at_token()) {
        return absl::InvalidArgumentError("at_token goes with a node; save the session and rewind the node");
      }
      absl::StatusOr<TakenSession> taken = CaptureWithTokens(core, request.session(), call, use.growth);
      if (!taken.ok()) return taken.status();
      return ProvenState{std::move(taken->state), {}, std::move(taken->pages)};
    }
    default:
      return absl::InvalidArgumentError("give a session or a node to start from");
  }
}

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_START_STATE_H_
