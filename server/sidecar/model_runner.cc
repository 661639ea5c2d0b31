#include "server/sidecar/model_runner.h"

#include <algorithm>
#include <utility>

#include "server/archive/block_pages.h"
#include "server/engine/model/fingerprint.h"
#include "server/engine/taps.h"

namespace quicksave::server {
namespace {

// Tokens of one forward pass of a continuation, whose logits are held at once.
constexpr int kChunk = 128;

}  // namespace

const std::vector<float>& RunText::HiddenStates(int split) const {
  return hidden_states[std::find(splits.begin(), splits.end(), split) - splits.begin()];
}

absl::StatusOr<std::unique_ptr<ModelRunner>> ModelRunner::Load(const std::string& model_dir, int threads,
                                                               int max_tokens) {
  auto runner = std::unique_ptr<ModelRunner>(new ModelRunner(model_dir, threads));
  const engine::WeightFormat format = engine::WeightFormat::kBf16;
  absl::StatusOr<std::string> fingerprint = engine::ModelFingerprint(model_dir, engine::NumericsVersion(format));
  if (!fingerprint.ok()) return fingerprint.status();
  runner->fingerprint_ = *std::move(fingerprint);
  auto decoder = engine::Decoder::Load(model_dir, &runner->threads_, format);
  if (!decoder.ok()) return decoder.status();
  runner->decoder_ = *std::move(decoder);
  auto tokenizer = text::Tokenizer::Load(model_dir);
  if (!tokenizer.ok()) return tokenizer.status();
  runner->tokenizer_ = *std::move(tokenizer);
  const engine::KvShape shape = runner->decoder_->kv_shape();
  auto pool = engine::PagePool::Create(
      {.shape = shape, .memory_bytes = shape.page_bytes() * (engine::PagesFor(max_tokens) + 1), .poison = true});
  if (!pool.ok()) return pool.status();
  runner->pool_ = *std::move(pool);
  runner->angles_ = std::make_unique<const RopeAngles>(runner->config());
  return runner;
}

absl::StatusOr<engine::Sequence> ModelRunner::NewSequence(absl::Span<const int32_t> tokens) {
  absl::StatusOr<engine::PageReservation> pages = pool_->Reserve(engine::PagesFor(static_cast<int>(tokens.size())));
  if (!pages.ok()) return pages.status();
  engine::Sequence sequence;
  sequence.Append(tokens, *pages);
  return sequence;
}

absl::StatusOr<RunText> ModelRunner::Run(absl::Span<const int32_t> tokens, const std::vector<int>& splits, int chunk) {
  absl::StatusOr<engine::Sequence> sequence = NewSequence(tokens);
  if (!sequence.ok()) return sequence.status();
  RunText text{.sequence = *std::move(sequence), .splits = splits};
  std::vector<std::byte*> pages;
  for (const engine::PageRef& page : text.sequence.pages()) pages.push_back(page.data());
  std::vector<int> layers = splits;
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  const size_t width = config().hidden_size;
  std::vector<float> captured(tokens.size() * layers.size() * width);
  std::vector<float*> rows;
  for (size_t t = 0; t < tokens.size(); ++t) rows.push_back(captured.data() + t * layers.size() * width);
  for (size_t first = 0; first < tokens.size(); first += chunk) {
    const size_t count = std::min<size_t>(chunk, tokens.size() - first);
    engine::Slice slice{.tokens = tokens.subspan(first, count),
                        .first_position = static_cast<int>(first),
                        .pages = pages,
                        .logits = engine::LogitsWanted::kNone};
    if (!layers.empty()) slice.taps = {layers, absl::MakeConstSpan(rows).subspan(first, count)};
    decoder_->Forward({&slice, 1});
  }
  for (const int split : splits) {
    const size_t place = std::find(layers.begin(), layers.end(), split) - layers.begin();
    std::vector<float>& states = text.hidden_states.emplace_back(tokens.size() * width);
    for (size_t t = 0; t < tokens.size(); ++t) {
      std::copy_n(rows[t] + place * width, width, states.data() + t * width);
    }
  }
  return text;
}

absl::Status ModelRunner::Feed(engine::Sequence& sequence, absl::Span<const int32_t> tokens,
                               std::vector<float>* logits) {
  const int count = static_cast<int>(tokens.size());
  absl::StatusOr<engine::PageReservation> reservation = pool_->Reserve(sequence.PagesToAppend(count));
  if (!reservation.ok()) return reservation.status();
  for (int first = 0; first < count; first += kChunk) {
    const auto part = tokens.subspan(first, std::min(kChunk, count - first));
    const int position = sequence.length();
    sequence.Append(part, *reservation);
    std::vector<std::byte*> pages;
    for (const engine::PageRef& page : sequence.pages()) pages.push_back(page.data());
    const engine::Slice slice{.tokens = part,
                              .first_position = position,
                              .pages = pages,
                              .logits = logits == nullptr ? engine::LogitsWanted::kNone : engine::LogitsWanted::kAll};
    const absl::Span<const float> rows = decoder_->Forward({&slice, 1});
    if (logits != nullptr) logits->insert(logits->end(), rows.begin(), rows.end());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> ModelRunner::Continue(const engine::Sequence& state,
                                                         absl::Span<const int32_t> tokens) {
  engine::Sequence sequence = state;
  std::vector<float> logits;
  if (absl::Status status = Feed(sequence, tokens, &logits); !status.ok()) return status;
  return logits;
}

absl::Status ModelRunner::Extend(engine::Sequence& state, absl::Span<const int32_t> tokens) {
  return Feed(state, tokens, nullptr);
}

compressor::BlockShape ModelRunner::BlockShape(int tokens) const { return ShapeOfBlock(decoder_->kv_shape(), tokens); }

OwnedContext ModelRunner::ContextOf(const RunText& text, std::optional<int> split, int first, int count) const {
  OwnedContext owned{.angles = angles_->From(first)};
  owned.context = {
      .model_fingerprint = fingerprint_,
      .token_ids = absl::MakeConstSpan(text.sequence.tokens()).subspan(first, count),
      .first_position = first,
      .angles = owned.angles,
  };
  if (!split) return owned;
  const size_t width = config().hidden_size;
  const auto states = absl::MakeConstSpan(text.HiddenStates(*split)).subspan(first * width, count * width);
  owned.hidden_states = {states.begin(), states.end()};
  owned.context.hidden_states = owned.hidden_states;
  owned.context.known_tokens = std::clamp(kRecomputedTokens - first, 0, count);
  return owned;
}

}  // namespace quicksave::server
