#ifndef QUICKSAVE_SERVER_ARCHIVE_BLOCK_PLAN_H_
#define QUICKSAVE_SERVER_ARCHIVE_BLOCK_PLAN_H_

// Which blocks a node consists of: those that are stored already and those to be cut from pages.

#include <vector>

#include "absl/types/span.h"
#include "compressor/block.h"
#include "server/scheduler/session_state.h"

namespace quicksave::server {

// Blocks never cross a multiple of this many tokens; the tokens between two multiples are a *window*.
inline constexpr int kWindowTokens = compressor::kMaxBlockTokens;
// A window consists of at most this many blocks.
inline constexpr int kMaxPieces = 8;

// One block of the node.
struct PlannedBlock {
  int first_token = 0;
  int token_count = 0;
  // Null: to be cut from pages and stored.
  const StoredBlock* stored = nullptr;
};

// Tiles [0, token_count) with blocks, in order. A stored block is kept if it lies within the first `common_tokens`
// tokens; what no kept block covers is cut anew, one block for each gap in a window. A window that would have more than
// kMaxPieces becomes one new block. `stored` is in order without overlaps, maybe with gaps, and cut at windows; the
// result points into it.
std::vector<PlannedBlock> PlanBlocks(absl::Span<const StoredBlock> stored, int common_tokens, int token_count);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_BLOCK_PLAN_H_
