#ifndef QUICKSAVE_SERVER_ARCHIVE_BLOCK_CODER_H_
#define QUICKSAVE_SERVER_ARCHIVE_BLOCK_CODER_H_

// Encodes blocks with the exact codec and decodes any stored block, with the profiles that the store keeps.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compressor/codec.h"
#include "compressor/container.h"
#include "compressor/exact_profile.h"
#include "compressor/replay_codec.h"
#include "server/archive/latent_profiles.h"
#include "server/engine/page_pool.h"
#include "storage/store.h"

namespace quicksave::server {

// A block in canonical layout.
struct RawBlock {
  explicit RawBlock(const compressor::BlockShape& block_shape);
  compressor::MutableBlockView mutable_view() { return {shape, {values.get(), shape.values()}}; }
  compressor::BlockView view() const { return {shape, {values.get(), shape.values()}}; }

  compressor::BlockShape shape;
  std::unique_ptr<uint16_t[]> values;
};

// What the key of a block tells that needs the model to be decoded: a latent, a latent's residual, or a block that is
// recomputed as a whole.
struct LatentKey {
  enum class Kind { kLatent, kResidual, kReplay };
  Kind kind = Kind::kLatent;
  std::string profile_id;  // empty for kReplay
  float step = 0;
};
// Nothing for keys of other codecs.
std::optional<LatentKey> ParseLatentKey(std::string_view codec_key);

// Thread-safe; each call works on one core.
class BlockCoder {
 public:
  // Registers the codecs that need no profile, where they are not registered, the model's current profile of the
  // exact codec, if the store has one, and its latent profiles. DATA_LOSS when one is damaged or does not fit the
  // model.
  static absl::StatusOr<std::unique_ptr<BlockCoder>> Create(storage::Store* store, compressor::CodecRegistry* codecs,
                                                            std::string model_fingerprint, const engine::KvShape& shape,
                                                            int hidden_size);

  // The profile that blocks are encoded with; none for generic tables.
  compressor::Digest128 profile_id() const;
  // Stores a profile of this model and encodes with it from now on.
  absl::Status AdoptProfile(const compressor::ExactProfile& profile);

  // The key that a block encoded now gets, see storage::BlockId.
  storage::BlockId KeyOf(const compressor::BlockId& id) const;
  // The latent profiles of this model.
  LatentProfiles& latents() { return latents_; }
  const LatentProfiles& latents() const { return latents_; }
  // A block of this model as a latent, or as the residual of one. The context has all that the codec needs.
  absl::StatusOr<storage::NewBlock> EncodeLatent(const LatentProfileEntry& entry, bool residual,
                                                 compressor::BlockView block, const compressor::BlockId& id,
                                                 const compressor::BlockContext& context) const;

  // A block of this model as one that is recomputed.
  absl::StatusOr<storage::NewBlock> EncodeReplay(compressor::BlockView block, const compressor::BlockId& id) const;

  // Decodes the stored bytes of a latent, residual or recomputed block that `ref` names into `block`, which holds what
  // the codec does not store; the context has all that the codec needs. Errors as Decode, and FAILED_PRECONDITION when
  // the profile is not there.
  absl::Status DecodeLatent(const storage::BlockRef& ref, std::string_view bytes,
                            const compressor::BlockContext& context, compressor::MutableBlockView block) const;

  // Encodes a block of this model.
  absl::StatusOr<storage::NewBlock> Encode(compressor::BlockView block, const compressor::BlockId& id,
                                           const compressor::BlockContext& context) const;

  // Decodes the stored bytes of the block that `ref` names; `context` names its model. Profiles that are not known yet
  // are fetched from the store. DATA_LOSS when the bytes are damaged, another block's, or need a profile that
  // is missing; UNIMPLEMENTED when a newer program wrote them.
  absl::StatusOr<RawBlock> Decode(const storage::BlockRef& ref, std::string_view bytes,
                                  const compressor::BlockContext& context);

 private:
  BlockCoder(storage::Store* store, compressor::CodecRegistry* codecs, std::string model_fingerprint,
             const engine::KvShape& shape, int hidden_size)
      : store_(store),
        codecs_(codecs),
        model_fingerprint_(std::move(model_fingerprint)),
        shape_(shape),
        latents_(store, model_fingerprint_, shape, hidden_size) {}

  absl::Status CheckFits(const compressor::ContainerInfo& info, const storage::BlockRef& ref,
                         std::string_view model_fingerprint) const;
  absl::StatusOr<const compressor::Codec*> CodecOf(const storage::BlockRef& ref) const;
  absl::StatusOr<const compressor::CodecRegistry*> RegistryFor(const compressor::ContainerInfo& info,
                                                               std::string_view model_fingerprint);

  storage::Store* const store_;
  compressor::CodecRegistry* const codecs_;
  const std::string model_fingerprint_;
  const engine::KvShape shape_;
  // Codecs with profiles of other models or earlier ones. Apart, because the last one registered is encoded with.
  compressor::CodecRegistry decoders_;
  LatentProfiles latents_;
  const std::unique_ptr<const compressor::Codec> replay_ = compressor::NewReplayCodec();
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_BLOCK_CODER_H_
