#include "server/sidecar/trial_totals.h"

namespace quicksave::server {
namespace {

// 10^6 bytes a second; 0 for times too short to be measured.
double Speed(int64_t bytes, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  return seconds > 0 ? static_cast<double>(bytes) / seconds / 1e6 : 0;
}

}  // namespace

absl::Status TrialTotals::Add(int tokens, int64_t raw_bytes, const CodecCost& cost,
                              const metrics::DivergenceRows& divergence) {
  if (absl::Status status = divergence_.Append(divergence); !status.ok()) return status;
  ++texts_;
  tokens_ += tokens;
  raw_bytes_ += raw_bytes;
  cost_.stored_bytes += cost.stored_bytes;
  cost_.payload_bytes += cost.payload_bytes;
  cost_.encode += cost.encode;
  cost_.decode += cost.decode;
  return absl::OkStatus();
}

absl::StatusOr<metrics::RateDistortionPoint> TrialTotals::ToPoint() const {
  const absl::StatusOr<metrics::DivergenceSummary> summary = divergence_.Summarize();
  if (!summary.ok()) return summary.status();
  const auto raw = static_cast<double>(raw_bytes_);
  return metrics::RateDistortionPoint{
      .context_tokens = tokens_ / texts_,
      .effective_ratio = raw / static_cast<double>(cost_.stored_bytes),
      .nominal_ratio = raw / static_cast<double>(cost_.payload_bytes),
      .mean_kl = summary->kl.mean,
      .p99_kl = summary->kl.p99,
      .top_1_agreement = summary->top_1_agreement,
      .perplexity_ratio = summary->perplexity_ratio.value_or(1),
      .bytes_per_token = static_cast<double>(cost_.stored_bytes) / static_cast<double>(tokens_),
      .encode_mb_per_s = Speed(raw_bytes_, cost_.encode),
      .decode_mb_per_s = Speed(raw_bytes_, cost_.decode),
      .scored_tokens = static_cast<int64_t>(summary->kl.count)};
}

}  // namespace quicksave::server
