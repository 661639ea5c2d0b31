#include "server/sidecar/codec_trial.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/time/clock.h"
#include "compressor/container.h"
#include "compressor/latent/residual_codec.h"
#include "server/archive/block_pages.h"

namespace quicksave::server {
namespace {

double LogSumExp(absl::Span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float value : logits) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

// Adds the comparison of one row of logits; `next` is the token that follows.
void CompareRows(absl::Span<const float> live, absl::Span<const float> restored, int32_t next, TrialResult& result) {
  const double live_sum = LogSumExp(live);
  const double restored_sum = LogSumExp(restored);
  double kl = 0;
  for (size_t i = 0; i < live.size(); ++i) {
    const double p = live[i] - live_sum;
    kl += std::exp(p) * (p - (restored[i] - restored_sum));
  }
  result.kl.push_back(kl);
  result.same_top.push_back(std::max_element(live.begin(), live.end()) - live.begin() ==
                            std::max_element(restored.begin(), restored.end()) - restored.begin());
  if (next < 0) return;
  result.live_nll += live_sum - live[next];
  result.restored_nll += restored_sum - restored[next];
}

// Copies what a codec with this split does not store: the first layers of all tokens, and all layers of known tokens.
void CopyKnown(compressor::BlockView from, int split, int known_tokens, compressor::MutableBlockView to) {
  const size_t tokens = from.shape.tokens;
  const size_t known_values = (split + 1) * 2 * from.shape.channels_per_tensor() * tokens;
  std::copy_n(from.values.begin(), known_values, to.values.begin());
  for (size_t begin = known_values; begin < from.values.size(); begin += tokens) {
    std::copy_n(from.values.begin() + begin, known_tokens, to.values.begin() + begin);
  }
}

// Bytes of the residual that leads from `decoded` to `block`; decoding it is checked by the container.
absl::StatusOr<int64_t> TryResidual(const compressor::CodecRegistry& registry, compressor::BlockView block,
                                    compressor::MutableBlockView decoded, compressor::BlockContext context) {
  context.base = decoded.values;
  const auto bytes = compressor::EncodeBlock(registry, compressor::kResidualCodec, block, context);
  if (!bytes.ok()) return bytes.status();
  if (absl::Status status = compressor::DecodeBlock(registry, *bytes, context, decoded); !status.ok()) return status;
  return static_cast<int64_t>(bytes->size());
}

}  // namespace

absl::StatusOr<LiveText> RunLive(ModelRunner& runner, absl::Span<const int32_t> tokens, int context_tokens,
                                 const std::vector<int>& splits) {
  absl::StatusOr<RunText> context = runner.Run(tokens.first(context_tokens), splits);
  if (!context.ok()) return context.status();
  const auto rest = tokens.subspan(context_tokens);
  absl::StatusOr<std::vector<float>> logits = runner.Continue(context->sequence, rest);
  if (!logits.ok()) return logits.status();
  return LiveText{*std::move(context), {rest.begin(), rest.end()}, *std::move(logits)};
}

absl::StatusOr<TrialResult> TryCodec(ModelRunner& runner, const LiveText& live,
                                     const compressor::CodecRegistry& registry, const TrialOptions& options) {
  TrialResult result;
  const RunText& text = live.context;
  absl::StatusOr<engine::Sequence> restored = runner.NewSequence(text.sequence.tokens());
  if (!restored.ok()) return restored.status();
  for (int first = 0; first < text.tokens(); first += compressor::kMaxBlockTokens) {
    const int count = std::min(compressor::kMaxBlockTokens, text.tokens() - first);
    const compressor::BlockShape shape = runner.BlockShape(count);
    std::vector<uint16_t> values(shape.values());
    const compressor::MutableBlockView block{shape, absl::MakeSpan(values)};
    GatherBlock(text.sequence.pages(), first, block);
    OwnedContext owned = runner.ContextOf(text, options.split, first, count);
    owned.context.step = options.step;
    const absl::Time start = absl::Now();
    const absl::StatusOr<std::string> bytes =
        compressor::EncodeBlock(registry, options.codec, block.view(), owned.context);
    if (!bytes.ok()) return bytes.status();
    const absl::Time encoded = absl::Now();
    std::vector<uint16_t> decoded_values(values.size());
    const compressor::MutableBlockView decoded{shape, absl::MakeSpan(decoded_values)};
    CopyKnown(block.view(), options.split, owned.context.known_tokens, decoded);
    if (absl::Status status = compressor::DecodeBlock(registry, *bytes, owned.context, decoded); !status.ok()) {
      return status;
    }
    result.encode += encoded - start;
    result.decode += absl::Now() - encoded;
    ScatterBlock(decoded.view(), count, first, restored->pages());
    result.raw_bytes += static_cast<int64_t>(shape.bytes());
    result.stored_bytes += static_cast<int64_t>(bytes->size());
    if (!options.residual) continue;
    absl::StatusOr<int64_t> residual = TryResidual(registry, block.view(), decoded, owned.context);
    if (!residual.ok()) return residual.status();
    result.residual_bytes += *residual;
  }
  const absl::StatusOr<std::vector<float>> logits = runner.Continue(*restored, live.continuation);
  if (!logits.ok()) return logits.status();
  const size_t vocab = runner.config().vocab_size;
  for (size_t i = 0; i < live.continuation.size(); ++i) {
    const int32_t next = i + 1 < live.continuation.size() ? live.continuation[i + 1] : -1;
    CompareRows(absl::MakeConstSpan(live.logits).subspan(i * vocab, vocab),
                absl::MakeConstSpan(*logits).subspan(i * vocab, vocab), next, result);
  }
  return result;
}

}  // namespace quicksave::server
