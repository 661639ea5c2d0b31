#include "server/service/admin_service.h"

#include "server/service/admin_handlers.h"

namespace quicksave::server {

grpc::ServerUnaryReactor* AdminServiceImpl::GetStatus(grpc::CallbackServerContext* context,
                                                      const v1::GetStatusRequest* request,
                                                      v1::GetStatusResponse* response) {
  return runner_->Run(CallKind::kLight, context, "GetStatus", request, response, server::GetStatus);
}

grpc::ServerUnaryReactor* AdminServiceImpl::CollectGarbage(grpc::CallbackServerContext* context,
                                                           const v1::CollectGarbageRequest* request,
                                                           v1::CollectGarbageResponse* response) {
  return runner_->Run(CallKind::kLight, context, "CollectGarbage", request, response, server::CollectGarbage);
}

grpc::ServerUnaryReactor* AdminServiceImpl::ListProfiles(grpc::CallbackServerContext* context,
                                                         const v1::ListProfilesRequest* request,
                                                         v1::ListProfilesResponse* response) {
  return runner_->Run(CallKind::kLight, context, "ListProfiles", request, response, server::ListProfiles);
}

grpc::ServerUnaryReactor* AdminServiceImpl::LoadProfile(grpc::CallbackServerContext* context,
                                                        const v1::LoadProfileRequest* request,
                                                        v1::LoadProfileResponse* response) {
  return runner_->Run(CallKind::kLight, context, "LoadProfile", request, response, server::LoadProfile);
}

}  // namespace quicksave::server
