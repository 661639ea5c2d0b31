#include "server/archive/tap_blocks.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/archive/block_plan.h"

namespace quicksave::server {
namespace {

using storage::v1::TapState;

constexpr uint32_t kMaxHiddenSize = 1 << 20;
constexpr uint32_t kMaxLayer = 4095;

bool AscendingLayers(const TapState& taps) {
  const auto& layers = taps.layers();
  return !layers.empty() && layers[layers.size() - 1] <= kMaxLayer &&
         std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) == layers.end();
}

// Whether these are tokens of `count`, and the last one where only that is captured.
bool AreTokensOf(uint32_t count, const TapState& taps) {
  const uint64_t end = uint64_t{taps.first_token()} + taps.token_count();
  if (taps.tokens() == TapState::TOKENS_ALL) return end <= count;
  if (taps.tokens() != TapState::TOKENS_LAST) return false;
  return taps.token_count() == 0 || (taps.token_count() == 1 && end == count);
}

// How many pieces PlanTapPieces makes of them.
uint64_t CountPieces(const TapState& taps) {
  if (taps.token_count() == 0) return 0;
  const uint64_t last = uint64_t{taps.first_token()} + taps.token_count() - 1;
  const uint64_t windows = last / kWindowTokens - taps.first_token() / kWindowTokens + 1;
  return windows * taps.layers_size();
}

}  // namespace

std::vector<TapPiece> PlanTapPieces(const engine::TapExtent& extent) {
  std::vector<TapPiece> pieces;
  const int end = extent.first_token + extent.token_count;
  for (size_t i = 0; i < extent.spec.layers.size(); ++i) {
    for (int first = extent.first_token; first < end;) {
      const int next = std::min(end, (first / kWindowTokens + 1) * kWindowTokens);
      pieces.push_back({.layer = extent.spec.layers[i],
                        .layer_index = static_cast<int>(i),
                        .first_token = first,
                        .token_count = next - first,
                        .hidden_size = extent.hidden_size});
      first = next;
    }
  }
  return pieces;
}

engine::TapExtent TapExtentOf(const storage::NodeRecord& record) {
  if (!record.has_taps()) return {};
  const TapState& taps = record.taps();
  return {.spec = {.layers = {taps.layers().begin(), taps.layers().end()},
                   .all_tokens = taps.tokens() == TapState::TOKENS_ALL},
          .hidden_size = static_cast<int>(taps.hidden_size()),
          .first_token = static_cast<int>(taps.first_token()),
          .token_count = static_cast<int>(taps.token_count())};
}

engine::TapExtent TapExtentOf(const storage::NodeRecord& record, int tokens) {
  engine::TapExtent extent = TapExtentOf(record);
  extent.token_count = std::clamp(tokens - extent.first_token, 0, extent.token_count);
  return extent;
}

void SetTaps(const engine::TapExtent& extent, storage::NodeRecord& record) {
  if (!extent.on()) return;
  TapState& taps = *record.mutable_taps();
  taps.set_tokens(extent.spec.all_tokens ? TapState::TOKENS_ALL : TapState::TOKENS_LAST);
  taps.mutable_layers()->Assign(extent.spec.layers.begin(), extent.spec.layers.end());
  taps.set_hidden_size(static_cast<uint32_t>(extent.hidden_size));
  taps.set_first_token(static_cast<uint32_t>(extent.first_token));
  taps.set_token_count(static_cast<uint32_t>(extent.token_count));
}

absl::Status CheckTaps(const storage::NodeRecord& record) {
  const auto damaged = [](absl::string_view what) { return absl::DataLossError(what); };
  const auto& blocks = record.contents().tap_blocks();
  if (!record.has_taps()) return blocks.empty() ? absl::OkStatus() : damaged("hidden states that nothing describes");
  const TapState& taps = record.taps();
  if (!AscendingLayers(taps) || taps.hidden_size() == 0 || taps.hidden_size() > kMaxHiddenSize ||
      !AreTokensOf(record.token_count(), taps)) {
    return damaged("its hidden states are not those of its tokens");
  }
  // Before there is a plan, which may be as long as a damaged record says.
  if (const uint64_t pieces = CountPieces(taps); pieces != static_cast<uint64_t>(blocks.size())) {
    return damaged(absl::StrCat(blocks.size(), " blocks of hidden states, not ", pieces));
  }
  const std::vector<TapPiece> pieces = PlanTapPieces(TapExtentOf(record));
  for (size_t i = 0; i < pieces.size(); ++i) {
    const storage::BlockRef& ref = blocks[static_cast<int>(i)].block();
    if (blocks[static_cast<int>(i)].layer() != static_cast<uint32_t>(pieces[i].layer) ||
        ref.first_token() != static_cast<uint32_t>(pieces[i].first_token) ||
        ref.token_count() != static_cast<uint32_t>(pieces[i].token_count) ||
        ref.raw_bytes() != pieces[i].shape().bytes()) {
      return damaged(absl::StrCat("its block of hidden states ", i, " is not the one that comes there"));
    }
  }
  return absl::OkStatus();
}

void ScatterPiece(const TapPiece& piece, absl::Span<const float> values, absl::Span<float* const> rows) {
  const size_t width = piece.hidden_size;
  const size_t count = std::min<size_t>(piece.token_count, rows.size());
  for (size_t i = 0; i < count; ++i) {
    if (rows[i] != nullptr) std::copy_n(&values[i * width], width, rows[i] + piece.layer_index * width);
  }
}

TapSaver::TapSaver(const Archive::Dependencies& dependencies, const std::string& tenant, const engine::Taps& taps)
    : d_(dependencies), tenant_(tenant), taps_(taps) {
  for (const TapPiece& piece : PlanTapPieces(taps.extent())) blocks_.push_back({.piece = piece});
}

absl::Status TapSaver::Cut() {
  std::atomic<bool> failed = false;
  d_.workers->ParallelFor(static_cast<int>(blocks_.size()), [&](int i) {
    if (failed) return;
    blocks_[i].status = CutOne(blocks_[i]);
    if (!blocks_[i].status.ok()) failed = true;
  });
  for (const Block& block : blocks_) {
    if (!block.status.ok()) return block.status;
  }
  return absl::OkStatus();
}

absl::Status TapSaver::CutOne(Block& block) const {
  const TapPiece& piece = block.piece;
  std::vector<float> values;
  values.reserve(piece.shape().values());
  for (int token = piece.first_token; token < piece.first_token + piece.token_count; ++token) {
    const absl::Span<const float> row = taps_.Row(piece.layer_index, token);
    values.insert(values.end(), row.begin(), row.end());
  }
  const compressor::BlockId id = compressor::ComputeRowBlockId(piece.shape(), values);
  block.block.id = {.content_id = id.ToBytes(), .codec = compressor::kRowBlockCodec};
  absl::StatusOr<storage::BlockPin> pin = d_.store->PinBlocks(tenant_, d_.model.fingerprint, {block.block.id});
  if (!pin.ok()) return pin.status();
  block.pin = *std::move(pin);
  if (!block.pin.present()[0]) block.block.bytes = compressor::EncodeRowBlock(piece.shape(), values, id);
  return absl::OkStatus();
}

void TapSaver::AddTo(storage::NodeCommit& commit) {
  absl::flat_hash_set<storage::BlockId> given;
  for (Block& block : blocks_) {
    storage::v1::TapBlock& tap = *commit.record.mutable_contents()->add_tap_blocks();
    tap.set_layer(static_cast<uint32_t>(block.piece.layer));
    storage::BlockRef& ref = *tap.mutable_block();
    ref.set_id(block.block.id.content_id);
    ref.set_codec(block.block.id.codec);
    ref.set_first_token(static_cast<uint32_t>(block.piece.first_token));
    ref.set_token_count(static_cast<uint32_t>(block.piece.token_count));
    ref.set_raw_bytes(block.piece.shape().bytes());
    // Equal text at two places has equal embeddings.
    if (!block.block.bytes.empty() && given.insert(block.block.id).second) {
      commit.blocks.push_back(std::move(block.block));
    }
  }
}

}  // namespace quicksave::server
