#ifndef QUICKSAVE_SERVER_SERVICE_ADMIN_SERVICE_H_
#define QUICKSAVE_SERVER_SERVICE_ADMIN_SERVICE_H_

#include "quicksave/v1/admin_service.grpc.pb.h"
#include "server/service/call_runner.h"

namespace quicksave::server {

// AdminService over gRPC: passes calls to the handlers. Thread-safe; `runner` must outlive it.
class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  explicit AdminServiceImpl(CallRunner* runner) : runner_(runner) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* CollectGarbage(grpc::CallbackServerContext* context,
                                           const v1::CollectGarbageRequest* request,
                                           v1::CollectGarbageResponse* response) override;
  grpc::ServerUnaryReactor* ListProfiles(grpc::CallbackServerContext* context, const v1::ListProfilesRequest* request,
                                         v1::ListProfilesResponse* response) override;
  grpc::ServerUnaryReactor* LoadProfile(grpc::CallbackServerContext* context, const v1::LoadProfileRequest* request,
                                        v1::LoadProfileResponse* response) override;

 private:
  CallRunner* const runner_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_ADMIN_SERVICE_H_
