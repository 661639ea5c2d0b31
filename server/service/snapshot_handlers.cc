#include "server/service/snapshot_handlers.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/service/convert.h"
#include "server/service/graph_handlers.h"
#include "server/service/restore.h"
#include "server/service/saving.h"
#include "server/service/start_state.h"

namespace quicksave::server {
namespace {

constexpr int kMaxPageSize = 1000;
constexpr int kDefaultPageSize = 100;

// Encodes the node that was just saved. Its save stands, whatever comes of this.
void EncodeSaved(Core& core, const CallContext& call, const v1::SnapshotRequest& request,
                 v1::SnapshotResponse& response) {
  v1::EncodeNodeRequest encode;
  encode.set_name(response.node().name());
  *encode.mutable_encoding() = request.encoding();
  *encode.mutable_budget() = request.budget();
  encode.set_drop_saved(request.drop_saved());
  v1::EncodeNodeResponse encoded;
  const absl::Status status = EncodeNode(core, call, encode, encoded);
  if (!status.ok()) {
    response.set_encoding_error(absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message()));
    return;
  }
  *response.mutable_node() = std::move(*encoded.mutable_node());
  if (encoded.has_encoding()) *response.mutable_encoding() = std::move(*encoded.mutable_encoding());
}

// Saves session `id`.
absl::Status Save(Core& core, const CallContext& call, const std::string& id, const v1::SnapshotRequest& request,
                  const std::optional<storage::RequestIdentity>& identity, v1::SnapshotResponse& response) {
  absl::StatusOr<TakenSession> taken = CaptureWithTokens(core, request.session(), call);
  if (!taken.ok()) return taken.status();
  SessionState& state = taken->state;
  if (absl::Status status = EnsureLogits(core, state, call); !status.ok()) return status;
  std::optional<storage::AnsweredRequest<storage::NodeRecord>> answered;
  if (identity) {
    answered = {*identity, [&core](const storage::NodeRecord& record) {
                  v1::SnapshotResponse answer;
                  ToProto(record, core, v1::NODE_VIEW_BASIC, answer.mutable_node());
                  return answer.SerializeAsString();
                }};
  }
  absl::StatusOr<SavedNode> saved = SaveState(core, state, request.save(), std::move(answered));
  if (!saved.ok()) return saved.status();
  core.sessions->SetOrigin(id, saved->origin, state.sequence.length());
  ToProto(saved->record, core, v1::NODE_VIEW_BASIC, response.mutable_node());
  ToProto(saved->report, response.mutable_report());
  return absl::OkStatus();
}

}  // namespace

absl::Status Snapshot(Core& core, const CallContext& call, const v1::SnapshotRequest& request,
                      v1::SnapshotResponse& response) {
  const absl::StatusOr<std::string> id = ParseName(request.session(), "sessions");
  if (!id.ok()) return id.status();
  if (absl::Status status = CheckSaveOptions(request.save()); !status.ok()) return status;
  if (!request.has_encoding() && (request.has_budget() || request.drop_saved())) {
    return absl::InvalidArgumentError("budget and drop_saved are for an encoding: say which");
  }
  const auto save = [&](const std::optional<storage::RequestIdentity>& identity) -> absl::Status {
    if (absl::Status status = Save(core, call, *id, request, identity, response); !status.ok()) return status;
    // When the session's pages are let go of: encoding waits for pages of its own.
    if (request.has_encoding()) EncodeSaved(core, call, request, response);
    return absl::OkStatus();
  };
  return core.requests.RunOnNodes("Snapshot", request.request_id(), request, &response, save);
}

absl::Status Restore(Core& core, const CallContext& call, const v1::RestoreRequest& request,
                     v1::RestoreResponse& response) {
  return core.requests.RunOnSessions("Restore", request.request_id(), request, &response, [&]() -> absl::Status {
    const absl::StatusOr<absl::Duration> lease = Lease(core, request.has_lease(), request.lease());
    if (!lease.ok()) return lease.status();
    // Checked before the restore, so that bad settings cost nothing.
    const auto checked = FromProto(request.sampling(), {}, core.identity.vocab_size);
    if (!checked.ok()) return checked.status();
    if (absl::Status budget = CheckBudget(request.budget()); !budget.ok()) return budget;
    if (request.exact_only() && (request.budget().has_max_kl() || request.budget().has_min_top1())) {
      return absl::InvalidArgumentError("exact_only and budget exclude each other");
    }
    StartUse use;
    use.preference.exact_only = request.exact_only();
    if (request.budget().has_max_kl()) use.preference.max_kl = request.budget().max_kl();
    if (request.budget().has_min_top1()) use.preference.min_top1 = request.budget().min_top1();
    absl::StatusOr<ProvenState> proven =
        RestoreWithProof(core, request.node(), AtToken(request), request.skip_check(), call, use);
    if (!proven.ok()) return proven.status();
    const auto sampling = FromProto(request.sampling(), proven->state.sampling, core.identity.vocab_size);
    if (!sampling.ok()) return sampling.status();
    proven->state.sampling = *sampling;
    std::vector<SessionState> states = {std::move(proven->state)};
    const auto added = core.sessions->Add(std::move(states), *lease);
    if (!added.ok()) return added.status();
    ToProto(added->front(), core, response.mutable_session());
    *response.mutable_proof() = std::move(proven->proof);
    return absl::OkStatus();
  });
}

absl::Status Branch(Core& core, const CallContext& call, const v1::BranchRequest& request,
                    v1::BranchResponse& response) {
  const int count = request.has_count() ? request.count() : std::max(1, request.seeds_size());
  if (count < 1 || count > core.sessions->options().max_sessions) {
    return absl::InvalidArgumentError(absl::StrCat("count is ", count, "; it must be from 1 to max_sessions, ",
                                                   core.sessions->options().max_sessions));
  }
  if (request.seeds_size() != 0 && request.seeds_size() != count) {
    return absl::InvalidArgumentError(absl::StrCat("there are ", request.seeds_size(), " seeds for ", count,
                                                   " branches; give one for each branch, or none"));
  }
  return core.requests.RunOnSessions("Branch", request.request_id(), request, &response, [&]() -> absl::Status {
    const absl::StatusOr<absl::Duration> lease = Lease(core, request.has_lease(), request.lease());
    if (!lease.ok()) return lease.status();
    const auto checked = FromProto(request.sampling(), {}, core.identity.vocab_size);
    if (!checked.ok()) return checked.status();
    absl::StatusOr<ProvenState> start = StartState(core, call, request);
    if (!start.ok()) return start.status();
    const absl::Time begin = absl::Now();
    const auto sampling = FromProto(request.sampling(), start->state.sampling, core.identity.vocab_size);
    if (!sampling.ok()) return sampling.status();
    start->state.sampling = *sampling;
    std::vector<SessionState> states(count, start->state);
    for (int i = 0; i < request.seeds_size(); ++i) states[i].sampling.seed = request.seeds(i);
    const auto added = core.sessions->Add(std::move(states), *lease);
    if (!added.ok()) return added.status();
    ToProto(absl::Now() - begin, response.mutable_branch_time());
    for (const SessionInfo& info : *added) ToProto(info, core, response.add_sessions());
    if (request.has_node()) *response.mutable_proof() = std::move(start->proof);
    return absl::OkStatus();
  });
}

absl::Status GetSession(Core& core, const CallContext& call, const v1::GetSessionRequest& request,
                        v1::GetSessionResponse& response) {
  const absl::StatusOr<std::string> id = ParseName(request.name(), "sessions");
  if (!id.ok()) return id.status();
  const absl::StatusOr<SessionInfo> info = core.sessions->Info(*id);
  if (!info.ok()) return info.status();
  ToProto(*info, core, response.mutable_session());
  if (request.view() != v1::SESSION_VIEW_FULL) return absl::OkStatus();
  const absl::StatusOr<TakenSession> taken = core.sessions->Capture(*id, call, NoGrowth);
  if (!taken.ok()) return taken.status();
  const std::vector<int32_t>& tokens = taken->state.sequence.tokens();
  response.mutable_session()->set_token_count(static_cast<int32_t>(tokens.size()));
  response.mutable_session()->mutable_token_ids()->Assign(tokens.begin(), tokens.end());
  response.mutable_session()->set_text(TextOf(core, tokens));
  const ConstraintState& constraint = taken->state.constraint;
  if (constraint.constraint != nullptr) ToProto(constraint, response.mutable_session()->mutable_constraint());
  return absl::OkStatus();
}

absl::Status ListSessions(Core& core, const CallContext&, const v1::ListSessionsRequest& request,
                          v1::ListSessionsResponse& response) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("page_size is ", request.page_size(), "; it must be from 0 to ", kMaxPageSize));
  }
  uint64_t after = 0;
  if (!request.page_token().empty() && !absl::SimpleAtoi(request.page_token(), &after)) {
    return absl::InvalidArgumentError("page_token is not one that ListSessions returned");
  }
  uint64_t last = 0;
  const size_t limit = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  for (const SessionInfo& info : core.sessions->List(after, limit, last)) ToProto(info, core, response.add_sessions());
  if (last != 0) response.set_next_page_token(absl::StrCat(last));
  return absl::OkStatus();
}

absl::Status DeleteSession(Core& core, const CallContext&, const v1::DeleteSessionRequest& request,
                           v1::DeleteSessionResponse&) {
  const absl::StatusOr<std::string> id = ParseName(request.name(), "sessions");
  if (!id.ok()) return id.status();
  return core.sessions->Delete(*id);
}

}  // namespace quicksave::server
