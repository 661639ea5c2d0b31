#include <algorithm>
#include <limits>

#include "server/engine/kernels/cpu_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "server/engine/kernels/attention.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// The vector math needs the target's definitions above it.
#include "hwy/contrib/math/math-inl.h"
#include "server/engine/kernels/vector-inl.h"

#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_ATTENTION_CONSTANTS_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_ATTENTION_CONSTANTS_
namespace quicksave::engine::cpu {
// Query vectors (a row's head each) that are worked on together, so that each key and value is loaded once for all of
// them.
constexpr int kMaxQueries = 12;
constexpr int kMaxHeadDim = 256;
inline int PaddedLength(int length) { return (length + kPageTokens - 1) / kPageTokens * kPageTokens; }
}  // namespace quicksave::engine::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3;
constexpr int kQueriesAtOnce = kManyRegisters ? kMaxQueries : 3;
constexpr int kLanes = hn::MaxLanes(Floats());
// How far ahead values are fetched: pages stand far apart, where no processor looks by itself.
constexpr int kPagesAhead = 3;

// A few query vectors of one KV head and what is computed for them.
struct Queries {
  int count;
  const float* query[kMaxQueries];  // [head_dim]
  float* out[kMaxQueries];          // [head_dim]
  int begin[kMaxQueries];           // positions that it attends to: [begin, length)
  int length[kMaxQueries];
  int first_page;  // the first that any of them attends to
  int last_page;
  int max_length;
  float* packed;  // the query vectors: [head_dim][count]
  float* scores;  // [page][count][kPageTokens], from first_page on
  float denominator[kMaxQueries];

  float* ScoresOf(int page, int q) const { return scores + (size_t(page - first_page) * count + q) * kPageTokens; }
};

// Where one KV head's keys, or values, stand in the pages.
struct Tiles {
  const std::byte* const* pages;
  size_t offset;
  const uint16_t* Of(int page) const { return reinterpret_cast<const uint16_t*>(pages[page] + offset); }
};

HWY_INLINE hn::Vec<Floats> LoadBf16(const uint16_t* from) {
  const hn::Rebind<uint16_t, Floats> narrow;
  const hn::RebindToUnsigned<Floats> wide;
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(narrow, from))));
}

HWY_INLINE void Fetch(const uint16_t* from) { __builtin_prefetch(from, 0, 2); }

template <int kCount>
void Scores(const Queries& queries, const Tiles& keys, int head_dim, float scale) {
  const Floats d;
  // A strip is the vector's part of a page. So many at once that the sums fill the registers.
  constexpr int kStrips = kManyRegisters && kCount > 6 ? 2 : 4;
  constexpr int kStripsOfPage = kPageTokens / kLanes;
  constexpr int kPages = kStrips / kStripsOfPage;
  for (int page = queries.first_page; page <= queries.last_page; page += kPages) {
    // Past the end the last page is taken again, with the same result.
    const uint16_t* strips[kStrips];
    const uint16_t* ahead[kPages];
    for (int i = 0; i < kPages; ++i) {
      for (int part = 0; part < kStripsOfPage; ++part) {
        strips[i * kStripsOfPage + part] = keys.Of(std::min(page + i, queries.last_page)) + part * kLanes;
      }
      ahead[i] = keys.Of(std::min(page + kPages + i, queries.last_page));
    }
    hn::Vec<Floats> sums[kCount][kStrips];
    HWY_UNROLL(16)
    for (int q = 0; q < kCount; ++q) {
      HWY_UNROLL(4)
      for (int s = 0; s < kStrips; ++s) sums[q][s] = hn::Zero(d);
    }
    const float* query = queries.packed;
    for (int i = 0; i < head_dim * kPageTokens; i += 2 * kPageTokens) {
      HWY_UNROLL(4)
      for (int p = 0; p < kPages; ++p) Fetch(ahead[p] + i);
      HWY_UNROLL(2)
      for (int half = 0; half < 2; ++half, query += kCount) {
        hn::Vec<Floats> key[kStrips];
        HWY_UNROLL(4)
        for (int s = 0; s < kStrips; ++s) key[s] = LoadBf16(strips[s] + i + half * kPageTokens);
        HWY_UNROLL(16)
        for (int q = 0; q < kCount; ++q) {
          const auto element = hn::Set(d, query[q]);
          HWY_UNROLL(4)
          for (int s = 0; s < kStrips; ++s) sums[q][s] = hn::MulAdd(element, key[s], sums[q][s]);
        }
      }
    }
    HWY_UNROLL(4)
    for (int s = 0; s < kStrips; ++s) {
      float* to = queries.ScoresOf(std::min(page + s / kStripsOfPage, queries.last_page), 0);
      HWY_UNROLL(16)
      for (int q = 0; q < kCount; ++q) {
        hn::StoreU(hn::Mul(sums[q][s], hn::Set(d, scale)), d, to + q * kPageTokens + s % kStripsOfPage * kLanes);
      }
    }
  }
}

// scores become cap * tanh(scores / cap).
void CapScores(const Queries& queries, float cap) {
  const Floats d;
  float* end = queries.ScoresOf(queries.last_page + 1, 0);
  for (float* scores = queries.scores; scores < end; scores += kLanes) {
    hn::StoreU(SoftCapped(d, hn::LoadU(d, scores), hn::Set(d, cap)), d, scores);
  }
}

// The scores of positions that query q must not see become minus infinity.
void Mask(const Queries& queries, int q) {
  const auto mask = [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      queries.ScoresOf(i / kPageTokens, q)[i % kPageTokens] = -std::numeric_limits<float>::infinity();
    }
  };
  mask(queries.first_page * kPageTokens, queries.begin[q]);
  mask(queries.length[q], (queries.last_page + 1) * kPageTokens);
}

// Turns the scores of query q into exponentials and sets its denominator. Positions that it must not see become 0.
void Softmax(Queries& queries, int q) {
  constexpr int kParts = kSums / kLanes;
  const Floats d;
  Mask(queries, q);
  auto largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int page = queries.first_page; page <= queries.last_page; ++page) {
    const float* scores = queries.ScoresOf(page, q);
    for (int part = 0; part < kParts; ++part) largest = hn::Max(largest, hn::LoadU(d, scores + part * kLanes));
  }
  const auto top = hn::MaxOfLanes(d, largest);
  hn::Vec<Floats> partial[kParts];
  for (auto& sum : partial) sum = hn::Zero(d);
  for (int page = queries.first_page; page <= queries.last_page; ++page) {
    float* scores = queries.ScoresOf(page, q);
    for (int part = 0; part < kParts; ++part) {
      const auto weight = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + part * kLanes), top));
      hn::StoreU(weight, d, scores + part * kLanes);
      partial[part] = hn::Add(weight, partial[part]);
    }
  }
  float sums[kSums];
  for (int part = 0; part < kParts; ++part) hn::StoreU(partial[part], d, sums + part * kLanes);
  queries.denominator[q] = SumPairwise(sums);
}

template <int kCount>
void WeightedValues(const Queries& queries, const Tiles& values, int head_dim, Rounding rounding) {
  constexpr int kVectors = kManyRegisters && kCount > 6 ? 2 : 4;
  constexpr int kCacheLine = 32;  // elements
  const Floats d;
  for (int begin = 0; begin < head_dim; begin += kVectors * kLanes) {
    // head_dim is a multiple of one vector, but perhaps not of several: the last pass then repeats some.
    int offsets[kVectors];
    for (int v = 0; v < kVectors; ++v) offsets[v] = std::min(begin + v * kLanes, head_dim - kLanes);
    hn::Vec<Floats> sums[kCount][kVectors];
    HWY_UNROLL(16)
    for (int q = 0; q < kCount; ++q) {
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) sums[q][v] = hn::Zero(d);
    }
    for (int page = queries.first_page; page <= queries.last_page; ++page) {
      const uint16_t* row = values.Of(page);
      const uint16_t* ahead = values.Of(std::min(page + kPagesAhead, queries.last_page)) + begin;
      const float* weights = queries.ScoresOf(page, 0);
      const int tokens = std::min(kPageTokens, queries.max_length - page * kPageTokens);
      for (int t = 0; t < tokens; ++t, row += head_dim, ahead += head_dim, ++weights) {
        for (int i = 0; i < kVectors * kLanes; i += kCacheLine) Fetch(ahead + i);
        hn::Vec<Floats> value[kVectors];
        HWY_UNROLL(4)
        for (int v = 0; v < kVectors; ++v) value[v] = LoadBf16(row + offsets[v]);
        HWY_UNROLL(16)
        for (int q = 0; q < kCount; ++q) {
          const auto weight = hn::Set(d, weights[q * kPageTokens]);
          HWY_UNROLL(4)
          for (int v = 0; v < kVectors; ++v) sums[q][v] = hn::MulAdd(weight, value[v], sums[q][v]);
        }
      }
    }
    HWY_UNROLL(16)
    for (int q = 0; q < kCount; ++q) {
      const auto denominator = hn::Set(d, queries.denominator[q]);
      HWY_UNROLL(4)
      for (int v = 0; v < kVectors; ++v) {
        hn::StoreU(Rounded(d, hn::Div(sums[q][v], denominator), rounding), d, queries.out[q] + offsets[v]);
      }
    }
  }
}

template <int kCount>
void Attend(Queries& queries, const Tiles& keys, const Tiles& values, int head_dim, const AttentionOptions& options) {
  for (int i = 0; i < head_dim; ++i) {
    for (int q = 0; q < kCount; ++q) queries.packed[i * kCount + q] = queries.query[q][i];
  }
  Scores<kCount>(queries, keys, head_dim, options.scale);
  if (options.soft_cap > 0) CapScores(queries, options.soft_cap);
  for (int q = 0; q < kCount; ++q) Softmax(queries, q);
  WeightedValues<kCount>(queries, values, head_dim, options.rounding);
}

using AttendFunction = void (*)(Queries& queries, const Tiles& keys, const Tiles& values, int head_dim,
                                const AttentionOptions& options);

template <int kCount = kQueriesAtOnce>
AttendFunction AttendOf(int count) {
  if constexpr (kCount > 1) {
    if (count < kCount) return AttendOf<kCount - 1>(count);
  }
  return &Attend<kCount>;
}

void AttentionImpl(const float* query, int query_stride, int rows, int first_position, const LayerPages& kv,
                   const HeadShape& shape, int kv_head, const AttentionOptions& options, float* scratch, float* out,
                   int out_stride) {
  const size_t tile = size_t(kv_head) * shape.head_dim * kPageTokens * sizeof(uint16_t);
  const Tiles keys{kv.pages, kv.key_offset + tile};
  const Tiles values{kv.pages, kv.value_offset + tile};
  const int group = shape.query_heads / shape.kv_heads;
  const int total = rows * group;
  const int blocks = (total + kQueriesAtOnce - 1) / kQueriesAtOnce;
  for (int block = 0; block < blocks; ++block) {
    // Blocks of equal size: 14 query vectors are 7 + 7, not 12 + 2.
    const int first = total * block / blocks;
    Queries queries = {};
    queries.count = total * (block + 1) / blocks - first;
    queries.packed = scratch;
    queries.scores = scratch + kMaxQueries * kMaxHeadDim;
    for (int q = 0; q < queries.count; ++q) {
      const int row = (first + q) / group;
      const int head = kv_head * group + (first + q) % group;
      queries.query[q] = query + size_t(row) * query_stride + size_t(head) * shape.head_dim;
      queries.out[q] = out + size_t(row) * out_stride + size_t(head) * shape.head_dim;
      queries.length[q] = first_position + row + 1;
      queries.begin[q] = options.window > 0 ? std::max(0, queries.length[q] - options.window) : 0;
      queries.max_length = queries.length[q];
    }
    // Rows are in order, so that the first one's window begins first.
    queries.first_page = queries.begin[0] / kPageTokens;
    queries.last_page = (queries.max_length - 1) / kPageTokens;
    AttendOf(queries.count)(queries, keys, values, shape.head_dim, options);
  }
}

}  // namespace quicksave::engine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::engine::cpu {

HWY_EXPORT(AttentionImpl);

size_t AttentionScratchSize(int length) { return size_t(kMaxQueries) * (kMaxHeadDim + PaddedLength(length)); }

void StoreKeyValue(const float* key, const float* value, const HeadShape& shape, int slot, std::byte* page_keys,
                   std::byte* page_values) {
  auto* keys = reinterpret_cast<uint16_t*>(page_keys);
  auto* values = reinterpret_cast<uint16_t*>(page_values);
  for (int head = 0; head < shape.kv_heads; ++head) {
    const size_t tile = size_t(head) * shape.head_dim * kPageTokens;
    for (int i = 0; i < shape.head_dim; ++i) {
      keys[tile + size_t(i) * kPageTokens + slot] = Bf16Bits(key[head * shape.head_dim + i]);
      values[tile + size_t(slot) * shape.head_dim + i] = Bf16Bits(value[head * shape.head_dim + i]);
    }
  }
}

void Attention(const float* query, int query_stride, int rows, int first_position, const LayerPages& kv,
               const HeadShape& shape, int kv_head, const AttentionOptions& options, float* scratch, float* out,
               int out_stride) {
  HWY_DYNAMIC_DISPATCH(AttentionImpl)
  (query, query_stride, rows, first_position, kv, shape, kv_head, options, scratch, out, out_stride);
}

}  // namespace quicksave::engine::cpu
#endif
