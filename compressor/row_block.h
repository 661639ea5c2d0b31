// Row blocks: fp32 rows of one width, encoded without loss, such as the hidden states of some tokens at one layer.
//
//   const RowBlockShape shape{.rows = 128, .width = 576};
//   std::string bytes = EncodeRowBlock(shape, values, ComputeRowBlockId(shape, values));
//   absl::Status status = DecodeRowBlock(bytes, shape, id, out);
//
// Any thread; each call works on one core. docs/formats/row_block.md is the byte-exact description.

#ifndef QUICKSAVE_COMPRESSOR_ROW_BLOCK_H_
#define QUICKSAVE_COMPRESSOR_ROW_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/block.h"

namespace quicksave::compressor {

// Version of the format that EncodeRowBlock writes; all versions up to it are read.
inline constexpr uint16_t kRowBlockVersion = 1;
// What storage::BlockId::codec is for blocks of this format.
inline constexpr char kRowBlockCodec[] = "rows-1";

struct RowBlockShape {
  int rows = 0;
  int width = 0;

  size_t values() const { return static_cast<size_t>(rows) * width; }
  size_t bytes() const { return values() * sizeof(float); }
  friend bool operator==(const RowBlockShape&, const RowBlockShape&) = default;
};

// XXH3-128 over rows and width (32-bit little endian), then the values [rows, width]: equal shape and bits, equal id.
BlockId ComputeRowBlockId(const RowBlockShape& shape, absl::Span<const float> values);

// Encodes `values` [rows, width], whose id is `id`; any bits, NaN included.
std::string EncodeRowBlock(const RowBlockShape& shape, absl::Span<const float> values, const BlockId& id);

struct RowBlockInfo {
  RowBlockShape shape;
  BlockId id;
};

// What a block says of itself, which need not be what its values are. DATA_LOSS unless its checksum is that of its
// bytes; UNIMPLEMENTED when a newer program wrote it. Reads the bytes once and allocates nothing.
absl::StatusOr<RowBlockInfo> PeekRowBlock(std::string_view bytes);

// Decodes into `out` [rows, width] and checks shape, checksum and id, so that damage can make an error but never other
// values. DATA_LOSS for damage, another block or another shape; UNIMPLEMENTED when a newer program wrote it. On error
// `out` holds unspecified values.
absl::Status DecodeRowBlock(std::string_view bytes, const RowBlockShape& shape, const BlockId& id,
                            absl::Span<float> out);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_ROW_BLOCK_H_
