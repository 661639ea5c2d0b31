#ifndef QUICKSAVE_SERVER_SERVICE_GRAPH_SERVICE_H_
#define QUICKSAVE_SERVER_SERVICE_GRAPH_SERVICE_H_

#include "quicksave/v1/graph_service.grpc.pb.h"
#include "server/service/call_runner.h"

namespace quicksave::server {

// GraphService over gRPC: passes calls to the handlers. Thread-safe; `runner` must outlive it.
class GraphServiceImpl final : public v1::GraphService::CallbackService {
 public:
  explicit GraphServiceImpl(CallRunner* runner) : runner_(runner) {}

  grpc::ServerUnaryReactor* GetNode(grpc::CallbackServerContext* context, const v1::GetNodeRequest* request,
                                    v1::GetNodeResponse* response) override;
  grpc::ServerUnaryReactor* ListNodes(grpc::CallbackServerContext* context, const v1::ListNodesRequest* request,
                                      v1::ListNodesResponse* response) override;
  grpc::ServerUnaryReactor* UpdateNode(grpc::CallbackServerContext* context, const v1::UpdateNodeRequest* request,
                                       v1::UpdateNodeResponse* response) override;
  grpc::ServerUnaryReactor* DeleteNode(grpc::CallbackServerContext* context, const v1::DeleteNodeRequest* request,
                                       v1::DeleteNodeResponse* response) override;
  grpc::ServerUnaryReactor* Traverse(grpc::CallbackServerContext* context, const v1::TraverseRequest* request,
                                     v1::TraverseResponse* response) override;
  grpc::ServerUnaryReactor* VerifyNode(grpc::CallbackServerContext* context, const v1::VerifyNodeRequest* request,
                                       v1::VerifyNodeResponse* response) override;
  grpc::ServerUnaryReactor* EncodeNode(grpc::CallbackServerContext* context, const v1::EncodeNodeRequest* request,
                                       v1::EncodeNodeResponse* response) override;
  grpc::ServerUnaryReactor* DropEncoding(grpc::CallbackServerContext* context, const v1::DropEncodingRequest* request,
                                         v1::DropEncodingResponse* response) override;

 private:
  CallRunner* const runner_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_GRAPH_SERVICE_H_
