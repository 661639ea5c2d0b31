#include "compressor/container.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/byte_io.h"

namespace quicksave::compressor {
namespace {

constexpr std::string_view kMagic = "QSBK";
// Magic, version, a reserved field and the header's size: the same in every version.
constexpr size_t kPrefixBytes = 12;
constexpr size_t kBytesPerSection = sizeof(uint32_t) + sizeof(uint64_t);

absl::Status Damaged(absl::string_view what) { return absl::DataLossError(absl::StrCat("block container: ", what)); }

struct Header {
  ContainerInfo info;
  std::vector<uint64_t> section_checksums;
};

// The bytes of the header without its checksum, once magic, checksum and version are found right.
absl::StatusOr<std::string_view> CheckHeader(std::string_view bytes) {
  ByteReader reader(bytes);
  if (reader.Bytes(kMagic.size()) != kMagic) return Damaged("not a container");
  const auto version = reader.Integer<uint16_t>();
  reader.Integer<uint16_t>();
  const auto header_bytes = reader.Integer<uint32_t>();
  if (!reader.ok() || header_bytes < kPrefixBytes + sizeof(uint64_t) || header_bytes > bytes.size()) {
    return Damaged("header cut short");
  }
  if (!ChecksumMatches(bytes.substr(0, header_bytes))) return Damaged("header checksum mismatch");
  if (version == 0) return Damaged("version 0");
  if (version > kContainerVersion) {
    return absl::UnimplementedError(
        absl::StrCat("block container of version ", version, ", this program reads up to ", kContainerVersion));
  }
  return bytes.substr(0, header_bytes - sizeof(uint64_t));
}

Digest128 ReadDigest(ByteReader& reader) { return Digest128::FromBytes(reader.Bytes(16)).value_or(Digest128{}); }

int ReadDimension(ByteReader& reader) {
  return static_cast<int>(std::min(reader.Integer<uint32_t>(), uint32_t{1} << 30));
}

// The sections' sizes and checksums; true if they agree with what the header said before.
bool ReadSections(ByteReader& reader, uint32_t count, Header& header) {
  ContainerInfo& info = header.info;
  if (info.tensors_per_section == 0 || reader.rest().size() != count * kBytesPerSection) return false;
  const size_t tensors = info.shape.tensors();
  if (count != (tensors + info.tensors_per_section - 1) / info.tensors_per_section) return false;
  size_t total = 0;
  for (uint32_t i = 0; i < count; ++i) {
    info.section_sizes.push_back(reader.Integer<uint32_t>());
    header.section_checksums.push_back(reader.Integer<uint64_t>());
    total += info.section_sizes.back();
  }
  return total == info.payload_bytes;
}

absl::StatusOr<Header> ParseHeader(std::string_view bytes) {
  absl::StatusOr<std::string_view> body = CheckHeader(bytes);
  if (!body.ok()) return body.status();
  ByteReader reader(*body);
  reader.Bytes(kMagic.size());
  Header header;
  ContainerInfo& info = header.info;
  info.container_version = reader.Integer<uint16_t>();
  reader.Integer<uint16_t>();
  info.header_bytes = reader.Integer<uint32_t>();
  info.codec_version = reader.Integer<uint32_t>();
  const std::string_view name = reader.Bytes(kMaxCodecNameLength);
  info.codec = std::string(name.substr(0, name.find('\0')));
  info.profile_id = ReadDigest(reader);
  info.block_id = ReadDigest(reader);
  info.shape.layers = ReadDimension(reader);
  info.shape.kv_heads = ReadDimension(reader);
  info.shape.head_dim = ReadDimension(reader);
  info.shape.tokens = ReadDimension(reader);
  info.tensors_per_section = reader.Integer<uint32_t>();
  const auto section_count = reader.Integer<uint32_t>();
  info.payload_bytes = reader.Integer<uint64_t>();
  if (!reader.ok() || !info.shape.Validate().ok() || !ReadSections(reader, section_count, header)) {
    return Damaged("impossible header");
  }
  return header;
}

std::string WriteHeader(const Codec& codec, const BlockShape& shape, const BlockId& block_id,
                        const EncodedBlock& encoded) {
  const size_t header_bytes = ContainerHeaderBytes(encoded.section_sizes.size());
  std::string out;
  out.reserve(header_bytes);
  out += kMagic;
  AppendInteger(out, kContainerVersion);
  AppendInteger(out, uint16_t{0});
  AppendInteger(out, static_cast<uint32_t>(header_bytes));
  AppendInteger(out, codec.version());
  out += codec.name();
  out.append(kMaxCodecNameLength - codec.name().size(), '\0');
  out += codec.profile_id().ToBytes();
  out += block_id.ToBytes();
  for (const int dimension : {shape.layers, shape.kv_heads, shape.head_dim, shape.tokens}) {
    AppendInteger(out, static_cast<uint32_t>(dimension));
  }
  AppendInteger(out, encoded.tensors_per_section);
  AppendInteger(out, static_cast<uint32_t>(encoded.section_sizes.size()));
  std::string_view rest = encoded.payload();
  AppendInteger(out, uint64_t{rest.size()});
  for (const uint32_t size : encoded.section_sizes) {
    AppendInteger(out, size);
    AppendInteger(out, Checksum(rest.substr(0, size)));
    rest.remove_prefix(size);
  }
  AppendChecksum(out);
  return out;
}

std::string WriteContainer(const Codec& codec, const BlockShape& shape, const BlockId& block_id, EncodedBlock encoded) {
  const std::string header = WriteHeader(codec, shape, block_id, encoded);
  // Where there is room of just this size, nothing moves.
  encoded.bytes.replace(0, encoded.header_room, header);
  return std::move(encoded.bytes);
}

// Decodes a parsed container.
absl::Status Decode(const Codec& codec, const Container& container, const BlockContext& context, MutableBlockView out) {
  const ContainerInfo& info = container.info;
  if (info.codec_version > codec.version()) {
    return absl::UnimplementedError(absl::StrCat("block of codec '", info.codec, "' version ", info.codec_version,
                                                 ", this program reads up to ", codec.version()));
  }
  if (info.shape != out.shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("container holds ", info.shape.DebugString(), ", room is for ", out.shape.DebugString()));
  }
  const EncodedBlockView encoded{
      .bytes = container.payload, .tensors_per_section = info.tensors_per_section, .section_sizes = info.section_sizes};
  absl::Status status = codec.Decode(encoded, info.codec_version, context, out);
  if (status.ok() && codec.lossless() && ComputeBlockId(out.view()) != info.block_id) {
    return Damaged(absl::StrCat("decoded values are not those of block ", info.block_id.ToHex()));
  }
  return status;
}

}  // namespace

absl::StatusOr<ContainerInfo> PeekContainer(std::string_view bytes) {
  absl::StatusOr<Header> header = ParseHeader(bytes);
  if (!header.ok()) return header.status();
  return std::move(header->info);
}

absl::StatusOr<Container> ParseContainer(std::string_view bytes) {
  absl::StatusOr<Header> header = ParseHeader(bytes);
  if (!header.ok()) return header.status();
  std::string_view rest = bytes.substr(header->info.header_bytes);
  if (rest.size() != header->info.payload_bytes) return Damaged("payload cut short or too long");
  for (size_t i = 0; i < header->section_checksums.size(); ++i) {
    const std::string_view section = rest.substr(0, header->info.section_sizes[i]);
    if (Checksum(section) != header->section_checksums[i]) {
      return Damaged(absl::StrCat("checksum mismatch in section ", i));
    }
    rest.remove_prefix(section.size());
  }
  return Container{.info = std::move(header->info), .payload = bytes.substr(header->info.header_bytes)};
}

absl::StatusOr<std::string> EncodeBlock(const CodecRegistry& registry, std::string_view codec_name, BlockView block,
                                        const BlockContext& context) {
  if (absl::Status status = block.Validate(); !status.ok()) return status;
  return EncodeBlock(registry, codec_name, block, ComputeBlockId(block), context);
}

absl::StatusOr<std::string> EncodeBlock(const CodecRegistry& registry, std::string_view codec_name, BlockView block,
                                        const BlockId& block_id, const BlockContext& context) {
  absl::StatusOr<const Codec*> codec = registry.Find(codec_name);
  if (!codec.ok()) return codec.status();
  return EncodeBlock(**codec, block, block_id, context);
}

absl::StatusOr<std::string> EncodeBlock(const Codec& codec, BlockView block, const BlockId& block_id,
                                        const BlockContext& context) {
  absl::StatusOr<EncodedBlock> encoded = codec.Encode(block, context);
  if (!encoded.ok()) return encoded.status();
  return WriteContainer(codec, block.shape, block_id, *std::move(encoded));
}

absl::Status DecodeBlock(const CodecRegistry& registry, std::string_view bytes, const BlockContext& context,
                         MutableBlockView out) {
  if (absl::Status status = out.Validate(); !status.ok()) return status;
  absl::StatusOr<Container> container = ParseContainer(bytes);
  if (!container.ok()) return container.status();
  absl::StatusOr<const Codec*> codec = registry.Find(container->info.codec, container->info.profile_id);
  if (!codec.ok()) return codec.status();
  return Decode(**codec, *container, context, out);
}

absl::Status DecodeBlock(const Codec& codec, std::string_view bytes, const BlockContext& context,
                         MutableBlockView out) {
  if (absl::Status status = out.Validate(); !status.ok()) return status;
  absl::StatusOr<Container> container = ParseContainer(bytes);
  if (!container.ok()) return container.status();
  if (container->info.codec != codec.name() || container->info.profile_id != codec.profile_id()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the block is of codec '", container->info.codec, "', profile ", container->info.profile_id.ToHex(),
        ", not of '", std::string(codec.name()), "', profile ", codec.profile_id().ToHex()));
  }
  return Decode(codec, *container, context, out);
}

}  // namespace quicksave::compressor
