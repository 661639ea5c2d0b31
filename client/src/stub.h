// One attempt of one remote call over gRPC, with a deadline and a way to cancel it. Knows nothing of retries.

#ifndef QUICKSAVE_CLIENT_SRC_STUB_H_
#define QUICKSAVE_CLIENT_SRC_STUB_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/src/call_limits.h"
#include "grpc/health/v1/health.pb.h"
#include "quicksave/options.h"
#include "quicksave/v1/admin_service.pb.h"
#include "quicksave/v1/graph_service.pb.h"
#include "quicksave/v1/snapshot_service.pb.h"

namespace quicksave::client {

// Owns the channel. Thread-safe. Every Call blocks until the answer, the deadline or the cancellation.
class Stub {
 public:
  // Connects lazily.
  explicit Stub(const ClientOptions& options);
  ~Stub();

  // Calls `on_event` with each message on this thread. When it returns false the call is cancelled, and CANCELLED
  // returned.
  absl::Status Generate(const v1::GenerateRequest& request, const CallLimits& limits,
                        absl::FunctionRef<bool(const v1::GenerateResponse&)> on_event);

  // The same for ReadTaps.
  absl::Status ReadTaps(const v1::ReadTapsRequest& request, const CallLimits& limits,
                        absl::FunctionRef<bool(const v1::ReadTapsResponse&)> on_event);

  absl::StatusOr<v1::SnapshotResponse> Call(const v1::SnapshotRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::RestoreResponse> Call(const v1::RestoreRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::BranchResponse> Call(const v1::BranchRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::ScoreResponse> Call(const v1::ScoreRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::GetSessionResponse> Call(const v1::GetSessionRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::ListSessionsResponse> Call(const v1::ListSessionsRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::DeleteSessionResponse> Call(const v1::DeleteSessionRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::GetNodeResponse> Call(const v1::GetNodeRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::ListNodesResponse> Call(const v1::ListNodesRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::UpdateNodeResponse> Call(const v1::UpdateNodeRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::DeleteNodeResponse> Call(const v1::DeleteNodeRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::TraverseResponse> Call(const v1::TraverseRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::VerifyNodeResponse> Call(const v1::VerifyNodeRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::EncodeNodeResponse> Call(const v1::EncodeNodeRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::DropEncodingResponse> Call(const v1::DropEncodingRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::GetStatusResponse> Call(const v1::GetStatusRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::CollectGarbageResponse> Call(const v1::CollectGarbageRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::ListProfilesResponse> Call(const v1::ListProfilesRequest& request, const CallLimits& limits);
  absl::StatusOr<v1::LoadProfileResponse> Call(const v1::LoadProfileRequest& request, const CallLimits& limits);
  absl::StatusOr<grpc::health::v1::HealthCheckResponse> Call(const grpc::health::v1::HealthCheckRequest& request,
                                                             const CallLimits& limits);

 private:
  struct Services;
  std::unique_ptr<Services> services_;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_STUB_H_
