#ifndef QUICKSAVE_SERVER_SIDECAR_TEXT_BLOCKS_H_
#define QUICKSAVE_SERVER_SIDECAR_TEXT_BLOCKS_H_

// A text's K and V, block by block, as codecs see them.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compressor/block.h"
#include "server/archive/block_pages.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

// Calls use(BlockView, const BlockContext&) for each block of a text, with the context of a codec with this split.
template <typename Use>
void ForEachBlock(const ModelRunner& runner, const RunText& text, int split, Use use) {
  for (int first = 0; first < text.tokens(); first += compressor::kMaxBlockTokens) {
    const int count = std::min(compressor::kMaxBlockTokens, text.tokens() - first);
    const compressor::BlockShape shape = runner.BlockShape(count);
    std::vector<uint16_t> values(shape.values());
    GatherBlock(text.sequence.pages(), first, {shape, absl::MakeSpan(values)});
    const OwnedContext owned = runner.ContextOf(text, split, first, count);
    use(compressor::BlockView{shape, values}, owned.context);
  }
}

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TEXT_BLOCKS_H_
