// The way from a Client to a server, as an interface: the point to mock in tests of programs that use a Client.

#ifndef QUICKSAVE_CONNECTION_H_
#define QUICKSAVE_CONNECTION_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "quicksave/call_options.h"
#include "quicksave/graph_requests.h"
#include "quicksave/options.h"
#include "quicksave/requests.h"
#include "quicksave/server.h"
#include "quicksave/types.h"

namespace quicksave::client {

// Called with each event of a generation, in order, on the calling thread. Returning false cancels the generation.
using GenerateCallback = absl::FunctionRef<bool(const GenerateEvent&)>;

// One method per remote call; Client says what each does. Implementations are thread-safe, block until the answer is
// there, and retry what is safe to retry: changes only when the request has a request_id.
class Connection {
 public:
  virtual ~Connection() = default;

  virtual absl::StatusOr<GenerateFinished> Generate(const GenerateRequest& request, GenerateCallback callback,
                                                    const CallOptions& options) = 0;
  virtual absl::StatusOr<SavedNode> Snapshot(const SnapshotRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<RestoreResponse> Restore(const RestoreRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<BranchResponse> Branch(const BranchRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<ScoreResponse> Score(const ScoreRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<Session> GetSession(const GetSessionRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<ListSessionsResponse> ListSessions(const ListSessionsRequest& request,
                                                            const CallOptions& options) = 0;
  virtual absl::Status DeleteSession(const DeleteSessionRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<HiddenStates> ReadTaps(const ReadTapsRequest& request, const CallOptions& options) = 0;

  virtual absl::StatusOr<Node> GetNode(const GetNodeRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<ListNodesResponse> ListNodes(const ListNodesRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<Node> UpdateNode(const UpdateNodeRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<DeleteNodeResponse> DeleteNode(const DeleteNodeRequest& request,
                                                        const CallOptions& options) = 0;
  virtual absl::StatusOr<TraverseResponse> Traverse(const TraverseRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<VerifyNodeResponse> VerifyNode(const VerifyNodeRequest& request,
                                                        const CallOptions& options) = 0;
  virtual absl::StatusOr<EncodeNodeResponse> EncodeNode(const EncodeNodeRequest& request,
                                                        const CallOptions& options) = 0;
  virtual absl::StatusOr<Node> DropEncoding(const DropEncodingRequest& request, const CallOptions& options) = 0;

  virtual absl::StatusOr<ServerStatus> GetStatus(const CallOptions& options) = 0;
  virtual absl::StatusOr<CollectGarbageResponse> CollectGarbage(const CallOptions& options) = 0;
  virtual absl::StatusOr<ListProfilesResponse> ListProfiles(const CallOptions& options) = 0;
  virtual absl::StatusOr<Profile> LoadProfile(const LoadProfileRequest& request, const CallOptions& options) = 0;
  virtual absl::StatusOr<Health> CheckHealth(absl::string_view service, const CallOptions& options) = 0;
};

// Makes a connection over gRPC. It connects with the first call and again whenever that is needed; a server that is not
// there is no error here. Fails with INVALID_ARGUMENT when the options contradict each other.
absl::StatusOr<std::shared_ptr<Connection>> MakeConnection(const ClientOptions& options = {});

}  // namespace quicksave::client

#endif  // QUICKSAVE_CONNECTION_H_
