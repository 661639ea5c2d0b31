#include "server/service/fidelity_probe.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "server/archive/state_replay.h"
#include "server/scheduler/evaluate_job.h"
#include "server/service/distribution.h"

namespace quicksave::server {

absl::StatusOr<FidelityProbe> FidelityProbe::Create(Core& core, const engine::Sequence& saved,
                                                    const CallContext& call) {
  FidelityProbe probe(core, call);
  // As many tokens stand before those that are fed, besides the ones that no latent has: over nothing decoded there
  // would be nothing to measure.
  probe.tokens_ = std::min({kTokens, saved.length() - 1, std::max(1, (saved.length() - kRecomputedTokens) / 2)});
  if (probe.tokens_ == 0) return probe;
  absl::StatusOr<std::vector<float>> logits = probe.Evaluate(saved, probe.tokens_);
  if (!logits.ok()) return logits.status();
  probe.saved_ = *std::move(logits);
  // Those that were saved: over the state's own K and V, of which some may have been decoded from an ancestor's latent.
  logits = probe.Evaluate(saved, 1);
  if (!logits.ok()) return logits.status();
  probe.saved_next_ = *std::move(logits);
  return probe;
}

absl::Status FidelityProbe::Measure(const engine::Sequence& decoded, storage::v1::Fidelity& fidelity) const {
  const absl::Time start = absl::Now();
  fidelity.set_probe_tokens(static_cast<uint32_t>(tokens_));
  fidelity.set_top1_agreement(1);
  if (tokens_ == 0) return absl::OkStatus();
  const absl::StatusOr<std::vector<float>> logits = Evaluate(decoded, tokens_);
  if (!logits.ok()) return logits.status();
  // As a restore checks it: over the decoded K and V of all tokens before the last.
  const absl::StatusOr<std::vector<float>> next = Evaluate(decoded, 1);
  if (!next.ok()) return next.status();
  const size_t vocab = core_.identity.vocab_size;
  double sum = 0;
  double largest = 0;
  int same = 0;
  for (int i = 0; i < tokens_; ++i) {
    const DistributionDistance distance = CompareDistributions(absl::MakeConstSpan(saved_).subspan(i * vocab, vocab),
                                                               absl::MakeConstSpan(*logits).subspan(i * vocab, vocab));
    sum += distance.kl;
    largest = std::max(largest, distance.kl);
    same += distance.same_top ? 1 : 0;
  }
  fidelity.set_mean_kl(sum / tokens_);
  fidelity.set_max_kl(largest);
  fidelity.set_top1_agreement(static_cast<double>(same) / tokens_);
  fidelity.set_next_token_kl(CompareDistributions(saved_next_, *next).kl);
  fidelity.set_cost_us(absl::ToInt64Microseconds(absl::Now() - start));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> FidelityProbe::Evaluate(const engine::Sequence& state, int count) const {
  engine::Sequence sequence = state;
  sequence.Truncate(state.length() - count);
  const std::vector<int32_t> tokens(state.tokens().end() - count, state.tokens().end());
  std::vector<float> logits;
  const auto job = std::make_shared<EvaluateJob>(
      std::move(sequence), tokens, engine::LogitsWanted::kAll,
      [&logits](size_t, absl::Span<const float> rows) { logits.insert(logits.end(), rows.begin(), rows.end()); });
  job->client = call_.client;
  job->deadline = call_.deadline;
  job->set_cancelled(call_.cancelled);
  absl::StatusOr<engine::PageReservation> pages = core_.broker->ReserveFew(job->sequence().PagesToAppend(count), call_);
  if (!pages.ok()) return pages.status();
  job->reservation = *std::move(pages);
  if (absl::Status status = core_.scheduler->Run(job, job->count()); !status.ok()) return status;
  return logits;
}

}  // namespace quicksave::server
