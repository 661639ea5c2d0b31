// A block: the K and V of up to 128 consecutive tokens of all layers, as bf16 bit patterns, and its identity.
//
// Canonical layout: `[layers][2: K then V][kv_heads][head_dim][tokens]`, token fastest, 16-bit little-endian bf16 bit
// patterns. One (layer, K|V, head, dim) is a *channel*; its values over the block's tokens are contiguous. One
// (layer, K|V) is a *tensor*. Keys are stored as the engine holds them, that is, after RoPE.
//
//   BlockShape shape{.layers = 30, .kv_heads = 3, .head_dim = 64, .tokens = 128};
//   std::vector<uint16_t> values(shape.values());
//   BlockId id = ComputeBlockId(BlockView{shape, values});

#ifndef QUICKSAVE_COMPRESSOR_BLOCK_H_
#define QUICKSAVE_COMPRESSOR_BLOCK_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quicksave::compressor {

// A block holds at most this many tokens.
inline constexpr int kMaxBlockTokens = 128;
// Upper limit of BlockShape::values(): 256 MiB of raw state.
inline constexpr size_t kMaxBlockValues = size_t{1} << 27;

// The dimensions of a block. Plain data; the size functions are meaningful once Validate() is OK.
struct BlockShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int tokens = 0;

  // (layer, K|V) pairs.
  size_t tensors() const { return size_t{2} * layers; }
  // Channels of one tensor.
  size_t channels_per_tensor() const { return static_cast<size_t>(kv_heads) * head_dim; }
  // Channels of the block: layers * 2 * kv_heads * head_dim.
  size_t channels() const { return tensors() * channels_per_tensor(); }
  // 16-bit values of the block.
  size_t values() const { return channels() * tokens; }
  // Bytes of the raw block.
  size_t bytes() const { return values() * sizeof(uint16_t); }

  // INVALID_ARGUMENT unless 1 <= layers, kv_heads, head_dim <= 4096, 1 <= tokens <= kMaxBlockTokens and
  // values() <= kMaxBlockValues.
  absl::Status Validate() const;
  // "30 layers x 3 heads x 64 dims x 128 tokens", for messages.
  std::string DebugString() const;

  friend bool operator==(const BlockShape&, const BlockShape&) = default;
};

// A read-only block in canonical layout; does not own the values.
struct BlockView {
  BlockShape shape;
  absl::Span<const uint16_t> values;

  // The shape's Validate(), and INVALID_ARGUMENT unless values.size() == shape.values().
  absl::Status Validate() const;
};

// A writable block in canonical layout; does not own the values.
struct MutableBlockView {
  BlockShape shape;
  absl::Span<uint16_t> values;

  BlockView view() const { return {shape, values}; }
  absl::Status Validate() const { return view().Validate(); }
};

// A 128-bit XXH3 digest. All zero means "none". Ordered as the 16 bytes of its canonical form.
struct Digest128 {
  uint64_t high = 0;
  uint64_t low = 0;

  bool IsNone() const { return high == 0 && low == 0; }
  // 32 lower-case hexadecimal digits, high word first.
  std::string ToHex() const;
  // 16 bytes, big endian, high word first: sorts like the digest.
  std::string ToBytes() const;
  // The inverse of ToHex; INVALID_ARGUMENT for anything but 32 hexadecimal digits (either case).
  static absl::StatusOr<Digest128> FromHex(std::string_view hex);
  // The inverse of ToBytes; INVALID_ARGUMENT unless 16 bytes long.
  static absl::StatusOr<Digest128> FromBytes(std::string_view bytes);

  friend bool operator==(const Digest128&, const Digest128&) = default;
  friend auto operator<=>(const Digest128&, const Digest128&) = default;  // NOLINT(modernize-use-nullptr)
  template <typename H>
  friend H AbslHashValue(H state, const Digest128& digest) {
    return H::combine(std::move(state), digest.high, digest.low);
  }
};

// Names a block by its content: equal shape and equal bits, equal id.
using BlockId = Digest128;

// XXH3-128 over the shape (layers, kv_heads, head_dim, tokens as 32-bit little endian) followed by the raw canonical
// bytes. The view must be valid. Costs one pass over the block; any thread.
BlockId ComputeBlockId(BlockView block);

// XXH3-128 of some bytes.
Digest128 ComputeDigest(std::string_view bytes);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_BLOCK_H_
