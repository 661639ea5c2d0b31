#include "server/service/graph_service.h"

#include "server/service/graph_handlers.h"

namespace quicksave::server {

grpc::ServerUnaryReactor* GraphServiceImpl::GetNode(grpc::CallbackServerContext* context,
                                                    const v1::GetNodeRequest* request, v1::GetNodeResponse* response) {
  return runner_->Run(CallKind::kLight, context, "GetNode", request, response, server::GetNode);
}

grpc::ServerUnaryReactor* GraphServiceImpl::ListNodes(grpc::CallbackServerContext* context,
                                                      const v1::ListNodesRequest* request,
                                                      v1::ListNodesResponse* response) {
  return runner_->Run(CallKind::kLight, context, "ListNodes", request, response, server::ListNodes);
}

grpc::ServerUnaryReactor* GraphServiceImpl::UpdateNode(grpc::CallbackServerContext* context,
                                                       const v1::UpdateNodeRequest* request,
                                                       v1::UpdateNodeResponse* response) {
  return runner_->Run(CallKind::kLight, context, "UpdateNode", request, response, server::UpdateNode);
}

grpc::ServerUnaryReactor* GraphServiceImpl::DeleteNode(grpc::CallbackServerContext* context,
                                                       const v1::DeleteNodeRequest* request,
                                                       v1::DeleteNodeResponse* response) {
  return runner_->Run(CallKind::kLight, context, "DeleteNode", request, response, server::DeleteNode);
}

grpc::ServerUnaryReactor* GraphServiceImpl::Traverse(grpc::CallbackServerContext* context,
                                                     const v1::TraverseRequest* request,
                                                     v1::TraverseResponse* response) {
  return runner_->Run(CallKind::kLight, context, "Traverse", request, response, server::Traverse);
}

grpc::ServerUnaryReactor* GraphServiceImpl::VerifyNode(grpc::CallbackServerContext* context,
                                                       const v1::VerifyNodeRequest* request,
                                                       v1::VerifyNodeResponse* response) {
  return runner_->Run(CallKind::kHeavy, context, "VerifyNode", request, response, server::VerifyNode);
}

grpc::ServerUnaryReactor* GraphServiceImpl::EncodeNode(grpc::CallbackServerContext* context,
                                                       const v1::EncodeNodeRequest* request,
                                                       v1::EncodeNodeResponse* response) {
  return runner_->Run(CallKind::kHeavy, context, "EncodeNode", request, response, server::EncodeNode);
}

grpc::ServerUnaryReactor* GraphServiceImpl::DropEncoding(grpc::CallbackServerContext* context,
                                                         const v1::DropEncodingRequest* request,
                                                         v1::DropEncodingResponse* response) {
  return runner_->Run(CallKind::kLight, context, "DropEncoding", request, response, server::DropEncoding);
}

}  // namespace quicksave::server
