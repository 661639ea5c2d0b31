// A server in memory, for tests of the tool: sessions, nodes and a model that repeats what it is told.

#ifndef QUICKSAVE_CLIENT_CLI_TESTING_CONNECTION_H_
#define QUICKSAVE_CLIENT_CLI_TESTING_CONNECTION_H_

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "quicksave/connection.h"

namespace quicksave::cli {

// Tests fill and read its members. Generate may be called by several threads at once; the rest is not thread-safe.
class TestingConnection : public client::Connection {
 public:
  TestingConnection();

  absl::StatusOr<client::GenerateFinished> Generate(const client::GenerateRequest& request,
                                                    client::GenerateCallback callback,
                                                    const client::CallOptions& call) override;
  absl::StatusOr<client::SavedNode> Snapshot(const client::SnapshotRequest& request,
                                             const client::CallOptions& call) override;
  absl::StatusOr<client::RestoreResponse> Restore(const client::RestoreRequest& request,
                                                  const client::CallOptions& call) override;
  absl::StatusOr<client::BranchResponse> Branch(const client::BranchRequest& request,
                                                const client::CallOptions& call) override;
  absl::StatusOr<client::ScoreResponse> Score(const client::ScoreRequest& request,
                                              const client::CallOptions& call) override;
  absl::StatusOr<client::Session> GetSession(const client::GetSessionRequest& request,
                                             const client::CallOptions& call) override;
  absl::StatusOr<client::ListSessionsResponse> ListSessions(const client::ListSessionsRequest& request,
                                                            const client::CallOptions& call) override;
  absl::Status DeleteSession(const client::DeleteSessionRequest& request, const client::CallOptions& call) override;
  absl::StatusOr<client::HiddenStates> ReadTaps(const client::ReadTapsRequest& request,
                                                const client::CallOptions& call) override;
  absl::StatusOr<client::Node> GetNode(const client::GetNodeRequest& request, const client::CallOptions& call) override;
  absl::StatusOr<client::ListNodesResponse> ListNodes(const client::ListNodesRequest& request,
                                                      const client::CallOptions& call) override;
  absl::StatusOr<client::Node> UpdateNode(const client::UpdateNodeRequest& request,
                                          const client::CallOptions& call) override;
  absl::StatusOr<client::DeleteNodeResponse> DeleteNode(const client::DeleteNodeRequest& request,
                                                        const client::CallOptions& call) override;
  absl::StatusOr<client::TraverseResponse> Traverse(const client::TraverseRequest& request,
                                                    const client::CallOptions& call) override;
  absl::StatusOr<client::VerifyNodeResponse> VerifyNode(const client::VerifyNodeRequest& request,
                                                        const client::CallOptions& call) override;
  absl::StatusOr<client::EncodeNodeResponse> EncodeNode(const client::EncodeNodeRequest& request,
                                                        const client::CallOptions& call) override;
  absl::StatusOr<client::Node> DropEncoding(const client::DropEncodingRequest& request,
                                            const client::CallOptions& call) override;
  absl::StatusOr<client::ServerStatus> GetStatus(const client::CallOptions& call) override;
  absl::StatusOr<client::CollectGarbageResponse> CollectGarbage(const client::CallOptions& call) override;
  absl::StatusOr<client::ListProfilesResponse> ListProfiles(const client::CallOptions& call) override;
  absl::StatusOr<client::Profile> LoadProfile(const client::LoadProfileRequest& request,
                                              const client::CallOptions& call) override;
  absl::StatusOr<client::Health> CheckHealth(absl::string_view service, const client::CallOptions& call) override;

  // What the server has. Lists come in pages of two, however many are asked for.
  std::vector<client::Node> nodes;
  std::vector<client::Session> sessions;
  // Names of damaged nodes; the last page of nodes has them.
  std::vector<std::string> unreadable;
  std::vector<client::Profile> profiles;
  // What EncodeNode tries; it stores the last of them that is within the budget.
  std::vector<client::EncodingTrial> trials;
  // What Restore shows.
  client::Proof proof;
  client::Health health = client::Health::kServing;
  // When not OK, every call but those that the tool makes to resolve names fails with it.
  absl::Status failure;
  // What a generation starts from, but for what the request says.
  client::GenerateStarted new_session{.session = "sessions/new1", .input_tokens = 3};
  // Generate fails for this one.
  std::string failing_session;
  // What the calls were given.
  std::vector<client::GenerateRequest> generated;
  std::vector<client::SnapshotRequest> snapshots;
  std::vector<client::RestoreRequest> restores;
  std::vector<client::BranchRequest> branches;
  std::vector<client::ScoreRequest> scores;
  std::vector<client::ReadTapsRequest> tap_reads;
  std::vector<client::EncodeNodeRequest> encodes;
  std::vector<client::DropEncodingRequest> drops;
  std::vector<std::string> loaded_profiles;
  std::vector<client::UpdateNodeRequest> updates;
  std::vector<client::DeleteNodeRequest> deleted_nodes;
  std::vector<std::string> deleted_sessions;
  std::vector<client::TraverseRequest> traversals;
  std::vector<client::ListNodesRequest> node_lists;
  std::vector<client::CallOptions> options;
  // Called at each event of a generation, for example to cancel it.
  std::function<void()> on_event = [] {};

 private:
  absl::Mutex mutex_;  // of what Generate was given
};

// A node, a proof and an encoding with believable values. `id` is the part of the name after `nodes/`.
client::Node TestingNode(const std::string& id, const std::string& parent_id = "", int32_t at_token = 0,
                         client::EdgeType type = client::EdgeType::kContinuation);
client::Proof TestingProof();
client::Encoding TestingEncoding(int32_t split, float step);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_TESTING_CONNECTION_H_
