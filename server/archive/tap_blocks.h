#ifndef QUICKSAVE_SERVER_ARCHIVE_TAP_BLOCKS_H_
#define QUICKSAVE_SERVER_ARCHIVE_TAP_BLOCKS_H_

// Hidden states as stored blocks: which there are, cutting them from a state, and what a record says of them.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compressor/row_block.h"
#include "server/archive/archive.h"
#include "server/engine/taps.h"
#include "storage/store.h"

namespace quicksave::server {

// One layer's rows of the tokens of one window of 128.
struct TapPiece {
  int layer = 0;
  int layer_index = 0;  // in the spec
  int first_token = 0;
  int token_count = 0;
  int hidden_size = 0;

  compressor::RowBlockShape shape() const { return {.rows = token_count, .width = hidden_size}; }
};

// The pieces that hold all that is captured, layer by layer.
std::vector<TapPiece> PlanTapPieces(const engine::TapExtent& extent);

// What the record says was captured; off without taps.
engine::TapExtent TapExtentOf(const storage::NodeRecord& record);
// What there is of it in the first `tokens` tokens.
engine::TapExtent TapExtentOf(const storage::NodeRecord& record, int tokens);
void SetTaps(const engine::TapExtent& extent, storage::NodeRecord& record);
// DATA_LOSS, without the node's name, unless the record's blocks are those that its taps plan.
absl::Status CheckTaps(const storage::NodeRecord& record);

// Copies `values` [rows, hidden_size] of a piece to where the tokens' rows go, see engine::Taps::Append: `rows` begins
// with the piece's first token; what goes beyond its end, or to a null row, is left out.
void ScatterPiece(const TapPiece& piece, absl::Span<const float> values, absl::Span<float* const> rows);

// Cuts the hidden states of one state into blocks. Used once, by one thread, which the worker pool helps.
class TapSaver {
 public:
  // All arguments must outlive it.
  TapSaver(const Archive::Dependencies& dependencies, const std::string& tenant, const engine::Taps& taps);

  // Encodes what is not stored yet; what is stays pinned while this lives. The store's errors.
  absl::Status Cut();
  // Adds the blocks to a commit, and their references to its record.
  void AddTo(storage::NodeCommit& commit);

 private:
  struct Block {
    TapPiece piece;
    storage::NewBlock block;  // without bytes when it is stored already
    storage::BlockPin pin;
    absl::Status status;
  };
  absl::Status CutOne(Block& block) const;

  const Archive::Dependencies& d_;
  const std::string& tenant_;
  const engine::Taps& taps_;
  std::vector<Block> blocks_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_TAP_BLOCKS_H_
