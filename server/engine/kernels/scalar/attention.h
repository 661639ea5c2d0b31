#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ATTENTION_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ATTENTION_H_

// cpu::Attention in steps, each a functor that is called with each index of the range that it names, in any order and
// on any thread: the scores, their largest, the exponentials and their partial sums, the weighted values. What a step
// leaves for the next is in AttentionScratch.

#include <cstddef>
#include <cstdint>

#include "server/engine/kernels/device.h"
#include "server/engine/kernels/portable.h"
#include "server/engine/kernels/scalar/arithmetic.h"

namespace quicksave::engine::scalar {

// Writes one element of a row's keys and values to its slot; [0, rows * kv_heads * head_dim).
struct StoreKeyValue {
  const float* key_value;  // [rows, stride]
  int stride;
  Batch batch;
  cpu::HeadShape shape;
  LayerOffsets offsets;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const int width = shape.kv_heads * shape.head_dim;
    const int64_t row = index / width;
    const auto element = static_cast<int>(index % width);
    const int position = batch.positions[row];
    const int slot = position % cpu::kPageTokens;
    std::byte* page = batch.pages[row][position / cpu::kPageTokens];
    const float* from = key_value + row * stride + element;
    const int head = element / shape.head_dim;
    const int i = element % shape.head_dim;
    auto* keys = reinterpret_cast<uint16_t*>(page + offsets.keys);
    auto* values = reinterpret_cast<uint16_t*>(page + offsets.values);
    keys[size_t(element) * cpu::kPageTokens + slot] = cpu::Bf16Bits(from[0]);
    values[(size_t(head) * cpu::kPageTokens + slot) * shape.head_dim + i] = cpu::Bf16Bits(from[width]);
  }
};

// Some rows of a batch, what they attend to, and where the steps keep their results.
struct AttentionRows {
  Batch batch;  // of these rows alone
  cpu::HeadShape shape;
  LayerOffsets offsets;
  cpu::AttentionOptions options;
  int width;      // positions that a row has scores of
  float* scores;  // [rows, query_heads, width], then the exponentials
  float* maxima;  // [rows, query_heads, kSums], by position modulo kSums
  float* sums;    // the same of the exponentials

  QUICKSAVE_PORTABLE int Length(int64_t row) const { return batch.positions[row] + 1; }
  // The first position that the row sees.
  QUICKSAVE_PORTABLE int Begin(int64_t row) const {
    const int begin = options.window > 0 ? Length(row) - options.window : 0;
    return begin > 0 ? begin : 0;
  }
  // The position of the row's first score: the begin of a page, so that a position has the same place modulo kSums.
  QUICKSAVE_PORTABLE int First(int64_t row) const { return Begin(row) / cpu::kPageTokens * cpu::kPageTokens; }
  QUICKSAVE_PORTABLE int KvHead(int head) const { return head / (shape.query_heads / shape.kv_heads); }
  QUICKSAVE_PORTABLE const uint16_t* PageOf(int64_t row, int position, size_t offset) const {
    return reinterpret_cast<const uint16_t*>(batch.pages[row][position / cpu::kPageTokens] + offset);
  }
};

// The score of one position, [0, rows * query_heads * width).
struct Scores {
  AttentionRows rows;
  const float* query;  // [rows, stride]
  int stride;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const int64_t vector = index / rows.width;
    const int64_t row = vector / rows.shape.query_heads;
    const auto head = static_cast<int>(vector % rows.shape.query_heads);
    const int position = rows.First(row) + static_cast<int>(index % rows.width);
    if (position < rows.Begin(row) || position >= rows.Length(row)) return;
    const int head_dim = rows.shape.head_dim;
    const uint16_t* keys = rows.PageOf(row, position, rows.offsets.keys) +
                           size_t(rows.KvHead(head)) * head_dim * cpu::kPageTokens + position % cpu::kPageTokens;
    const float* q = query + row * stride + size_t(head) * head_dim;
    float sum = 0;
    for (int i = 0; i < head_dim; ++i) sum = fmaf(q[i], cpu::Bf16ToFloat(keys[size_t(i) * cpu::kPageTokens]), sum);
    const float score = sum * rows.options.scale;
    rows.scores[index] = rows.options.soft_cap > 0 ? SoftCapped(score, rows.options.soft_cap) : score;
  }
};

// The largest score of the positions with one remainder modulo kSums, [0, rows * query_heads * kSums).
struct Maxima {
  AttentionRows rows;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const int64_t row = index / kSums / rows.shape.query_heads;
    const int first = rows.First(row);
    const float* scores = rows.scores + index / kSums * rows.width;
    float largest = FloatOf(0xff800000U);  // minus infinity
    for (int position = first + static_cast<int>(index % kSums); position < rows.Length(row); position += kSums) {
      if (position >= rows.Begin(row) && scores[position - first] > largest) largest = scores[position - first];
    }
    rows.maxima[index] = largest;
  }
};

// Turns those scores into exponentials and adds them in order.
struct Exponentials {
  AttentionRows rows;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const int64_t vector = index / kSums;
    const int64_t row = vector / rows.shape.query_heads;
    const int first = rows.First(row);
    float largest = rows.maxima[vector * kSums];
    for (int i = 1; i < kSums; ++i) {
      const float other = rows.maxima[vector * kSums + i];
      if (other > largest) largest = other;
    }
    float* scores = rows.scores + vector * rows.width;
    float sum = 0;
    for (int position = first + static_cast<int>(index % kSums); position < rows.Length(row); position += kSums) {
      if (position < rows.Begin(row)) continue;
      float& score = scores[position - first];
      score = Exp(score - largest);
      sum = score + sum;
    }
    rows.sums[index] = sum;
  }
};

// One element of the result, [0, rows * query_heads * head_dim).
struct WeightedValues {
  AttentionRows rows;
  float* out;  // [rows, stride]
  int stride;

  QUICKSAVE_PORTABLE void operator()(int64_t index) const {
    const int head_dim = rows.shape.head_dim;
    const int64_t vector = index / head_dim;
    const auto i = static_cast<int>(index % head_dim);
    const int64_t row = vector / rows.shape.query_heads;
    const auto head = static_cast<int>(vector % rows.shape.query_heads);
    float sums[kSums];
    for (int k = 0; k < kSums; ++k) sums[k] = rows.sums[vector * kSums + k];
    const float* weights = rows.scores + vector * rows.width;
    const int first = rows.First(row);
    const size_t tile = size_t(rows.KvHead(head)) * head_dim * cpu::kPageTokens;
    float sum = 0;
    for (int position = rows.Begin(row); position < rows.Length(row); ++position) {
      const uint16_t* values = rows.PageOf(row, position, rows.offsets.values) + tile;
      sum = fmaf(weights[position - first], cpu::Bf16ToFloat(values[position % cpu::kPageTokens * head_dim + i]), sum);
    }
    out[row * stride + int64_t{head} * head_dim + i] = Rounded(sum / SumPairwise(sums), rows.options.rounding);
  }
};

}  // namespace quicksave::engine::scalar

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_ATTENTION_H_
