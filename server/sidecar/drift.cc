#include "server/sidecar/drift.h"

#include <algorithm>
#include <utility>

#include "compressor/container.h"
#include "server/archive/block_pages.h"
#include "server/sidecar/codec_trial.h"

namespace quicksave::server {
namespace {

// Encodes and decodes a state's K and V in place.
class Recoder {
 public:
  // `text` has the hidden states of split 0 of at least the state's tokens: their embeddings.
  Recoder(const ModelRunner& runner, const RunText& text, const compressor::CodecRegistry& registry,
          const DriftOptions& options)
      : runner_(runner), text_(text), registry_(registry), options_(options) {}

  absl::Status Recode(const engine::Sequence& state, int first, int end) const {
    for (; first < end; first += compressor::kMaxBlockTokens) {
      const int count = std::min(compressor::kMaxBlockTokens, end - first);
      const compressor::BlockShape shape = runner_.BlockShape(count);
      std::vector<uint16_t> values(shape.values());
      const compressor::MutableBlockView block{shape, absl::MakeSpan(values)};
      GatherBlock(state.pages(), first, block);
      OwnedContext owned = runner_.ContextOf(text_, /*split=*/0, first, count);
      owned.context.step = options_.step;
      const absl::StatusOr<std::string> bytes =
          compressor::EncodeBlock(registry_, options_.codec, block.view(), owned.context);
      if (!bytes.ok()) return bytes.status();
      // What the codec does not store is what it was.
      absl::Status status = compressor::DecodeBlock(registry_, *bytes, owned.context, block);
      if (!status.ok()) return status;
      ScatterBlock(block.view(), count, first, state.pages());
    }
    return absl::OkStatus();
  }

 private:
  const ModelRunner& runner_;
  const RunText& text_;
  const compressor::CodecRegistry& registry_;
  const DriftOptions& options_;
};

}  // namespace

absl::StatusOr<std::vector<DriftRows>> MeasureDrift(ModelRunner& runner, absl::Span<const int32_t> tokens,
                                                    const compressor::CodecRegistry& registry,
                                                    const DriftOptions& options) {
  const absl::StatusOr<RunText> whole = runner.Run(tokens, {0});
  if (!whole.ok()) return whole.status();
  const Recoder recoder(runner, *whole, registry, options);
  std::vector<DriftRows> measured(options.generations.size());
  for (size_t i = 0; i < measured.size(); ++i) measured[i].generations = options.generations[i];
  for (const bool anew : {false, true}) {
    absl::StatusOr<RunText> first = runner.Run(tokens.first(options.context), {});
    if (!first.ok()) return first.status();
    engine::Sequence state = std::move(first->sequence);
    absl::Status status = recoder.Recode(state, 0, options.context);
    auto next = measured.begin();
    for (int generation = 1; status.ok() && next != measured.end(); ++generation) {
      const int begin = state.length();
      const int end = begin + options.extension;
      status = runner.Extend(state, tokens.subspan(begin, options.extension));
      if (status.ok()) status = recoder.Recode(state, anew ? 0 : begin, end);
      if (!status.ok() || generation != next->generations) continue;
      const absl::StatusOr<LiveText> live = RunLive(runner, tokens.first(end + options.continuation), end,
                                                    anew ? std::vector<int>{} : std::vector<int>{0});
      if (!live.ok()) return live.status();
      absl::StatusOr<metrics::DivergenceRows> rows = CompareContinuation(runner, *live, state);
      if (!rows.ok()) return rows.status();
      (anew ? next->anew : next->append_only) = *std::move(rows);
      if (!anew) {
        absl::StatusOr<TrialResult> once =
            TryCodec(runner, *live, registry, {.codec = options.codec, .split = 0, .step = options.step});
        if (!once.ok()) return once.status();
        next->once = std::move(once->divergence);
      }
      ++next;
    }
    if (!status.ok()) return status;
  }
  return measured;
}

}  // namespace quicksave::server
