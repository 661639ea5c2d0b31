#ifndef QUICKSAVE_SERVER_SERVICE_SNAPSHOT_HANDLERS_H_
#define QUICKSAVE_SERVER_SERVICE_SNAPSHOT_HANDLERS_H_

// The unary calls of SnapshotService, without gRPC. Each validates its request, does the work and fills the response;
// errors are as the protos and docs/errors.md say. They block: callers run them.

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/scheduler/call_context.h"
#include "server/service/core.h"

namespace quicksave::server {

absl::Status Snapshot(Core& core, const CallContext& call, const v1::SnapshotRequest& request,
                      v1::SnapshotResponse& response);
absl::Status Restore(Core& core, const CallContext& call, const v1::RestoreRequest& request,
                     v1::RestoreResponse& response);
absl::Status Branch(Core& core, const CallContext& call, const v1::BranchRequest& request,
                    v1::BranchResponse& response);
absl::Status Score(Core& core, const CallContext& call, const v1::ScoreRequest& request, v1::ScoreResponse& response);
absl::Status GetSession(Core& core, const CallContext& call, const v1::GetSessionRequest& request,
                        v1::GetSessionResponse& response);
absl::Status ListSessions(Core& core, const CallContext& call, const v1::ListSessionsRequest& request,
                          v1::ListSessionsResponse& response);
absl::Status DeleteSession(Core& core, const CallContext& call, const v1::DeleteSessionRequest& request,
                           v1::DeleteSessionResponse& response);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_SNAPSHOT_HANDLERS_H_
