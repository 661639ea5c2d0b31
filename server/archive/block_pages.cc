#include "server/archive/block_pages.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace quicksave::server {
namespace {

using engine::cpu::kPageTokens;

constexpr int kTile = 8;
using Vector = uint16_t __attribute__((vector_size(kTile * sizeof(uint16_t))));

Vector Load(const uint16_t* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

// out[c][r] = in[r][c] for a tile of 8 rows and columns.
void TransposeTile(const uint16_t* in, size_t in_stride, uint16_t* out, size_t out_stride) {
  Vector a[kTile], b[kTile];
  for (int i = 0; i < kTile; ++i) a[i] = Load(in + i * in_stride);
  // Interleaving row i with row i + 4, three times over, transposes eight rows.
  const auto interleave = [](const Vector* from, Vector* to) {
    for (int i = 0; i < kTile / 2; ++i) {
      to[2 * i] = __builtin_shufflevector(from[i], from[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      to[2 * i + 1] = __builtin_shufflevector(from[i], from[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
  };
  interleave(a, b);
  interleave(b, a);
  interleave(a, b);
  for (int i = 0; i < kTile; ++i) std::memcpy(out + i * out_stride, &b[i], sizeof(Vector));
}

// out[c][r] = in[r][c].
void Transpose(const uint16_t* in, int rows, int columns, size_t in_stride, uint16_t* out, size_t out_stride) {
  const int whole_rows = rows / kTile * kTile;
  const int whole_columns = columns / kTile * kTile;
  for (int r = 0; r < whole_rows; r += kTile) {
    for (int c = 0; c < whole_columns; c += kTile) {
      TransposeTile(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
    }
  }
  for (int c = 0; c < columns; ++c) {
    const int first = c < whole_columns ? whole_rows : 0;
    for (int r = first; r < rows; ++r) out[c * out_stride + r] = in[r * in_stride + c];
  }
}

// Copies `rows` rows of `columns` values.
void CopyRows(const uint16_t* in, int rows, int columns, size_t in_stride, uint16_t* out, size_t out_stride) {
  const auto copy = [&](size_t bytes) {
    for (int r = 0; r < rows; ++r) std::memcpy(out + r * out_stride, in + r * in_stride, bytes);
  };
  if (columns == kPageTokens) return copy(kPageTokens * sizeof(uint16_t));
  copy(columns * sizeof(uint16_t));
}

// Consecutive tokens of one page, as one head of one layer has them.
struct Run {
  uint16_t* keys;     // of the first token: [head_dim][kPageTokens]
  uint16_t* values;   // of the first token: [kPageTokens][head_dim]
  size_t block_keys;  // index of the first token's first key in the block: [head_dim][tokens]
  size_t block_values;
  int tokens;
};

// Calls use(run) for the runs of all layers and heads, neighbours in the block after each other.
template <typename Use>
void ForEachRun(absl::Span<const engine::PageRef> pages, const compressor::BlockShape& block, int first_token,
                int tokens, Use use) {
  const engine::KvShape shape{.layers = block.layers, .kv_heads = block.kv_heads, .head_dim = block.head_dim};
  const size_t page_head = size_t(block.head_dim) * kPageTokens;
  const size_t block_head = size_t(block.head_dim) * block.tokens;
  for (int layer = 0; layer < block.layers; ++layer) {
    for (int head = 0; head < block.kv_heads; ++head) {
      for (int done = 0; done < tokens;) {
        const int slot = (first_token + done) % kPageTokens;
        const int count = std::min(kPageTokens - slot, tokens - done);
        std::byte* page = pages[(first_token + done) / kPageTokens].data();
        auto* keys = reinterpret_cast<uint16_t*>(page + shape.key_offset(layer)) + head * page_head;
        auto* values = reinterpret_cast<uint16_t*>(page + shape.value_offset(layer)) + head * page_head;
        const size_t tensor = size_t{2} * layer * block.kv_heads + head;
        use(Run{.keys = keys + slot,
                .values = values + size_t(slot) * block.head_dim,
                .block_keys = tensor * block_head + done,
                .block_values = (tensor + block.kv_heads) * block_head + done,
                .tokens = count});
        done += count;
      }
    }
  }
}

}  // namespace

void GatherBlock(absl::Span<const engine::PageRef> pages, int first_token, compressor::MutableBlockView block) {
  const compressor::BlockShape& shape = block.shape;
  uint16_t* out = block.values.data();
  ForEachRun(pages, shape, first_token, shape.tokens, [&](const Run& run) {
    CopyRows(run.keys, shape.head_dim, run.tokens, kPageTokens, out + run.block_keys, shape.tokens);
    Transpose(run.values, run.tokens, shape.head_dim, shape.head_dim, out + run.block_values, shape.tokens);
  });
}

void ScatterBlock(compressor::BlockView block, int tokens, int first_token, absl::Span<const engine::PageRef> pages) {
  const compressor::BlockShape& shape = block.shape;
  const uint16_t* in = block.values.data();
  ForEachRun(pages, shape, first_token, tokens, [&](const Run& run) {
    CopyRows(in + run.block_keys, shape.head_dim, run.tokens, shape.tokens, run.keys, kPageTokens);
    Transpose(in + run.block_values, shape.head_dim, run.tokens, shape.tokens, run.values, shape.head_dim);
  });
}

}  // namespace quicksave::server
