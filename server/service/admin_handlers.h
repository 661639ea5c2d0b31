#ifndef QUICKSAVE_SERVER_SERVICE_ADMIN_HANDLERS_H_
#define QUICKSAVE_SERVER_SERVICE_ADMIN_HANDLERS_H_

// The calls of AdminService, without gRPC. They block: callers run them.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quicksave/v1/admin_service.pb.h"
#include "server/scheduler/call_context.h"
#include "server/service/core.h"

namespace quicksave::server {

// How long the answer to a request_id is remembered at least.
inline constexpr absl::Duration kRequestMemory = absl::Hours(24);

absl::Status GetStatus(Core& core, const CallContext& call, const v1::GetStatusRequest& request,
                       v1::GetStatusResponse& response);
absl::Status CollectGarbage(Core& core, const CallContext& call, const v1::CollectGarbageRequest& request,
                            v1::CollectGarbageResponse& response);
absl::Status ListProfiles(Core& core, const CallContext& call, const v1::ListProfilesRequest& request,
                          v1::ListProfilesResponse& response);
absl::Status LoadProfile(Core& core, const CallContext& call, const v1::LoadProfileRequest& request,
                         v1::LoadProfileResponse& response);

// Loads a latent profile from a file and stores it; returns its id. NOT_FOUND naming the file when it cannot be read;
// errors of LatentProfiles::Adopt.
absl::StatusOr<std::string> LoadProfileFile(Archive& archive, const std::string& path);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_ADMIN_HANDLERS_H_
