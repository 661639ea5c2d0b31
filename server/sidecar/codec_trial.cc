#include "server/sidecar/codec_trial.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/container.h"
#include "compressor/latent/residual_codec.h"
#include "server/archive/block_pages.h"
#include "server/sidecar/metrics/poison.h"

namespace quicksave::server {
namespace {

absl::Duration ThreadTime() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
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

// Encodes `block`, and decodes it into `out`, which has what the codec takes as known. Adds to the cost.
absl::Status ThereAndBack(const compressor::CodecRegistry& registry, const std::string& codec,
                          compressor::BlockView block, const compressor::BlockContext& context,
                          compressor::MutableBlockView out, CodecCost& cost) {
  const absl::Duration start = ThreadTime();
  const absl::StatusOr<std::string> bytes = compressor::EncodeBlock(registry, codec, block, context);
  if (!bytes.ok()) return bytes.status();
  const absl::Duration encoded = ThreadTime();
  if (absl::Status status = compressor::DecodeBlock(registry, *bytes, context, out); !status.ok()) return status;
  cost.encode += encoded - start;
  cost.decode += ThreadTime() - encoded;
  const absl::StatusOr<compressor::ContainerInfo> info = compressor::PeekContainer(*bytes);
  if (!info.ok()) return info.status();
  cost.stored_bytes += static_cast<int64_t>(bytes->size());
  cost.payload_bytes += static_cast<int64_t>(info->payload_bytes);
  const size_t unwritten = metrics::CountPoison(out.values);
  if (unwritten == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the codec '", codec, "' left ", unwritten, " values of a block unwritten"));
}

// One trial: a state, and what becomes of it block by block.
class Trial {
 public:
  Trial(ModelRunner& runner, const LiveText& live, const compressor::CodecRegistry& registry,
        const TrialOptions& options)
      : runner_(runner), live_(live), registry_(registry), options_(options) {}

  absl::StatusOr<TrialResult> Run() {
    const RunText& text = live_.context;
    absl::StatusOr<engine::Sequence> restored = runner_.NewSequence(text.sequence.tokens());
    if (!restored.ok()) return restored.status();
    absl::StatusOr<engine::Sequence> layered = engine::Sequence();
    if (options_.residual) layered = runner_.NewSequence(text.sequence.tokens());
    if (!layered.ok()) return layered.status();
    for (int first = 0; first < text.tokens(); first += compressor::kMaxBlockTokens) {
      const int count = std::min(compressor::kMaxBlockTokens, text.tokens() - first);
      if (absl::Status status = TryBlock(first, count, *restored, *layered); !status.ok()) return status;
    }
    absl::StatusOr<metrics::DivergenceRows> rows = CompareContinuation(runner_, live_, *restored);
    if (!rows.ok()) return rows.status();
    result_.divergence = *std::move(rows);
    if (!options_.residual) return std::move(result_);
    rows = CompareContinuation(runner_, live_, *layered);
    if (!rows.ok()) return rows.status();
    result_.layered_divergence = *std::move(rows);
    result_.layered_cost.stored_bytes += result_.cost.stored_bytes;
    result_.layered_cost.payload_bytes += result_.cost.payload_bytes;
    result_.layered_cost.encode += result_.cost.encode;
    result_.layered_cost.decode += result_.cost.decode;
    return std::move(result_);
  }

 private:
  absl::Status TryBlock(int first, int count, engine::Sequence& restored, engine::Sequence& layered) {
    const RunText& text = live_.context;
    const compressor::BlockShape shape = runner_.BlockShape(count);
    std::vector<uint16_t> values(shape.values());
    const compressor::MutableBlockView block{shape, absl::MakeSpan(values)};
    GatherBlock(text.sequence.pages(), first, block);
    result_.raw_bytes += static_cast<int64_t>(shape.bytes());
    OwnedContext owned = runner_.ContextOf(text, options_.split, first, count);
    owned.context.step = options_.step;
    std::vector<uint16_t> decoded(values.size());
    const auto decode = [&](const std::string& codec, CodecCost& cost, const engine::Sequence& to) {
      std::vector<uint16_t> out_values(values.size());
      const compressor::MutableBlockView out{shape, absl::MakeSpan(out_values)};
      metrics::FillWithPoison(out.values);
      if (options_.split) CopyKnown(block.view(), *options_.split, owned.context.known_tokens, out);
      absl::Status status = ThereAndBack(registry_, codec, block.view(), owned.context, out, cost);
      if (status.ok()) ScatterBlock(out.view(), count, first, to.pages());
      decoded.swap(out_values);
      return status;
    };
    if (absl::Status status = decode(options_.codec, result_.cost, restored); !status.ok()) return status;
    if (!options_.residual) return absl::OkStatus();
    const std::vector<uint16_t> base = decoded;
    owned.context.base = base;
    return decode(compressor::kResidualCodec, result_.layered_cost, layered);
  }

  ModelRunner& runner_;
  const LiveText& live_;
  const compressor::CodecRegistry& registry_;
  const TrialOptions& options_;
  TrialResult result_;
};

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

absl::StatusOr<metrics::DivergenceRows> CompareContinuation(ModelRunner& runner, const LiveText& live,
                                                            const engine::Sequence& state) {
  const absl::StatusOr<std::vector<float>> logits = runner.Continue(state, live.continuation);
  if (!logits.ok()) return logits.status();
  const size_t vocab = runner.config().vocab_size;
  metrics::DivergenceRows rows;
  for (size_t i = 0; i < live.continuation.size(); ++i) {
    const auto next =
        i + 1 < live.continuation.size() ? std::optional<int32_t>(live.continuation[i + 1]) : std::nullopt;
    absl::Status status = rows.Add(absl::MakeConstSpan(live.logits).subspan(i * vocab, vocab),
                                   absl::MakeConstSpan(*logits).subspan(i * vocab, vocab), next);
    if (!status.ok()) return status;
  }
  return rows;
}

absl::StatusOr<TrialResult> TryCodec(ModelRunner& runner, const LiveText& live,
                                     const compressor::CodecRegistry& registry, const TrialOptions& options) {
  return Trial(runner, live, registry, options).Run();
}

}  // namespace quicksave::server
