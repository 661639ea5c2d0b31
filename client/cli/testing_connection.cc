#include "client/cli/testing_connection.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quicksave::cli {
namespace {

using client::CallOptions;

constexpr size_t kPage = 2;

template <typename Resource>
absl::StatusOr<Resource> Find(const std::vector<Resource>& resources, const std::string& name) {
  const auto found = std::find_if(resources.begin(), resources.end(),
                                  [&name](const Resource& resource) { return resource.name == name; });
  if (found == resources.end()) return absl::NotFoundError(absl::StrCat("no ", name));
  return *found;
}

// Returns the page that begins at `token`, and the token of the next.
template <typename Resource>
std::vector<Resource> PageOf(const std::vector<Resource>& all, const std::string& token, std::string* next) {
  size_t first = 0;
  if (!token.empty() && !absl::SimpleAtoi(token, &first)) return {};
  const size_t last = std::min(first + kPage, all.size());
  if (last < all.size()) *next = absl::StrCat(last);
  return {all.begin() + first, all.begin() + last};
}

}  // namespace

TestingConnection::TestingConnection() : proof(TestingProof()) {}

absl::StatusOr<client::GenerateFinished> TestingConnection::Generate(const client::GenerateRequest& request,
                                                                     client::GenerateCallback callback,
                                                                     const CallOptions& call) {
  {
    const absl::MutexLock lock(&mutex_);
    generated.push_back(request);
    options.push_back(call);
  }
  if (!failure.ok()) return failure;
  const auto* goes_on = std::get_if<client::FromSession>(&request.start);
  if (goes_on != nullptr && goes_on->name == failing_session) return absl::DataLossError("this session fails");
  client::GenerateStarted started = new_session;
  if (const auto* session = std::get_if<client::FromSession>(&request.start)) started.session = session->name;
  if (std::holds_alternative<client::FromNode>(request.start)) started.proof = TestingProof();
  client::GenerateFinished finished{.reason = client::FinishReason::kMaxTokens,
                                    .generated_tokens = 2,
                                    .token_count = 5,
                                    .pending_text = "...",
                                    .session = request.keep_session ? started.session : "",
                                    .prefill_time = absl::Milliseconds(5),
                                    .decode_time = absl::Milliseconds(100)};
  std::string echo = "Hello";
  if (const auto* prompt = std::get_if<std::string>(&request.input)) echo = *prompt;
  if (const auto* chat = std::get_if<std::vector<client::ChatMessage>>(&request.input)) echo = chat->back().content;
  std::vector<client::GenerateEvent> events = {
      started, client::GenerateDelta{.text = echo, .tokens = {{.id = 7}}},
      client::GenerateDelta{.text = "!", .tokens = {{.id = 8, .logprob = -0.5f}}}};
  if (request.save) {
    client::SavedNode saved;
    saved.node = TestingNode("aaaa000011112222");
    saved.node.labels = request.save->labels;
    saved.report.total = absl::Milliseconds(15);
    events.emplace_back(saved);
  }
  events.emplace_back(finished);
  for (const client::GenerateEvent& event : events) {
    on_event();
    if (call.cancellation && call.cancellation->cancelled()) return absl::CancelledError("cancelled");
    if (!callback(event)) return absl::CancelledError("refused");
  }
  return finished;
}

absl::StatusOr<client::SavedNode> TestingConnection::Snapshot(const client::SnapshotRequest& request,
                                                              const CallOptions& call) {
  snapshots.push_back(request);
  if (!failure.ok()) return failure;
  client::SavedNode saved;
  saved.node = TestingNode("aaaa000011112222");
  saved.node.labels = request.save.labels;
  saved.report = {.new_blocks = 1,
                  .shared_blocks = 2,
                  .gather = absl::Milliseconds(1),
                  .encode = absl::Milliseconds(9),
                  .commit = absl::Milliseconds(4),
                  .total = absl::Milliseconds(15)};
  return saved;
}

absl::StatusOr<client::RestoreResponse> TestingConnection::Restore(const client::RestoreRequest& request,
                                                                   const CallOptions& call) {
  restores.push_back(request);
  if (!failure.ok()) return failure;
  client::RestoreResponse response;
  response.session.name = "sessions/restored1";
  response.session.node = request.node;
  response.session.token_count = request.at_token.value_or(120);
  response.proof = proof;
  return response;
}

absl::StatusOr<client::BranchResponse> TestingConnection::Branch(const client::BranchRequest& request,
                                                                 const CallOptions& call) {
  branches.push_back(request);
  if (!failure.ok()) return failure;
  const int32_t count = request.count.value_or(std::max<int32_t>(static_cast<int32_t>(request.seeds.size()), 1));
  client::BranchResponse response{.branch_time = absl::Microseconds(80)};
  for (int32_t i = 0; i < count; ++i) {
    client::Session session{.name = absl::StrCat("sessions/branch", i + 1), .token_count = 120, .pages = 8};
    if (static_cast<size_t>(i) < request.seeds.size()) session.sampling.seed = request.seeds[i];
    response.sessions.push_back(session);
  }
  return response;
}

absl::StatusOr<client::ScoreResponse> TestingConnection::Score(const client::ScoreRequest& request,
                                                               const CallOptions& call) {
  scores.push_back(request);
  if (!failure.ok()) return failure;
  client::ScoreResponse response;
  for (size_t i = 0; i < request.continuations.size(); ++i) {
    client::Token token{.id = 42, .logprob = -0.5f};
    if (request.top_k > 0) token.top = {{.id = 42, .text = " Paris", .logprob = -0.5f}};
    response.scores.push_back({.tokens = {token, token}, .total_logprob = -1.0});
  }
  return response;
}

absl::StatusOr<client::Session> TestingConnection::GetSession(const client::GetSessionRequest& request,
                                                              const CallOptions& call) {
  return Find(sessions, request.name);
}

absl::StatusOr<client::ListSessionsResponse> TestingConnection::ListSessions(const client::ListSessionsRequest& request,
                                                                             const CallOptions& call) {
  client::ListSessionsResponse response;
  response.sessions = PageOf(sessions, request.page_token, &response.next_page_token);
  return response;
}

absl::Status TestingConnection::DeleteSession(const client::DeleteSessionRequest& request, const CallOptions& call) {
  deleted_sessions.push_back(request.name);
  return failure;
}

absl::StatusOr<client::HiddenStates> TestingConnection::ReadTaps(const client::ReadTapsRequest& request,
                                                                 const CallOptions& call) {
  tap_reads.push_back(request);
  if (!failure.ok()) return failure;
  return client::HiddenStates{.layers = {3, 7},
                              .first_token = 5,
                              .token_count = 2,
                              .hidden_size = 2,
                              .model_fingerprint = "abc",
                              .values = {3, 4, 6, 8, 0, 1, 1, 0}};
}

absl::StatusOr<client::Node> TestingConnection::GetNode(const client::GetNodeRequest& request,
                                                        const CallOptions& call) {
  options.push_back(call);
  return Find(nodes, request.name);
}

absl::StatusOr<client::ListNodesResponse> TestingConnection::ListNodes(const client::ListNodesRequest& request,
                                                                       const CallOptions& call) {
  node_lists.push_back(request);
  client::ListNodesResponse response;
  response.nodes = PageOf(nodes, request.page_token, &response.next_page_token);
  if (response.next_page_token.empty()) response.unreadable = unreadable;
  return response;
}

absl::StatusOr<client::Node> TestingConnection::UpdateNode(const client::UpdateNodeRequest& request,
                                                           const CallOptions& call) {
  updates.push_back(request);
  return failure.ok() ? Find(nodes, request.name) : failure;
}

absl::StatusOr<client::DeleteNodeResponse> TestingConnection::DeleteNode(const client::DeleteNodeRequest& request,
                                                                         const CallOptions& call) {
  deleted_nodes.push_back(request);
  if (!failure.ok()) return failure;
  return client::DeleteNodeResponse{.deleted_nodes = request.force ? 3 : 1};
}

absl::StatusOr<client::TraverseResponse> TestingConnection::Traverse(const client::TraverseRequest& request,
                                                                     const CallOptions& call) {
  traversals.push_back(request);
  if (!failure.ok()) return failure;
  return client::TraverseResponse{.nodes = nodes};
}

absl::StatusOr<client::VerifyNodeResponse> TestingConnection::VerifyNode(const client::VerifyNodeRequest& request,
                                                                         const CallOptions& call) {
  if (!failure.ok()) return failure;
  return client::VerifyNodeResponse{
      .blocks_checked = 2, .bytes_read = 2'000'000, .tokens_replayed = request.replay ? 120 : 0};
}

absl::StatusOr<client::EncodeNodeResponse> TestingConnection::EncodeNode(const client::EncodeNodeRequest& request,
                                                                         const CallOptions& call) {
  encodes.push_back(request);
  if (!failure.ok()) return failure;
  client::EncodeNodeResponse response{.trials = trials, .total = absl::Milliseconds(250)};
  for (const client::EncodingTrial& trial : trials) {
    if (trial.within_budget) response.encoding = trial.encoding;
  }
  const absl::StatusOr<client::Node> node = Find(nodes, request.name);
  if (!node.ok()) return node.status();
  response.node = *node;
  return response;
}

absl::StatusOr<client::Node> TestingConnection::DropEncoding(const client::DropEncodingRequest& request,
                                                             const CallOptions& call) {
  drops.push_back(request);
  return failure.ok() ? Find(nodes, request.name) : failure;
}

absl::StatusOr<client::ServerStatus> TestingConnection::GetStatus(const CallOptions& call) {
  if (!failure.ok()) return failure;
  client::ServerStatus status;
  status.server = {.version = "0.1.0", .start_time = absl::FromUnixSeconds(1'700'000'000), .durability = "sync"};
  status.model.name = "SmolLM2-135M-Instruct";
  status.engine = {.sessions = 2, .pages_used = 10, .pages_total = 100, .page_tokens = 16, .page_bytes = 368'640};
  status.limits.max_sessions = 64;
  return status;
}

absl::StatusOr<client::CollectGarbageResponse> TestingConnection::CollectGarbage(const CallOptions& call) {
  if (!failure.ok()) return failure;
  return client::CollectGarbageResponse{.removed_blocks = 3, .removed_bytes = 3'000'000, .removed_requests = 1};
}

absl::StatusOr<client::ListProfilesResponse> TestingConnection::ListProfiles(const CallOptions& call) {
  if (!failure.ok()) return failure;
  return client::ListProfilesResponse{.profiles = profiles};
}

absl::StatusOr<client::Profile> TestingConnection::LoadProfile(const client::LoadProfileRequest& request,
                                                               const CallOptions& call) {
  loaded_profiles.push_back(request.path);
  if (!failure.ok()) return failure;
  return profiles.front();
}

absl::StatusOr<client::Health> TestingConnection::CheckHealth(absl::string_view service, const CallOptions& call) {
  if (!failure.ok()) return failure;
  return health;
}

client::Node TestingNode(const std::string& id, const std::string& parent_id, int32_t at_token, client::EdgeType type) {
  client::Node node;
  node.name = absl::StrCat("nodes/", id);
  node.token_count = 128;
  if (!parent_id.empty()) {
    node.parents.push_back({.parent = absl::StrCat("nodes/", parent_id), .type = type, .at_token = at_token});
  }
  node.create_time = absl::FromUnixSeconds(1'700'000'000);
  node.storage.codec = "exact";
  node.storage.raw_bytes = 2'949'120;
  node.storage.stored_bytes = 1'890'000;
  node.storage.added_bytes = 310'000;
  node.storage.ratio = 1.56;
  node.storage.blocks = 1;
  node.text_tail = "is Paris.\nAnd";
  return node;
}

client::Proof TestingProof() {
  client::Proof proof;
  proof.tokens_reused = 120;
  proof.bytes_read = 1'200'000;
  proof.bytes_restored = 2'764'800;
  proof.codec = "exact";
  proof.check.outcome = client::CheckOutcome::kIdentical;
  proof.check.logits_compared = 49'152;
  proof.timing.total = absl::Microseconds(12'300);
  proof.exact = true;
  proof.estimate = absl::Microseconds(9'000);
  return proof;
}

client::Encoding TestingEncoding(int32_t split, float step) {
  return {.codec = "latent",
          .profile = "3eb8bc5a07a50c1f8ac1875c803c1c8c",
          .split = split,
          .step = step,
          .raw_bytes = 2'949'120,
          .stored_bytes = 294'912,
          .ratio = 10,
          .fidelity = client::Fidelity{.mean_kl = 0.00213, .max_kl = 0.0341, .top1_agreement = 0.984}};
}

}  // namespace quicksave::cli
