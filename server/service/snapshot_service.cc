#include "server/service/snapshot_service.h"

#include "server/service/generate_reactor.h"
#include "server/service/snapshot_handlers.h"
#include "server/service/tap_reactor.h"

namespace quicksave::server {

grpc::ServerWriteReactor<v1::GenerateResponse>* SnapshotServiceImpl::Generate(grpc::CallbackServerContext* context,
                                                                              const v1::GenerateRequest* request) {
  return new GenerateReactor(runner_, context, *request);
}

grpc::ServerUnaryReactor* SnapshotServiceImpl::Snapshot(grpc::CallbackServerContext* context,
                                                        const v1::SnapshotRequest* request,
                                                        v1::SnapshotResponse* response) {
  return runner_->Run(CallKind::kHeavy, context, "Snapshot", request, response, server::Snapshot);
}

grpc::ServerUnaryReactor* SnapshotServiceImpl::Restore(grpc::CallbackServerContext* context,
                                                       const v1::RestoreRequest* request,
                                                       v1::RestoreResponse* response) {
  return runner_->Run(CallKind::kHeavy, context, "Restore", request, response, server::Restore);
}

grpc::ServerUnaryReactor* SnapshotServiceImpl::Branch(grpc::CallbackServerContext* context,
                                                      const v1::BranchRequest* request, v1::BranchResponse* response) {
  return runner_->Run(CallKind::kHeavy, context, "Branch", request, response, server::Branch);
}

grpc::ServerUnaryReactor* SnapshotServiceImpl::Score(grpc::CallbackServerContext* context,
                                                     const v1::ScoreRequest* request, v1::ScoreResponse* response) {
  return runner_->Run(CallKind::kHeavy, context, "Score", request, response, server::Score);
}

grpc::ServerUnaryReactor* SnapshotServiceImpl::GetSession(grpc::CallbackServerContext* context,
                                                          const v1::GetSessionRequest* request,
                                                          v1::GetSessionResponse* response) {
  return runner_->Run(CallKind::kHeavy, context, "GetSession", request, response, server::GetSession);
}

grpc::ServerUnaryReactor* SnapshotServiceImpl::ListSessions(grpc::CallbackServerContext* context,
                                                            const v1::ListSessionsRequest* request,
                                                            v1::ListSessionsResponse* response) {
  return runner_->Run(CallKind::kLight, context, "ListSessions", request, response, server::ListSessions);
}

grpc::ServerUnaryReactor* SnapshotServiceImpl::DeleteSession(grpc::CallbackServerContext* context,
                                                             const v1::DeleteSessionRequest* request,
                                                             v1::DeleteSessionResponse* response) {
  return runner_->Run(CallKind::kLight, context, "DeleteSession", request, response, server::DeleteSession);
}

grpc::ServerWriteReactor<v1::ReadTapsResponse>* SnapshotServiceImpl::ReadTaps(grpc::CallbackServerContext* context,
                                                                              const v1::ReadTapsRequest* request) {
  return new TapReactor(runner_, context, *request);
}

}  // namespace quicksave::server
