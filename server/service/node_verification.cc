// VerifyNode, apart from the other handlers of GraphService: it needs the archive and the engine.

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/scheduler/evaluate_job.h"
#include "server/service/convert.h"
#include "server/service/graph_handlers.h"
#include "server/service/scheduler_replayer.h"
#include "server/service/tap_request.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

struct Replayed {
  engine::Sequence sequence;
  engine::Logits logits;  // after the last token
  engine::Taps taps;      // what the stored state has
};

// Computes a state from nothing but its token ids.
absl::StatusOr<Replayed> Replay(Core& core, const CallContext& call, const SessionState& stored,
                                engine::PageReservation pages) {
  Replayed replayed;
  const auto job = std::make_shared<EvaluateJob>(
      engine::Sequence(), stored.sequence.tokens(), engine::LogitsWanted::kLast,
      [&replayed](size_t, absl::Span<const float> logits) { replayed.logits.assign(logits.begin(), logits.end()); });
  job->client = call.client;
  job->deadline = call.deadline;
  job->set_cancelled(call.cancelled);
  job->reservation = std::move(pages);
  if (const engine::TapExtent extent = stored.taps.extent(); extent.token_count > 0) {
    job->set_taps(engine::Taps(extent.spec, extent.hidden_size, extent.first_token));
  }
  if (absl::Status status = core.scheduler->Run(job, job->count()); !status.ok()) return status;
  replayed.sequence = job->sequence();
  replayed.taps = job->captured();
  return replayed;
}

// DATA_LOSS, naming the first token that differs, unless every bit of K, V, logits and hidden states is the same.
absl::Status Compare(const std::string& node, const SessionState& state, const Replayed& replayed) {
  const engine::Sequence& stored = state.sequence;
  for (int position = 0; position < stored.length(); ++position) {
    if (engine::SameKeyValues(stored, replayed.sequence, position)) continue;
    return absl::DataLossError(absl::StrCat(node, ": the stored K and V of token ", position,
                                            " are not what the model computes from the stored token ids"));
  }
  const engine::TapExtent taps = state.taps.extent();
  for (int token = taps.first_token; token < taps.first_token + taps.token_count; ++token) {
    if (replayed.taps.Has(token) && engine::SameTaps(state.taps, replayed.taps, token)) continue;
    return absl::DataLossError(absl::StrCat(node, ": the stored hidden states of token ", token,
                                            " are not what the model computes from the stored token ids"));
  }
  const engine::Logits& logits = *stored.next_logits();
  if (logits.size() == replayed.logits.size() &&
      std::memcmp(logits.data(), replayed.logits.data(), logits.size() * sizeof(float)) == 0) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(node, ": the stored logits after token ", stored.length() - 1,
                                          " are not what the model computes from the stored token ids"));
}

// Returns the number of tokens that are the same.
absl::StatusOr<int> CheckByReplay(Core& core, const CallContext& call, const std::string& id) {
  const std::string node = absl::StrCat("nodes/", id);
  engine::PageReservation pages;
  const auto reserve = [&](int /*tokens*/, int room) -> absl::StatusOr<engine::PageReservation> {
    // For the stored state and the new one. Nobody waits while holding pages, also where a restore begins again.
    pages = {};
    absl::StatusOr<engine::PageReservation> both = core.broker->Reserve(2 * engine::PagesFor(room), call);
    if (!both.ok()) return both.status();
    pages = both->Split(engine::PagesFor(room));
    return both;
  };
  const auto admit = [&](int64_t bytes) { return AdmitNodeTaps(core, node, bytes); };
  SchedulerReplayer replayer(core.scheduler.get(), core.decoder->config(), call);
  const absl::StatusOr<RestoredState> restored = core.archive->Restore(
      Core::kTenant, id,
      {.reserve = reserve, .admit_taps = admit, .replayer = &replayer, .preference = {.exact_only = true}});
  if (!restored.ok()) return restored.status();
  const engine::Sequence& stored = restored->state.sequence;
  if (stored.lossy_tokens() > 0) {
    return storage::WithReason(
        "LOSSY_ANCESTRY",
        absl::FailedPreconditionError(absl::StrCat(
            node, " descends from a lossy restore: its first ", stored.lossy_tokens(),
            " tokens were decoded, so the state is not what the model computes from its token ids; verify it without "
            "replay")));
  }
  if (stored.next_logits() == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(node, " has no stored logits to compare with"));
  }
  const absl::StatusOr<Replayed> replayed = Replay(core, call, restored->state, std::move(pages));
  if (!replayed.ok()) return replayed.status();
  if (absl::Status status = Compare(node, restored->state, *replayed); !status.ok()) return status;
  return stored.length();
}

}  // namespace

absl::Status VerifyNode(Core& core, const CallContext& call, const v1::VerifyNodeRequest& request,
                        v1::VerifyNodeResponse& response) {
  const absl::StatusOr<std::string> id = ParseName(request.name(), "nodes");
  if (!id.ok()) return id.status();
  const absl::StatusOr<VerifiedNode> verified = core.archive->Verify(Core::kTenant, *id);
  if (!verified.ok()) return verified.status();
  response.set_blocks_checked(verified->blocks);
  response.set_bytes_read(verified->bytes_read);
  if (!request.replay()) return absl::OkStatus();
  const absl::StatusOr<int> tokens = CheckByReplay(core, call, *id);
  if (!tokens.ok()) return tokens.status();
  response.set_tokens_replayed(*tokens);
  return absl::OkStatus();
}

}  // namespace quicksave::server
