// The codec interface: what turns a block into fewer bytes and back, and the registry that codecs join.
//
// A codec produces a payload only. The container (container.h) frames it with codec, profile, shape, identity and
// checksums; callers outside this folder normally use EncodeBlock and DecodeBlock from there.

#ifndef QUICKSAVE_COMPRESSOR_CODEC_H_
#define QUICKSAVE_COMPRESSOR_CODEC_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "compressor/block.h"

namespace quicksave::compressor {

// What is known about a block beside its values. A codec takes from it what it needs and ignores the rest; `exact`
// needs nothing. The same context must be given to Encode and Decode. Spans are not owned.
struct BlockContext {
  // Fingerprint of the model that made the block; empty when unknown. Codecs with a profile refuse another model's.
  std::string_view model_fingerprint;
  // The block's token ids, [tokens]; may be empty.
  absl::Span<const int32_t> token_ids;
  // Position in the sequence of the block's first token; the others follow without gaps.
  int64_t first_position = 0;
  // What follows is for lossy codecs. Cosines and sines of RoPE's angles, for each layer [tokens][2][head_dim / 2],
  // from the block's first token on. Dimension i is paired with i + head_dim / 2. Layers may share a table.
  absl::Span<const float* const> angles;
  // The residual stream after the codec's split, [tokens, hidden_size].
  absl::Span<const float> hidden_states;
  // Leading tokens of the block that the codec does not store: they are recomputed.
  int known_tokens = 0;
  // Step of the quantiser. Decoders of latents read it from the payload, the residual's from here.
  float step = 0;
  // The decoded latent that a residual is about: the same shape. Empty for other codecs.
  absl::Span<const uint16_t> base;
};

// The payload of a block. It consists of sections, one after the other without gaps; each holds `tensors_per_section`
// consecutive tensors (the last one maybe fewer) and can be checked by itself.
struct EncodedBlock {
  std::string bytes;
  uint32_t tensors_per_section = 0;
  // Sizes in bytes, ceil(tensors / tensors_per_section) of them; their sum is payload().size().
  std::vector<uint32_t> section_sizes;
  // So many bytes before the payload are no part of it. With ContainerHeaderBytes(section_sizes.size()) of them the
  // payload need not be copied into its container.
  size_t header_room = 0;

  std::string_view payload() const { return std::string_view(bytes).substr(header_room); }
};

// Size of the header of a container with so many sections.
constexpr size_t ContainerHeaderBytes(size_t sections) {
  return 96 + sections * (sizeof(uint32_t) + sizeof(uint64_t)) + sizeof(uint64_t);
}

// A view of the same, as Decode takes it.
struct EncodedBlockView {
  std::string_view bytes;
  uint32_t tensors_per_section = 0;
  absl::Span<const uint32_t> section_sizes;
};

// A codec's name is at most this long.
inline constexpr size_t kMaxCodecNameLength = 16;

// Encodes blocks and decodes them. Immutable; every method may be called from any number of threads at once.
class Codec {
 public:
  virtual ~Codec() = default;

  // Lower-case name, 1 to 16 characters of [a-z0-9_-], for example "exact".
  virtual std::string_view name() const = 0;
  // Version of the payload format that Encode writes. Decode reads it and all older ones.
  virtual uint32_t version() const = 0;
  // True if Decode(Encode(x)) has the bits of x, for every x.
  virtual bool lossless() const = 0;
  // The profile that payloads of this codec depend on; none if they depend on none.
  virtual Digest128 profile_id() const { return {}; }

  // Encodes a block. INVALID_ARGUMENT for a view or context that is not valid, FAILED_PRECONDITION for a block of
  // another model or shape than the codec's profile is for.
  virtual absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext& context) const = 0;

  // Decodes a payload of version `payload_version` into `out`, whose shape must be the encoded block's. DATA_LOSS for
  // bytes that Encode cannot have written; `out` then holds unspecified values. Never reads outside `encoded`, whatever
  // is in it. The caller checks the identity of the result.
  virtual absl::Status Decode(const EncodedBlockView& encoded, uint32_t payload_version, const BlockContext& context,
                              MutableBlockView out) const = 0;
};

// The codecs that a process can use, by name and profile. Codecs join by Register and stay until the registry goes,
// so that pointers from Find remain valid. Thread-safe.
class CodecRegistry {
 public:
  CodecRegistry() = default;
  CodecRegistry(const CodecRegistry&) = delete;
  CodecRegistry& operator=(const CodecRegistry&) = delete;

  // Adds a codec. The last one registered under a name is the one that Find(name) returns; the earlier ones go on
  // decoding what was written with their profile. ALREADY_EXISTS if both name and profile id are taken,
  // INVALID_ARGUMENT if the name is not one.
  absl::Status Register(std::unique_ptr<const Codec> codec);

  // The codec to encode with. NOT_FOUND if no codec has this name.
  absl::StatusOr<const Codec*> Find(std::string_view name) const;

  // The codec to decode with. UNIMPLEMENTED if no codec has this name, FAILED_PRECONDITION if none of that name has
  // this profile.
  absl::StatusOr<const Codec*> Find(std::string_view name, const Digest128& profile_id) const;

  // The names, sorted, each once.
  std::vector<std::string> Names() const;

 private:
  mutable absl::Mutex mutex_;
  // All codecs of a name in the order of registration.
  std::map<std::string, std::vector<std::unique_ptr<const Codec>>, std::less<>> codecs_ ABSL_GUARDED_BY(mutex_);
};

// Registers every codec of this folder that needs no profile.
absl::Status RegisterBuiltinCodecs(CodecRegistry& registry);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_CODEC_H_
