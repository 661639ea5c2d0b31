#include "server/sidecar/yardsticks.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "compressor/block.h"
#include "server/archive/block_pages.h"

namespace quicksave::server {
namespace {

// K and V of a state, block by block; `change` edits them before they go to the pages of another one.
template <typename Change>
absl::StatusOr<engine::Sequence> ChangedState(ModelRunner& runner, const LiveText& tokens_of, const RunText& values_of,
                                              Change change) {
  absl::StatusOr<engine::Sequence> state = runner.NewSequence(tokens_of.context.sequence.tokens());
  if (!state.ok()) return state.status();
  for (int first = 0; first < state->length(); first += compressor::kMaxBlockTokens) {
    const int count = std::min(compressor::kMaxBlockTokens, state->length() - first);
    std::vector<uint16_t> values(runner.BlockShape(count).values());
    const compressor::MutableBlockView block{runner.BlockShape(count), absl::MakeSpan(values)};
    GatherBlock(values_of.sequence.pages(), first, block);
    change(values);
    ScatterBlock(block.view(), count, first, state->pages());
  }
  return state;
}

}  // namespace

absl::StatusOr<std::vector<metrics::NegativeControl>> MeasureControls(ModelRunner& runner, const LiveText& a,
                                                                      const LiveText& b) {
  if (a.context.tokens() != b.context.tokens()) {
    return absl::InvalidArgumentError("negative controls need two texts of the same length");
  }
  metrics::DivergenceRows zeroed_rows;
  metrics::DivergenceRows other_rows;
  const auto measure = [&](const LiveText& live, const RunText& values_of, bool zeroed) -> absl::Status {
    const auto state = ChangedState(runner, live, values_of, [&](std::vector<uint16_t>& values) {
      if (zeroed) std::fill(values.begin(), values.end(), uint16_t{0});
    });
    if (!state.ok()) return state.status();
    const auto rows = CompareContinuation(runner, live, *state);
    if (!rows.ok()) return rows.status();
    return (zeroed ? zeroed_rows : other_rows).Append(*rows);
  };
  absl::Status status = measure(a, a.context, /*zeroed=*/true);
  if (status.ok()) status = measure(b, b.context, /*zeroed=*/true);
  if (status.ok()) status = measure(a, b.context, /*zeroed=*/false);
  if (status.ok()) status = measure(b, a.context, /*zeroed=*/false);
  if (!status.ok()) return status;
  const auto zeroed = zeroed_rows.Summarize();
  if (!zeroed.ok()) return zeroed.status();
  const auto other = other_rows.Summarize();
  if (!other.ok()) return other.status();
  return std::vector<metrics::NegativeControl>{{"zeroed K and V", zeroed->kl.mean},
                                               {"K and V of another text", other->kl.mean}};
}

absl::StatusOr<metrics::DivergenceRows> CompareWithReference(const engine::ReferenceDecoder& reference,
                                                             const LiveText& live) {
  std::vector<int32_t> tokens = live.context.sequence.tokens();
  tokens.insert(tokens.end(), live.continuation.begin(), live.continuation.end());
  const std::vector<float> logits = reference.Logits(tokens);
  const size_t vocab = reference.config().vocab_size;
  const size_t first = live.context.tokens() * vocab;
  metrics::DivergenceRows rows;
  for (size_t i = 0; i < live.continuation.size(); ++i) {
    absl::Status status = rows.Add(absl::MakeConstSpan(live.logits).subspan(i * vocab, vocab),
                                   absl::MakeConstSpan(logits).subspan(first + i * vocab, vocab));
    if (!status.ok()) return status;
  }
  return rows;
}

absl::StatusOr<int64_t> CountChunkDifferences(ModelRunner& runner, const RunText& text, int chunk) {
  const absl::StatusOr<RunText> again = runner.Run(text.sequence.tokens(), {}, chunk);
  if (!again.ok()) return again.status();
  int64_t different = 0;
  for (int first = 0; first < text.tokens(); first += compressor::kMaxBlockTokens) {
    const int count = std::min(compressor::kMaxBlockTokens, text.tokens() - first);
    const compressor::BlockShape shape = runner.BlockShape(count);
    std::vector<uint16_t> one(shape.values());
    std::vector<uint16_t> other(shape.values());
    GatherBlock(text.sequence.pages(), first, {shape, absl::MakeSpan(one)});
    GatherBlock(again->sequence.pages(), first, {shape, absl::MakeSpan(other)});
    for (size_t i = 0; i < one.size(); ++i) different += one[i] != other[i] ? 1 : 0;
  }
  return different;
}

}  // namespace quicksave::server
