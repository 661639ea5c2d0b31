#ifndef QUICKSAVE_SERVER_ARCHIVE_BLOCK_PAGES_H_
#define QUICKSAVE_SERVER_ARCHIVE_BLOCK_PAGES_H_

// Between the engine's KV pages and the canonical layout of a block, [layers][K, V][kv_heads][head_dim][tokens].

#include "absl/types/span.h"
#include "compressor/block.h"
#include "server/engine/page_pool.h"

namespace quicksave::server {

// The shape of a block of that many tokens.
inline compressor::BlockShape ShapeOfBlock(const engine::KvShape& shape, int tokens) {
  return {.layers = shape.layers, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim, .tokens = tokens};
}

// Copies the K and V of tokens [first_token, first_token + block.shape.tokens) of a sequence into `block`. The pages
// cover these tokens; the dimensions of `block` are the pages'. Any thread.
void GatherBlock(absl::Span<const engine::PageRef> pages, int first_token, compressor::MutableBlockView block);

// Copies the first `tokens` tokens of `block` to tokens [first_token, first_token + tokens) of a sequence. Writes
// nothing else, so threads may write different tokens of the same pages at once.
void ScatterBlock(compressor::BlockView block, int tokens, int first_token, absl::Span<const engine::PageRef> pages);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_BLOCK_PAGES_H_
