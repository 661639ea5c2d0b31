// The container: a block's payload framed so that it explains and proves itself. docs/formats/block_container.md is
// the byte-exact description.
//
//   CodecRegistry registry;
//   RegisterBuiltinCodecs(registry).IgnoreError();
//   absl::StatusOr<std::string> bytes = EncodeBlock(registry, "exact", block, context);
//   absl::StatusOr<ContainerInfo> info = PeekContainer(*bytes);
//   std::vector<uint16_t> values(info->shape.values());
//   absl::Status status = DecodeBlock(registry, *bytes, context, MutableBlockView{info->shape, values});
//
// All functions may be called from any thread; each call works on one core. One block per task is the caller's way to
// use more.

#ifndef QUICKSAVE_COMPRESSOR_CONTAINER_H_
#define QUICKSAVE_COMPRESSOR_CONTAINER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/codec.h"

namespace quicksave::compressor {

// Version of the container format that EncodeBlock writes; all versions up to it are read.
inline constexpr uint16_t kContainerVersion = 1;

// What a container's header says. Owns its contents.
struct ContainerInfo {
  uint16_t container_version = 0;
  std::string codec;
  uint32_t codec_version = 0;
  // None if the payload depends on no profile.
  Digest128 profile_id;
  BlockShape shape;
  // Identity of the raw block.
  BlockId block_id;
  // How the payload divides, see EncodedBlock.
  uint32_t tensors_per_section = 0;
  std::vector<uint32_t> section_sizes;
  size_t header_bytes = 0;
  size_t payload_bytes = 0;
};

// A container whose header and section checksums were verified. `payload` points into the parsed bytes.
struct Container {
  ContainerInfo info;
  std::string_view payload;
};

// Reads the header only and verifies its checksum; needs just the first bytes of a container, header_bytes of them.
// DATA_LOSS if they are damaged, cut short or no container at all; UNIMPLEMENTED if a newer version wrote them.
absl::StatusOr<ContainerInfo> PeekContainer(std::string_view bytes);

// Reads a whole container, which `bytes` must be exactly, and verifies every checksum. Errors as PeekContainer.
absl::StatusOr<Container> ParseContainer(std::string_view bytes);

// Encodes a block with the codec of that name: NOT_FOUND if there is none, else the codec's errors.
absl::StatusOr<std::string> EncodeBlock(const CodecRegistry& registry, std::string_view codec_name, BlockView block,
                                        const BlockContext& context);

// The same, for a caller that has the block's id already (saves a pass over the block).
absl::StatusOr<std::string> EncodeBlock(const CodecRegistry& registry, std::string_view codec_name, BlockView block,
                                        const BlockId& block_id, const BlockContext& context);

// The same with a codec that the caller has.
absl::StatusOr<std::string> EncodeBlock(const Codec& codec, BlockView block, const BlockId& block_id,
                                        const BlockContext& context);

// Decodes a container into `out` and verifies, if the codec is lossless, that the values have the header's BlockId, so
// that damage can make an error but never other values. INVALID_ARGUMENT if the shape of `out` differs from the
// header's; UNIMPLEMENTED for an unknown codec or a newer container or codec version; FAILED_PRECONDITION if the
// profile is not registered; DATA_LOSS for damage. On error `out` holds unspecified values.
absl::Status DecodeBlock(const CodecRegistry& registry, std::string_view bytes, const BlockContext& context,
                         MutableBlockView out);

// The same with a codec that the caller has; FAILED_PRECONDITION for a container of another one.
absl::Status DecodeBlock(const Codec& codec, std::string_view bytes, const BlockContext& context, MutableBlockView out);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_CONTAINER_H_
