#include "quicksave/client.h"

#include "client/src/request_id.h"

namespace quicksave::client {
namespace {

void EnsureRequestId(std::string* request_id) {
  if (request_id->empty()) *request_id = MakeRequestId();
}

}  // namespace

absl::StatusOr<Client> Client::Connect(const ClientOptions& options) {
  absl::StatusOr<std::shared_ptr<Connection>> connection = MakeConnection(options);
  if (!connection.ok()) return connection.status();
  return Client(*std::move(connection));
}

absl::StatusOr<GenerateFinished> Client::Generate(GenerateRequest request, GenerateCallback callback,
                                                  const CallOptions& options) const {
  if (request.save.has_value()) EnsureRequestId(&request.request_id);
  return connection_->Generate(request, callback, options);
}

absl::StatusOr<SavedNode> Client::Snapshot(SnapshotRequest request, const CallOptions& options) const {
  EnsureRequestId(&request.request_id);
  return connection_->Snapshot(request, options);
}

absl::StatusOr<RestoreResponse> Client::Restore(RestoreRequest request, const CallOptions& options) const {
  EnsureRequestId(&request.request_id);
  return connection_->Restore(request, options);
}

absl::StatusOr<BranchResponse> Client::Branch(BranchRequest request, const CallOptions& options) const {
  EnsureRequestId(&request.request_id);
  return connection_->Branch(request, options);
}

absl::StatusOr<ScoreResponse> Client::Score(const ScoreRequest& request, const CallOptions& options) const {
  return connection_->Score(request, options);
}

absl::StatusOr<Session> Client::GetSession(const GetSessionRequest& request, const CallOptions& options) const {
  return connection_->GetSession(request, options);
}

absl::StatusOr<ListSessionsResponse> Client::ListSessions(const ListSessionsRequest& request,
                                                          const CallOptions& options) const {
  return connection_->ListSessions(request, options);
}

absl::Status Client::DeleteSession(const DeleteSessionRequest& request, const CallOptions& options) const {
  return connection_->DeleteSession(request, options);
}

absl::StatusOr<HiddenStates> Client::ReadTaps(const ReadTapsRequest& request, const CallOptions& options) const {
  return connection_->ReadTaps(request, options);
}

absl::StatusOr<Node> Client::GetNode(const GetNodeRequest& request, const CallOptions& options) const {
  return connection_->GetNode(request, options);
}

absl::StatusOr<ListNodesResponse> Client::ListNodes(const ListNodesRequest& request, const CallOptions& options) const {
  return connection_->ListNodes(request, options);
}

absl::StatusOr<Node> Client::UpdateNode(UpdateNodeRequest request, const CallOptions& options) const {
  EnsureRequestId(&request.request_id);
  return connection_->UpdateNode(request, options);
}

absl::StatusOr<DeleteNodeResponse> Client::DeleteNode(DeleteNodeRequest request, const CallOptions& options) const {
  EnsureRequestId(&request.request_id);
  return connection_->DeleteNode(request, options);
}

absl::StatusOr<TraverseResponse> Client::Traverse(const TraverseRequest& request, const CallOptions& options) const {
  return connection_->Traverse(request, options);
}

absl::StatusOr<VerifyNodeResponse> Client::VerifyNode(const VerifyNodeRequest& request,
                                                      const CallOptions& options) const {
  return connection_->VerifyNode(request, options);
}

absl::StatusOr<EncodeNodeResponse> Client::EncodeNode(EncodeNodeRequest request, const CallOptions& options) const {
  EnsureRequestId(&request.request_id);
  return connection_->EncodeNode(request, options);
}

absl::StatusOr<Node> Client::DropEncoding(DropEncodingRequest request, const CallOptions& options) const {
  EnsureRequestId(&request.request_id);
  return connection_->DropEncoding(request, options);
}

absl::StatusOr<ServerStatus> Client::GetStatus(const CallOptions& options) const {
  return connection_->GetStatus(options);
}

absl::StatusOr<CollectGarbageResponse> Client::CollectGarbage(const CallOptions& options) const {
  return connection_->CollectGarbage(options);
}

absl::StatusOr<ListProfilesResponse> Client::ListProfiles(const CallOptions& options) const {
  return connection_->ListProfiles(options);
}

absl::StatusOr<Profile> Client::LoadProfile(const LoadProfileRequest& request, const CallOptions& options) const {
  return connection_->LoadProfile(request, options);
}

absl::StatusOr<Health> Client::CheckHealth(absl::string_view service, const CallOptions& options) const {
  return connection_->CheckHealth(service, options);
}

}  // namespace quicksave::client
