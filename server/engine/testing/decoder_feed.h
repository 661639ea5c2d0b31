#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_DECODER_FEED_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_DECODER_FEED_H_

// Feeding of tokens to a decoder without a scheduler, and looking at what came of it.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "server/engine/model/decoder.h"
#include "server/engine/page_pool.h"
#include "server/engine/sequence.h"
#include "server/engine/taps.h"

namespace quicksave::engine {

// A slice and the tables of pages and rows that it points to.
struct FedSlice {
  std::vector<std::byte*> pages;
  std::vector<float*> tap_rows;
  Slice slice;
};

// Appends tokens to a sequence, which makes them a slice of a forward pass; `taps`, if any, get their hidden states.
// `tokens` must live until then.
FedSlice AppendSlice(PagePool& pool, Sequence& sequence, absl::Span<const int32_t> tokens, LogitsWanted wanted,
                     Taps* taps = nullptr);

// The layers of all hidden states that a model has.
std::vector<int> AllTapLayers(const ModelConfig& config);

// The hidden states of a text's tokens at these layers, computed in one forward pass.
Taps CaptureTaps(Decoder& decoder, PagePool& pool, absl::Span<const int32_t> tokens, const std::vector<int>& layers);

// The rows of a layer of the spec, one after the other.
std::vector<float> TapRows(const Taps& taps, int layer);

// Feeds tokens in chunks, one forward pass each. Returns the logits of the wanted rows [rows, vocabulary]; kLast means
// the last of all tokens.
std::vector<float> FeedTokens(Decoder& decoder, PagePool& pool, Sequence& sequence, absl::Span<const int32_t> tokens,
                              LogitsWanted wanted, int chunk = 128);

// The bits of K and V of all tokens: for each token and layer, keys and then values [kv_heads, head_dim].
std::vector<uint16_t> KeyValueBits(const Sequence& sequence);
// Those of the layers [first, end).
std::vector<uint16_t> KeyValueBits(const Sequence& sequence, int first, int end);

// Whether two rows of floats are the same, bit for bit.
bool SameBits(absl::Span<const float> a, absl::Span<const float> b);

// Independent random ids below `vocab_size`.
std::vector<int32_t> RandomTokens(int count, int vocab_size, uint64_t seed);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_DECODER_FEED_H_
