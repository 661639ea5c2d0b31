// Client: save states for a language model, by remote calls to a Quicksave server.
//
//   namespace qs = quicksave::client;
//   absl::StatusOr<qs::Client> client = qs::Client::Connect();
//   auto saved = client->Snapshot({.session = name});
//   auto restored = client->Restore({.node = saved->node.name});
//
// Every call blocks until its answer is there, has a time limit (CallOptions, ClientOptions) and returns an
// absl::Status with the server's code and message; errors.h reads the reason and details. UNAVAILABLE means that no
// server answered.

#ifndef QUICKSAVE_CLIENT_H_
#define QUICKSAVE_CLIENT_H_

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "quicksave/call_options.h"
#include "quicksave/connection.h"
#include "quicksave/encoding.h"
#include "quicksave/errors.h"
#include "quicksave/graph_requests.h"
#include "quicksave/options.h"
#include "quicksave/requests.h"
#include "quicksave/server.h"
#include "quicksave/types.h"

namespace quicksave::client {

// One method per remote call. Copies are cheap and share one connection. Thread-safe: any thread may call any method.
// Requests that change something get a random request_id when they have none, so that they can be retried safely; give
// your own to repeat a call across restarts of your program.
class Client {
 public:
  // Returns a client of the server at options.endpoint. Does not connect yet. INVALID_ARGUMENT on contradictory
  // options.
  static absl::StatusOr<Client> Connect(const ClientOptions& options = {});

  // Makes a client over a connection, which may be a test's own. `connection` is not null.
  explicit Client(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}

  // Generates tokens from a new session, a live session or a node. Calls `callback` with each event as it comes, on
  // this thread; when it returns false the generation is cancelled and CANCELLED returned, and a session that existed
  // before keeps what was computed. Returns how it ended. It is retried only as long as no event has come, and never
  // when it extends a session without saving: then the answer of a lost call cannot be known.
  absl::StatusOr<GenerateFinished> Generate(GenerateRequest request, GenerateCallback callback,
                                            const CallOptions& options = {}) const;

  // Saves a session as a node; stores only what the session's node lacks, and does not stop or change the session.
  // The node is durable when this returns. NOT_FOUND when there is no such session.
  absl::StatusOr<SavedNode> Snapshot(SnapshotRequest request, const CallOptions& options = {}) const;

  // Makes a live session of a node, and returns it with the proof that it is what was saved. NOT_FOUND when there is no
  // such node, DATA_LOSS when it is damaged, FAILED_PRECONDITION when it is another model's.
  absl::StatusOr<RestoreResponse> Restore(RestoreRequest request, const CallOptions& options = {}) const;

  // Makes several sessions that share the state of a session or node, without copying it.
  absl::StatusOr<BranchResponse> Branch(BranchRequest request, const CallOptions& options = {}) const;

  // Returns each token's log-probability in given continuations of a session or node; changes nothing.
  absl::StatusOr<ScoreResponse> Score(const ScoreRequest& request, const CallOptions& options = {}) const;

  // Returns one session. NOT_FOUND when there is none of that name.
  absl::StatusOr<Session> GetSession(const GetSessionRequest& request, const CallOptions& options = {}) const;

  // Lists live sessions, oldest first, page by page.
  absl::StatusOr<ListSessionsResponse> ListSessions(const ListSessionsRequest& request = {},
                                                    const CallOptions& options = {}) const;

  // Ends a session; what was saved of it stays. NOT_FOUND when there is none of that name.
  absl::Status DeleteSession(const DeleteSessionRequest& request, const CallOptions& options = {}) const;

  // Reads the hidden states that a session or a node has, see GenerateRequest::taps. A node's are read without
  // restoring it. FAILED_PRECONDITION, reason NOT_TAPPED, when nothing was captured; INVALID_ARGUMENT for layers or
  // tokens that were not; DATA_LOSS when stored or received bytes are damaged.
  absl::StatusOr<HiddenStates> ReadTaps(const ReadTapsRequest& request, const CallOptions& options = {}) const;

  // Returns one node. NOT_FOUND when there is none of that name.
  absl::StatusOr<Node> GetNode(const GetNodeRequest& request, const CallOptions& options = {}) const;

  // Lists nodes, page by page.
  absl::StatusOr<ListNodesResponse> ListNodes(const ListNodesRequest& request = {},
                                              const CallOptions& options = {}) const;

  // Changes labels, rewards or note of a node and returns it; its state never changes. ABORTED when the etag is not the
  // node's any more.
  absl::StatusOr<Node> UpdateNode(UpdateNodeRequest request, const CallOptions& options = {}) const;

  // Deletes a node. FAILED_PRECONDITION when it has children and `force` is not set; ABORTED on a wrong etag.
  absl::StatusOr<DeleteNodeResponse> DeleteNode(DeleteNodeRequest request, const CallOptions& options = {}) const;

  // Walks from a node along the edges.
  absl::StatusOr<TraverseResponse> Traverse(const TraverseRequest& request, const CallOptions& options = {}) const;

  // Reads everything that a node refers to and checks it. DATA_LOSS, which names the part, when it is not whole.
  absl::StatusOr<VerifyNodeResponse> VerifyNode(const VerifyNodeRequest& request,
                                                const CallOptions& options = {}) const;

  // Encodes a node's state as latents, measures how faithful they are, and stores them beside the blocks as saved, or
  // in their place; an equal encoding is replaced. Success without an encoding means that nothing kept to the budget.
  // FAILED_PRECONDITION, reason NO_PROFILE, when the server has no such profile (see ListProfiles); and, reason
  // SAVED_BLOCKS_DROPPED, when the blocks as saved are gone. Takes as long as generating.
  absl::StatusOr<EncodeNodeResponse> EncodeNode(EncodeNodeRequest request, const CallOptions& options = {}) const;

  // Drops an encoding, its residual, or the blocks as saved, and returns the node. NOT_FOUND when the node does not
  // have it; FAILED_PRECONDITION, reason LAST_ENCODING, when nothing would be left.
  absl::StatusOr<Node> DropEncoding(DropEncodingRequest request, const CallOptions& options = {}) const;

  // Returns what runs on the server: version, model, engine, store and limits.
  absl::StatusOr<ServerStatus> GetStatus(const CallOptions& options = {}) const;

  // Removes blocks that nothing refers to, and expired request ids. After a retry the counts may be of the last
  // attempt.
  absl::StatusOr<CollectGarbageResponse> CollectGarbage(const CallOptions& options = {}) const;

  // Lists the profiles of codecs that the server has for its model; EncodeNode chooses among them.
  absl::StatusOr<ListProfilesResponse> ListProfiles(const CallOptions& options = {}) const;

  // Has the server load a profile from a file on its own machine, and store it for good; one that it has already is
  // left. NOT_FOUND when the server cannot read the file, FAILED_PRECONDITION when it is another model's.
  absl::StatusOr<Profile> LoadProfile(const LoadProfileRequest& request, const CallOptions& options = {}) const;

  // Returns whether the server (empty name), or one of its services, is able to serve. NOT_FOUND for an unknown
  // service.
  absl::StatusOr<Health> CheckHealth(absl::string_view service = "", const CallOptions& options = {}) const;

 private:
  std::shared_ptr<Connection> connection_;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_H_
