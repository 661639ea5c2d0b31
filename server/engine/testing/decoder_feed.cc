#include "server/engine/testing/decoder_feed.h"

#include <cstring>
#include <numeric>
#include <random>

namespace quicksave::engine {

FedSlice AppendSlice(PagePool& pool, Sequence& sequence, absl::Span<const int32_t> tokens, LogitsWanted wanted,
                     Taps* taps) {
  PageReservation reservation = pool.Reserve(sequence.PagesToAppend(static_cast<int>(tokens.size()))).value();
  const int position = sequence.length();
  sequence.Append(tokens, reservation);
  FedSlice fed;
  for (const PageRef& page : sequence.pages()) fed.pages.push_back(page.data());
  fed.slice = {.tokens = tokens, .first_position = position, .pages = fed.pages, .logits = wanted};
  if (taps != nullptr) {
    fed.tap_rows = taps->Append(position, static_cast<int>(tokens.size()));
    fed.slice.taps = {taps->layers(), fed.tap_rows};
  }
  return fed;
}

std::vector<int> AllTapLayers(const ModelConfig& config) {
  std::vector<int> layers(config.layers + 2);
  std::iota(layers.begin(), layers.end(), 0);
  return layers;
}

Taps CaptureTaps(Decoder& decoder, PagePool& pool, absl::Span<const int32_t> tokens, const std::vector<int>& layers) {
  Sequence sequence;
  Taps taps({.layers = layers, .all_tokens = true}, decoder.config().hidden_size);
  const FedSlice fed = AppendSlice(pool, sequence, tokens, LogitsWanted::kNone, &taps);
  decoder.Forward({fed.slice});
  return taps;
}

std::vector<float> TapRows(const Taps& taps, int layer) {
  const TapExtent extent = taps.extent();
  std::vector<float> rows;
  for (int token = extent.first_token; token < extent.first_token + extent.token_count; ++token) {
    const absl::Span<const float> row = taps.Row(layer, token);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return rows;
}

std::vector<float> FeedTokens(Decoder& decoder, PagePool& pool, Sequence& sequence, absl::Span<const int32_t> tokens,
                              LogitsWanted wanted, int chunk) {
  std::vector<float> logits;
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const auto part = tokens.subspan(begin, chunk);
    const bool early = wanted == LogitsWanted::kLast && begin + part.size() < tokens.size();
    const FedSlice fed = AppendSlice(pool, sequence, part, early ? LogitsWanted::kNone : wanted);
    const auto rows = decoder.Forward({fed.slice});
    logits.insert(logits.end(), rows.begin(), rows.end());
  }
  return logits;
}

std::vector<uint16_t> KeyValueBits(const Sequence& sequence) {
  if (sequence.length() == 0) return {};
  return KeyValueBits(sequence, 0, sequence.pages().front().shape().layers);
}

std::vector<uint16_t> KeyValueBits(const Sequence& sequence, int first, int end) {
  std::vector<uint16_t> bits;
  for (int token = 0; token < sequence.length(); ++token) {
    const PageRef& page = sequence.pages()[token / cpu::kPageTokens];
    const KvShape& shape = page.shape();
    const int slot = token % cpu::kPageTokens;
    for (int layer = first; layer < end; ++layer) {
      const auto* keys = reinterpret_cast<const uint16_t*>(page.data() + shape.key_offset(layer));
      const auto* values = reinterpret_cast<const uint16_t*>(page.data() + shape.value_offset(layer));
      for (int i = 0; i < shape.kv_heads * shape.head_dim; ++i) bits.push_back(keys[i * cpu::kPageTokens + slot]);
      for (int head = 0; head < shape.kv_heads; ++head) {
        const uint16_t* value = values + (size_t(head) * cpu::kPageTokens + slot) * shape.head_dim;
        bits.insert(bits.end(), value, value + shape.head_dim);
      }
    }
  }
  return bits;
}

bool SameBits(absl::Span<const float> a, absl::Span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<int32_t> RandomTokens(int count, int vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
  return tokens;
}

}  // namespace quicksave::engine
