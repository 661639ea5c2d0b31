#include "compressor/block.h"

#include <array>
#include <bit>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "compressor/xxh3.h"

static_assert(std::endian::native == std::endian::little, "blocks and formats are little endian");

namespace quicksave::compressor {
namespace {

constexpr int kMaxDimension = 4096;

Digest128 FromXxh3(const Xxh3Digest& digest) { return {.high = digest.high, .low = digest.low}; }

}  // namespace

absl::Status BlockShape::Validate() const {
  const auto in_range = [](int value) { return value >= 1 && value <= kMaxDimension; };
  if (!in_range(layers) || !in_range(kv_heads) || !in_range(head_dim) || tokens < 1 || tokens > kMaxBlockTokens) {
    return absl::InvalidArgumentError(absl::StrCat("block shape out of range: ", DebugString()));
  }
  if (values() > kMaxBlockValues) {
    return absl::InvalidArgumentError(
        absl::StrCat("block of ", values(), " values exceeds the limit of ", kMaxBlockValues, ": ", DebugString()));
  }
  return absl::OkStatus();
}

std::string BlockShape::DebugString() const {
  return absl::StrCat(layers, " layers x ", kv_heads, " heads x ", head_dim, " dims x ", tokens, " tokens");
}

absl::Status BlockView::Validate() const {
  if (absl::Status status = shape.Validate(); !status.ok()) return status;
  if (values.size() != shape.values()) {
    return absl::InvalidArgumentError(
        absl::StrCat("block of ", shape.DebugString(), " needs ", shape.values(), " values, got ", values.size()));
  }
  return absl::OkStatus();
}

std::string Digest128::ToHex() const { return absl::StrFormat("%016x%016x", high, low); }

std::string Digest128::ToBytes() const { return absl::HexStringToBytes(ToHex()); }

absl::StatusOr<Digest128> Digest128::FromHex(std::string_view hex) {
  bool valid = hex.size() == 32;
  for (const char c : hex) valid = valid && absl::ascii_isxdigit(static_cast<unsigned char>(c));
  if (!valid) return absl::InvalidArgumentError("a digest is written as 32 hexadecimal digits");
  return FromBytes(absl::HexStringToBytes(absl::string_view(hex.data(), hex.size())));
}

absl::StatusOr<Digest128> Digest128::FromBytes(std::string_view bytes) {
  if (bytes.size() != 16) return absl::InvalidArgumentError("a digest is 16 bytes long");
  uint64_t words[2] = {0, 0};
  for (size_t i = 0; i < bytes.size(); ++i) words[i / 8] = words[i / 8] << 8 | static_cast<uint8_t>(bytes[i]);
  return Digest128{.high = words[0], .low = words[1]};
}

BlockId ComputeBlockId(BlockView block) {
  const BlockShape& shape = block.shape;
  const std::array<uint32_t, 4> dimensions = {
      static_cast<uint32_t>(shape.layers), static_cast<uint32_t>(shape.kv_heads), static_cast<uint32_t>(shape.head_dim),
      static_cast<uint32_t>(shape.tokens)};
  return FromXxh3(Xxh3Wide({.first = dimensions.data(),
                            .first_bytes = sizeof(dimensions),
                            .second = block.values.data(),
                            .second_bytes = block.values.size() * sizeof(uint16_t)}));
}

Digest128 ComputeDigest(std::string_view bytes) {
  return FromXxh3(Xxh3Wide({.first = bytes.data(), .first_bytes = bytes.size(), .second = "", .second_bytes = 0}));
}

}  // namespace quicksave::compressor
