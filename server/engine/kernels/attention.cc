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
constexpr int kMaxQueries = 6;
inline int PaddedLength(int length) { return (length + kPageTokens - 1) / kPageTokens * kPageTokens; }
}  // namespace quicksave::engine::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace quicksave::engine::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kQueriesAtOnce = HWY_TARGET <= HWY_AVX3 ? kMaxQueries : 2;

// A few query vectors of one KV head and what is computed for them.
struct Queries {
  const float* query[kMaxQueries];  // [head_dim]
  float* out[kMaxQueries];          // [head_dim]
  int begin[kMaxQueries];           // positions that it attends to: [begin, length)
  int length[kMaxQueries];
  float* scores;   // [count][PaddedLength(max_length)]
  int first_page;  // the first position that any of them attends to, rounded down to a page's
  int max_length;
  float denominator[kMaxQueries];
};

HWY_INLINE hn::Vec<Floats> LoadBf16(const uint16_t* from) {
  const hn::Rebind<uint16_t, Floats> narrow;
  const hn::RebindToUnsigned<Floats> wide;
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(narrow, from))));
}

template <int kCount>
HWY_INLINE void Scores(const Queries& queries, const LayerPages& kv, const HeadShape& shape, int kv_head, float scale) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int padded = PaddedLength(queries.max_length);
  const size_t head_offset = kv.key_offset + size_t(kv_head) * shape.head_dim * kPageTokens * sizeof(uint16_t);
  for (int first = queries.first_page; first < queries.max_length; first += kPageTokens) {
    const auto* keys = reinterpret_cast<const uint16_t*>(kv.pages[first / kPageTokens] + head_offset);
    for (int lane = 0; lane < kPageTokens; lane += lanes) {
      hn::Vec<Floats> sums[kCount];
      HWY_UNROLL(8)
      for (int q = 0; q < kCount; ++q) sums[q] = hn::Zero(d);
      for (int i = 0; i < shape.head_dim; ++i) {
        const auto key = LoadBf16(keys + i * kPageTokens + lane);
        HWY_UNROLL(8)
        for (int q = 0; q < kCount; ++q) sums[q] = hn::MulAdd(hn::Set(d, queries.query[q][i]), key, sums[q]);
      }
      HWY_UNROLL(8)
      for (int q = 0; q < kCount; ++q) {
        hn::StoreU(hn::Mul(sums[q], hn::Set(d, scale)), d, queries.scores + size_t(q) * padded + first + lane);
      }
    }
  }
}

// scores become cap * tanh(scores / cap).
HWY_INLINE void CapScores(const Queries& queries, int q, float cap) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int padded = PaddedLength(queries.max_length);
  float* scores = queries.scores + size_t(q) * padded;
  for (int i = queries.first_page; i < padded; i += lanes) {
    hn::StoreU(SoftCapped(d, hn::LoadU(d, scores + i), hn::Set(d, cap)), d, scores + i);
  }
}

// Turns the scores of query q into exponentials and sets its denominator. Positions that it must not see become 0.
HWY_INLINE void Softmax(Queries& queries, int q) {
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int padded = PaddedLength(queries.max_length);
  float* scores = queries.scores + size_t(q) * padded;
  const int first = queries.first_page;
  std::fill(scores + first, scores + queries.begin[q], -std::numeric_limits<float>::infinity());
  std::fill(scores + queries.length[q], scores + padded, -std::numeric_limits<float>::infinity());
  auto largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (int i = first; i < padded; i += lanes) largest = hn::Max(largest, hn::LoadU(d, scores + i));
  const auto top = hn::MaxOfLanes(d, largest);
  float partial[kSums] = {};
  for (int i = first; i < padded; i += kSums) {
    for (int lane = 0; lane < kSums; lane += lanes) {
      const auto weight = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + i + lane), top));
      hn::StoreU(weight, d, scores + i + lane);
      hn::StoreU(hn::Add(weight, hn::LoadU(d, partial + lane)), d, partial + lane);
    }
  }
  queries.denominator[q] = SumPairwise(partial);
}

template <int kCount>
HWY_INLINE void WeightedValues(const Queries& queries, const LayerPages& kv, const HeadShape& shape, int kv_head,
                               Rounding rounding) {
  constexpr int kVectors = 2;
  const Floats d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int padded = PaddedLength(queries.max_length);
  const size_t head_offset = kv.value_offset + size_t(kv_head) * shape.head_dim * kPageTokens * sizeof(uint16_t);
  // head_dim is a multiple of 16, so of one vector, but perhaps not of two: the last pass then repeats a vector.
  for (int begin = 0; begin < shape.head_dim; begin += kVectors * lanes) {
    const int offsets[kVectors] = {begin, std::min(begin + lanes, shape.head_dim - lanes)};
    hn::Vec<Floats> sums[kCount][kVectors];
    HWY_UNROLL(8)
    for (int q = 0; q < kCount; ++q) sums[q][0] = sums[q][1] = hn::Zero(d);
    for (int first = queries.first_page; first < queries.max_length; first += kPageTokens) {
      const auto* values = reinterpret_cast<const uint16_t*>(kv.pages[first / kPageTokens] + head_offset);
      const int tokens = std::min(kPageTokens, queries.max_length - first);
      for (int t = 0; t < tokens; ++t) {
        const auto value0 = LoadBf16(values + t * shape.head_dim + offsets[0]);
        const auto value1 = LoadBf16(values + t * shape.head_dim + offsets[1]);
        HWY_UNROLL(8)
        for (int q = 0; q < kCount; ++q) {
          const auto weight = hn::Set(d, queries.scores[size_t(q) * padded + first + t]);
          sums[q][0] = hn::MulAdd(weight, value0, sums[q][0]);
          sums[q][1] = hn::MulAdd(weight, value1, sums[q][1]);
        }
      }
    }
    HWY_UNROLL(8)
    for (int q = 0; q < kCount; ++q) {
      const auto denominator = hn::Set(d, queries.denominator[q]);
      hn::StoreU(Rounded(d, hn::Div(sums[q][0], denominator), rounding), d, queries.out[q] + offsets[0]);
      hn::StoreU(Rounded(d, hn::Div(sums[q][1], denominator), rounding), d, queries.out[q] + offsets[1]);
    }
  }
}

template <int kCount>
void Attend(Queries& queries, const LayerPages& kv, const HeadShape& shape, int kv_head,
            const AttentionOptions& options) {
  Scores<kCount>(queries, kv, shape, kv_head, options.scale);
  for (int q = 0; q < kCount && options.soft_cap > 0; ++q) CapScores(queries, q, options.soft_cap);
  for (int q = 0; q < kCount; ++q) Softmax(queries, q);
  WeightedValues<kCount>(queries, kv, shape, kv_head, options.rounding);
}

void AttentionImpl(const float* query, int query_stride, int rows, int first_position, const LayerPages& kv,
                   const HeadShape& shape, int kv_head, const AttentionOptions& options, float* scratch, float* out,
                   int out_stride) {
  const int group = shape.query_heads / shape.kv_heads;
  const int total = rows * group;
  for (int begin = 0; begin < total;) {
    const int count = std::min(kQueriesAtOnce, total - begin);
    Queries queries;
    queries.scores = scratch;
    for (int q = 0; q < count; ++q) {
      const int row = (begin + q) / group;
      const int head = kv_head * group + (begin + q) % group;
      queries.query[q] = query + size_t(row) * query_stride + size_t(head) * shape.head_dim;
      queries.out[q] = out + size_t(row) * out_stride + size_t(head) * shape.head_dim;
      queries.length[q] = first_position + row + 1;
      queries.begin[q] = options.window > 0 ? std::max(0, queries.length[q] - options.window) : 0;
      queries.max_length = queries.length[q];
    }
    // Rows are in order, so that the first one's window begins first.
    queries.first_page = queries.begin[0] / kPageTokens * kPageTokens;
    switch (count) {
      case 6:
        Attend<6>(queries, kv, shape, kv_head, options);
        break;
      case 5:
        Attend<5>(queries, kv, shape, kv_head, options);
        break;
      case 4:
        Attend<4>(queries, kv, shape, kv_head, options);
        break;
      case 3:
        Attend<3>(queries, kv, shape, kv_head, options);
        break;
      case 2:
        Attend<2>(queries, kv, shape, kv_head, options);
        break;
      default:
        Attend<1>(queries, kv, shape, kv_head, options);
        break;
    }
    begin += count;
  }
}

}  // namespace quicksave::engine::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::engine::cpu {

HWY_EXPORT(AttentionImpl);

size_t AttentionScratchSize(int length) { return size_t(kMaxQueries) * PaddedLength(length); }

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
