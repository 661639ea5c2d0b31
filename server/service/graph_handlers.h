#ifndef QUICKSAVE_SERVER_SERVICE_GRAPH_HANDLERS_H_
#define QUICKSAVE_SERVER_SERVICE_GRAPH_HANDLERS_H_

// The calls of GraphService, without gRPC. Each validates its request, does the work and fills the response; errors are
// as the protos and docs/errors.md say. They block: callers run them.

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "quicksave/v1/graph_service.pb.h"
#include "server/scheduler/call_context.h"
#include "server/service/core.h"

namespace quicksave::server {

absl::Status GetNode(Core& core, const CallContext& call, const v1::GetNodeRequest& request,
                     v1::GetNodeResponse& response);
absl::Status ListNodes(Core& core, const CallContext& call, const v1::ListNodesRequest& request,
                       v1::ListNodesResponse& response);
absl::Status UpdateNode(Core& core, const CallContext& call, const v1::UpdateNodeRequest& request,
                        v1::UpdateNodeResponse& response);
absl::Status DeleteNode(Core& core, const CallContext& call, const v1::DeleteNodeRequest& request,
                        v1::DeleteNodeResponse& response);
absl::Status Traverse(Core& core, const CallContext& call, const v1::TraverseRequest& request,
                      v1::TraverseResponse& response);
absl::Status VerifyNode(Core& core, const CallContext& call, const v1::VerifyNodeRequest& request,
                        v1::VerifyNodeResponse& response);
absl::Status EncodeNode(Core& core, const CallContext& call, const v1::EncodeNodeRequest& request,
                        v1::EncodeNodeResponse& response);
absl::Status DropEncoding(Core& core, const CallContext& call, const v1::DropEncodingRequest& request,
                          v1::DropEncodingResponse& response);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_GRAPH_HANDLERS_H_
