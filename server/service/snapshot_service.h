#ifndef QUICKSAVE_SERVER_SERVICE_SNAPSHOT_SERVICE_H_
#define QUICKSAVE_SERVER_SERVICE_SNAPSHOT_SERVICE_H_

#include "quicksave/v1/snapshot_service.grpc.pb.h"
#include "server/service/call_runner.h"

namespace quicksave::server {

// SnapshotService over gRPC: passes calls to the handlers. Thread-safe; `runner` must outlive it.
class SnapshotServiceImpl final : public v1::SnapshotService::CallbackService {
 public:
  explicit SnapshotServiceImpl(CallRunner* runner) : runner_(runner) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Snapshot(grpc::CallbackServerContext* context, const v1::SnapshotRequest* request,
                                     v1::SnapshotResponse* response) override;
  grpc::ServerUnaryReactor* Restore(grpc::CallbackServerContext* context, const v1::RestoreRequest* request,
                                    v1::RestoreResponse* response) override;
  grpc::ServerUnaryReactor* Branch(grpc::CallbackServerContext* context, const v1::BranchRequest* request,
                                   v1::BranchResponse* response) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* GetSession(grpc::CallbackServerContext* context, const v1::GetSessionRequest* request,
                                       v1::GetSessionResponse* response) override;
  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* context, const v1::ListSessionsRequest* request,
                                         v1::ListSessionsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteSession(grpc::CallbackServerContext* context, const v1::DeleteSessionRequest* request,
                                          v1::DeleteSessionResponse* response) override;

  grpc::ServerWriteReactor<v1::ReadTapsResponse>* ReadTaps(grpc::CallbackServerContext* context,
                                                           const v1::ReadTapsRequest* request) override;

 private:
  CallRunner* const runner_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_SNAPSHOT_SERVICE_H_
