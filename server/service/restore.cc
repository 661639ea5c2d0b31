#include "server/service/restore.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/scheduler/evaluate_job.h"
#include "server/service/convert.h"
#include "server/service/distribution.h"
#include "server/service/scheduler_replayer.h"
#include "server/service/tap_request.h"
#include "storage/error_reason.h"

namespace quicksave::server {
namespace {

struct Evaluated {
  engine::Sequence sequence;  // shares all pages but that of the last token
  std::shared_ptr<const engine::Logits> logits;
  engine::Taps taps;  // of the last token, when the state captures hidden states
};

// Feeds the last token of a state again, on a copy.
absl::StatusOr<Evaluated> EvaluateLastToken(Core& core, const SessionState& state, const CallContext& call) {
  const engine::Sequence& sequence = state.sequence;
  Evaluated evaluated{sequence, nullptr, {}};
  evaluated.sequence.Truncate(sequence.length() - 1);
  const auto job = std::make_shared<EvaluateJob>(
      std::move(evaluated.sequence), std::vector<int32_t>{sequence.tokens().back()}, engine::LogitsWanted::kLast,
      [&evaluated](size_t, absl::Span<const float> logits) {
        evaluated.logits = std::make_shared<const engine::Logits>(logits.begin(), logits.end());
      });
  job->client = call.client;
  job->deadline = call.deadline;
  job->set_cancelled(call.cancelled);
  if (const engine::TapExtent extent = state.taps.extent(); extent.on()) {
    job->set_taps(engine::Taps({.layers = extent.spec.layers}, extent.hidden_size));
  }
  absl::StatusOr<engine::PageReservation> pages = core.broker->ReserveFew(job->sequence().PagesToAppend(1), call);
  if (!pages.ok()) return pages.status();
  job->reservation = *std::move(pages);
  if (absl::Status status = core.scheduler->Run(job, 1); !status.ok()) return status;
  evaluated.sequence = job->sequence();
  evaluated.taps = job->captured();
  return evaluated;
}

// A state that captures its last token's hidden states has them again, after a rewind.
void CompleteTaps(const Evaluated& evaluated, SessionState& state) {
  const engine::TapExtent extent = state.taps.extent();
  if (extent.on() && !extent.spec.all_tokens && extent.token_count == 0) state.taps = evaluated.taps;
}

void CompareLogits(const engine::Logits& stored, const engine::Logits& now, v1::DistributionCheck* check) {
  const DistributionDistance distance = CompareDistributions(stored, now);
  check->set_logits_compared(static_cast<int32_t>(stored.size()));
  check->set_outcome(distance.same_bits ? v1::DistributionCheck::OUTCOME_IDENTICAL
                                        : v1::DistributionCheck::OUTCOME_UNSPECIFIED);
  check->set_kl_divergence(distance.kl);
  check->set_max_abs_difference(distance.largest_difference);
}

// The stored logits and those of now must have the same bits.
absl::Status ProveLogits(const std::string& node, const engine::Logits& stored, const engine::Logits& now,
                         v1::DistributionCheck* check) {
  CompareLogits(stored, now, check);
  if (check->outcome() == v1::DistributionCheck::OUTCOME_IDENTICAL) return absl::OkStatus();
  return storage::WithReason(
      "PROOF_FAILED",
      absl::DataLossError(absl::StrCat(node, ": the restored next-token distribution is not the saved one: KL ",
                                       check->kl_divergence(), ", largest difference ", check->max_abs_difference())));
}

// A state whose last token was decoded from a latent, now or before it was saved: the model computes other K and V for
// it. The decoded values were checked against those that were measured, and so is the distribution.
absl::Status ProveLossy(const std::string& node, const RestoreReport& report, std::shared_ptr<const engine::Logits> now,
                        SessionState& state, v1::DistributionCheck* check) {
  check->set_outcome(v1::DistributionCheck::OUTCOME_VALUES_AS_MEASURED);
  // What was saved after a lossy restore was computed from the same decoded values.
  if (report.exact && state.sequence.next_logits() != nullptr) {
    return ProveLogits(node, *state.sequence.next_logits(), *now, check);
  }
  if (state.sequence.next_logits() != nullptr && report.fidelity) {
    CompareLogits(*state.sequence.next_logits(), *now, check);
    check->set_outcome(v1::DistributionCheck::OUTCOME_AS_MEASURED);
    const double measured = report.fidelity->next_token_kl();
    // Room for another CPU's rounding of sums in double.
    if (!(std::abs(check->kl_divergence() - measured) <= 1e-6 + 1e-3 * measured)) {
      return storage::WithReason("PROOF_FAILED",
                                 absl::DataLossError(absl::StrCat(
                                     node, ": the restored next-token distribution diverges from the saved one by ",
                                     check->kl_divergence(), " nats; measured were ", measured)));
    }
  }
  state.sequence.set_next_logits(std::move(now));
  return absl::OkStatus();
}

absl::Status Prove(Core& core, const std::string& node, const RestoreReport& report, SessionState& state,
                   const CallContext& call, v1::DistributionCheck* check) {
  absl::StatusOr<Evaluated> evaluated = EvaluateLastToken(core, state, call);
  if (!evaluated.ok()) return evaluated.status();
  if (state.sequence.lossy_tokens() == state.sequence.length()) {
    CompleteTaps(*evaluated, state);
    return ProveLossy(node, report, std::move(evaluated->logits), state, check);
  }
  const int last = state.sequence.length() - 1;
  if (!engine::SameKeyValues(state.sequence, evaluated->sequence, last)) {
    return storage::WithReason(
        "PROOF_FAILED",
        absl::DataLossError(absl::StrCat(node, ": the K and V restored for token ", last,
                                         " are not what the model computes there from the restored tokens before it")));
  }
  if (state.taps.Has(last) && !engine::SameTaps(state.taps, evaluated->taps, last)) {
    return storage::WithReason(
        "PROOF_FAILED",
        absl::DataLossError(absl::StrCat(node, ": the hidden states restored for token ", last,
                                         " are not what the model computes there from the restored tokens before it")));
  }
  CompleteTaps(*evaluated, state);
  if (state.sequence.next_logits() == nullptr) {
    check->set_outcome(v1::DistributionCheck::OUTCOME_KV_IDENTICAL);
    state.sequence.set_next_logits(std::move(evaluated->logits));
    return absl::OkStatus();
  }
  return ProveLogits(node, *state.sequence.next_logits(), *evaluated->logits, check);
}

}  // namespace

absl::StatusOr<ProvenState> RestoreWithProof(Core& core, const std::string& node, std::optional<int> at_token,
                                             bool skip_check, const CallContext& call, const StartUse& use) {
  const absl::Time start = absl::Now();
  const absl::StatusOr<std::string> id = ParseName(node, "nodes");
  if (!id.ok()) return id.status();
  ProvenState proven;
  const auto reserve = [&](int tokens, int room) -> absl::StatusOr<engine::PageReservation> {
    // Nobody waits while holding pages, also where a restore begins again.
    proven.pages = {};
    const int pages = engine::PagesFor(room);
    absl::StatusOr<engine::PageReservation> all = core.broker->Reserve(pages + use.growth(tokens), call);
    if (!all.ok()) return all.status();
    engine::PageReservation reserved = all->Split(pages);
    proven.pages = *std::move(all);
    return reserved;
  };
  SchedulerReplayer replayer(core.scheduler.get(), core.decoder->config(), call);
  absl::StatusOr<RestoredState> restored =
      core.archive->Restore(Core::kTenant, *id,
                            {.at_token = at_token,
                             .reserve = reserve,
                             .admit_taps = [&](int64_t bytes) { return AdmitNodeTaps(core, node, bytes); },
                             .without_taps = !use.taps,
                             .replayer = &replayer,
                             .preference = use.preference});
  if (!restored.ok()) return restored.status();
  proven.state = std::move(restored->state);
  v1::Proof& proof = proven.proof;
  proof.set_tokens_reused(proven.state.sequence.length() - restored->report.recomputed_tokens);
  proof.set_tokens_recomputed(restored->report.recomputed_tokens);
  proof.set_layers_recomputed(restored->report.replayed_layers);
  proof.set_exact(restored->report.exact);
  ToProto(restored->report.estimate, proof.mutable_estimate());
  if (restored->report.encoding) ToProto(*restored->report.encoding, proof.mutable_encoding());
  if (restored->report.fidelity) {
    ToProto(*restored->report.fidelity, v1::NODE_VIEW_FULL, proof.mutable_encoding()->mutable_fidelity());
  }
  proof.set_bytes_read(restored->report.bytes_read);
  // The archive counts the logits too.
  const auto& logits = proven.state.sequence.next_logits();
  const int64_t logits_bytes = logits == nullptr ? 0 : static_cast<int64_t>(logits->size() * sizeof(float));
  proof.set_bytes_restored(restored->report.bytes_restored - logits_bytes);
  proof.set_codec(restored->report.codec);
  const absl::Time check_start = absl::Now();
  if (skip_check) {
    proof.mutable_check()->set_outcome(v1::DistributionCheck::OUTCOME_SKIPPED);
    // Those that were saved are another state's.
    if (!restored->report.exact) proven.state.sequence.set_next_logits(nullptr);
  } else if (absl::Status status = Prove(core, node, restored->report, proven.state, call, proof.mutable_check());
             !status.ok()) {
    return status;
  }
  const absl::Time end = absl::Now();
  ToProto(restored->report.read, proof.mutable_timing()->mutable_read());
  ToProto(restored->report.decode, proof.mutable_timing()->mutable_decode());
  ToProto(restored->report.load, proof.mutable_timing()->mutable_load());
  ToProto(restored->report.replay, proof.mutable_timing()->mutable_replay());
  ToProto(end - check_start, proof.mutable_timing()->mutable_check());
  ToProto(end - start, proof.mutable_timing()->mutable_total());
  return proven;
}

absl::StatusOr<engine::Sequence> RestorePrefix(Core& core, const StoredPrefix& prefix, engine::PageReservation& pages,
                                               const CallContext& call) {
  SchedulerReplayer replayer(core.scheduler.get(), core.decoder->config(), call);
  const auto reserve = [&pages](int /*tokens*/, int room) -> absl::StatusOr<engine::PageReservation> {
    const int needed = engine::PagesFor(room);
    if (needed <= pages.pages()) return pages.Split(needed);
    return absl::ResourceExhaustedError("restoring it takes more pages than was planned");
  };
  absl::StatusOr<RestoredState> restored = core.archive->Restore(prefix.tenant, prefix.node_id,
                                                                 {.at_token = prefix.tokens,
                                                                  .reserve = reserve,
                                                                  .without_taps = true,
                                                                  .replayer = &replayer,
                                                                  .preference = {.exact_only = true}});
  if (!restored.ok()) return restored.status();
  const std::string name = absl::StrCat("nodes/", prefix.node_id);
  if (!restored->report.exact || restored->state.sequence.lossy_tokens() > 0) {
    return absl::DataLossError(absl::StrCat(name, ": its state is not what the model computes from its tokens"));
  }
  v1::DistributionCheck check;
  absl::Status proved = Prove(core, name, restored->report, restored->state, call, &check);
  if (!proved.ok()) return proved;
  return std::move(restored->state.sequence);
}

absl::Status CompleteDecoded(Core& core, SessionState& state, const CallContext& call) {
  const int length = state.sequence.length();
  const bool taps_missing = state.taps.on() && !state.taps.Has(length - 1);
  if (length == 0 || state.sequence.lossy_tokens() < length) return absl::OkStatus();
  if (state.sequence.next_logits() != nullptr && !taps_missing) return absl::OkStatus();
  absl::StatusOr<Evaluated> evaluated = EvaluateLastToken(core, state, call);
  if (!evaluated.ok()) return evaluated.status();
  state.sequence.set_next_logits(std::move(evaluated->logits));
  if (!taps_missing) return absl::OkStatus();
  float* const rows = state.taps.Append(length - 1, 1).front();
  if (rows == nullptr) return absl::OkStatus();
  const engine::TapExtent extent = state.taps.extent();
  for (size_t layer = 0; layer < extent.spec.layers.size(); ++layer) {
    const absl::Span<const float> row = evaluated->taps.Row(static_cast<int>(layer), length - 1);
    std::copy(row.begin(), row.end(), rows + layer * extent.hidden_size);
  }
  return absl::OkStatus();
}

absl::Status EnsureLogits(Core& core, SessionState& state, const CallContext& call) {
  if (state.sequence.next_logits() != nullptr) return absl::OkStatus();
  if (state.sequence.length() == 0) return absl::FailedPreconditionError("the session has no tokens yet");
  absl::StatusOr<Evaluated> evaluated = EvaluateLastToken(core, state, call);
  if (!evaluated.ok()) return evaluated.status();
  CompleteTaps(*evaluated, state);
  state.sequence.set_next_logits(std::move(evaluated->logits));
  return absl::OkStatus();
}

}  // namespace quicksave::server
