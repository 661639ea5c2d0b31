#include "server/archive/block_coder.h"

#include <bit>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "compressor/exact_codec.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/learned/learned_codec.h"
#include "server/archive/block_pages.h"

namespace quicksave::server {
namespace {

constexpr char kExact[] = "exact";

std::string EncodingKey(std::string_view codec, uint32_t version, const compressor::Digest128& profile_id) {
  std::string key = absl::StrCat(std::string(codec), "-", version);
  if (!profile_id.IsNone()) absl::StrAppend(&key, "-", profile_id.ToHex());
  return key;
}

std::string LatentEncodingKey(const compressor::Codec& codec, float step) {
  return absl::StrCat(EncodingKey(codec.name(), codec.version(), codec.profile_id()), "-",
                      absl::Hex(std::bit_cast<uint32_t>(step), absl::kZeroPad8));
}

// Registering what is registered already changes nothing.
absl::Status Registered(const absl::Status& status) {
  return absl::IsAlreadyExists(status) ? absl::OkStatus() : status;
}

// The profile of that id, or the current one where `id` is empty. NOT_FOUND; DATA_LOSS naming it.
absl::StatusOr<std::shared_ptr<const compressor::ExactProfile>> LoadProfile(const storage::Store& store,
                                                                            std::string_view model_fingerprint,
                                                                            const std::string& id) {
  const std::string model(model_fingerprint);
  absl::StatusOr<storage::Profile> stored = store.GetProfile(model, kExact, id);
  if (!stored.ok()) return stored.status();
  absl::StatusOr<compressor::ExactProfile> profile = compressor::ExactProfile::Parse(stored->bytes);
  const std::string what = absl::StrCat("profile ", stored->id, " of the exact codec for model ", model, ": ");
  if (!profile.ok()) return absl::Status(profile.status().code(), absl::StrCat(what, profile.status().message()));
  if (profile->id().ToHex() != stored->id || profile->model_fingerprint() != model) {
    return absl::DataLossError(absl::StrCat(what, "the stored bytes are profile ", profile->id().ToHex(), " for model ",
                                            profile->model_fingerprint()));
  }
  return std::make_shared<const compressor::ExactProfile>(*std::move(profile));
}

}  // namespace

RawBlock::RawBlock(const compressor::BlockShape& block_shape)
    : shape(block_shape), values(std::make_unique_for_overwrite<uint16_t[]>(block_shape.values())) {}

absl::StatusOr<std::unique_ptr<BlockCoder>> BlockCoder::Create(storage::Store* store, compressor::CodecRegistry* codecs,
                                                               std::string model_fingerprint,
                                                               const engine::KvShape& shape, int hidden_size) {
  absl::Status builtin = Registered(compressor::RegisterBuiltinCodecs(*codecs));
  if (!builtin.ok()) return builtin;
  const auto profile = LoadProfile(*store, model_fingerprint, "");
  if (profile.ok()) {
    const compressor::ExactProfile& found = **profile;
    if (found.layers() != shape.layers || found.kv_heads() != shape.kv_heads || found.head_dim() != shape.head_dim) {
      return absl::DataLossError(absl::StrCat("profile ", found.id().ToHex(), " of the exact codec for model ",
                                              model_fingerprint, " is for another shape of state"));
    }
    absl::Status status = Registered(codecs->Register(compressor::NewExactCodec(*profile)));
    if (!status.ok()) return status;
  } else if (!absl::IsNotFound(profile.status())) {
    return profile.status();
  }
  auto coder =
      std::unique_ptr<BlockCoder>(new BlockCoder(store, codecs, std::move(model_fingerprint), shape, hidden_size));
  if (absl::Status status = coder->latents_.LoadStored(); !status.ok()) return status;
  return coder;
}

compressor::Digest128 BlockCoder::profile_id() const { return codecs_->Find(kExact).value()->profile_id(); }

absl::Status BlockCoder::AdoptProfile(const compressor::ExactProfile& profile) {
  const storage::Profile stored{.id = profile.id().ToHex(), .bytes = profile.Serialize()};
  if (absl::Status status = store_->PutProfile(model_fingerprint_, kExact, stored); !status.ok()) return status;
  return Registered(
      codecs_->Register(compressor::NewExactCodec(std::make_shared<const compressor::ExactProfile>(profile))));
}

storage::BlockId BlockCoder::KeyOf(const compressor::BlockId& id) const {
  const compressor::Codec* codec = codecs_->Find(kExact).value();
  return {.content_id = id.ToBytes(), .codec = EncodingKey(codec->name(), codec->version(), codec->profile_id())};
}

absl::StatusOr<storage::NewBlock> BlockCoder::Encode(compressor::BlockView block, const compressor::BlockId& id,
                                                     const compressor::BlockContext& context) const {
  absl::StatusOr<std::string> bytes = compressor::EncodeBlock(*codecs_, kExact, block, id, context);
  if (!bytes.ok()) return bytes.status();
  // From what was written, since another profile may have been adopted meanwhile.
  absl::StatusOr<compressor::ContainerInfo> info = compressor::PeekContainer(*bytes);
  if (!info.ok()) return info.status();
  return storage::NewBlock{
      .id = {.content_id = id.ToBytes(), .codec = EncodingKey(info->codec, info->codec_version, info->profile_id)},
      .bytes = *std::move(bytes)};
}

std::optional<LatentKey> ParseLatentKey(std::string_view codec_key) {
  const std::vector<std::string> parts = absl::StrSplit(absl::string_view(codec_key.data(), codec_key.size()), '-');
  if (parts.size() == 2 && parts[0] == compressor::kReplayCodec) return LatentKey{.kind = LatentKey::Kind::kReplay};
  // name, version, profile, step; the residual's name has two words.
  const bool residual = parts.size() == 5 && parts[0] == compressor::kLatentCodec && parts[1] == "residual";
  const bool latent = parts[0] == compressor::kLatentCodec || parts[0] == compressor::kLearnedCodec;
  if (!residual && (parts.size() != 4 || !latent)) return std::nullopt;
  uint32_t bits = 0;
  if (!absl::SimpleHexAtoi(parts.back(), &bits)) return std::nullopt;
  const LatentKey::Kind kind = residual ? LatentKey::Kind::kResidual : LatentKey::Kind::kLatent;
  return LatentKey{.kind = kind, .profile_id = parts[parts.size() - 2], .step = std::bit_cast<float>(bits)};
}

absl::StatusOr<storage::NewBlock> BlockCoder::EncodeLatent(const LatentProfileEntry& entry, bool residual,
                                                           compressor::BlockView block, const compressor::BlockId& id,
                                                           const compressor::BlockContext& context) const {
  const compressor::Codec& codec = residual ? *entry.residual : *entry.latent;
  absl::StatusOr<std::string> bytes = compressor::EncodeBlock(codec, block, id, context);
  if (!bytes.ok()) return bytes.status();
  return storage::NewBlock{.id = {.content_id = id.ToBytes(), .codec = LatentEncodingKey(codec, context.step)},
                           .bytes = *std::move(bytes)};
}

absl::Status BlockCoder::DecodeLatent(const storage::BlockRef& ref, std::string_view bytes,
                                      const compressor::BlockContext& context,
                                      compressor::MutableBlockView block) const {
  const absl::StatusOr<const compressor::Codec*> codec = CodecOf(ref);
  if (!codec.ok()) return codec.status();
  absl::StatusOr<compressor::ContainerInfo> info = compressor::PeekContainer(bytes);
  if (!info.ok()) return info.status();
  if (absl::Status fits = CheckFits(*info, ref, context.model_fingerprint); !fits.ok()) return fits;
  return compressor::DecodeBlock(**codec, bytes, context, block);
}

absl::StatusOr<const compressor::Codec*> BlockCoder::CodecOf(const storage::BlockRef& ref) const {
  const std::optional<LatentKey> key = ParseLatentKey(ref.codec());
  if (key && key->kind == LatentKey::Kind::kReplay) return replay_.get();
  const LatentProfileEntry* entry = key ? latents_.Find(key->profile_id) : nullptr;
  const compressor::Codec* codec = nullptr;
  if (entry != nullptr) codec = key->kind == LatentKey::Kind::kResidual ? entry->residual : entry->latent;
  if (codec != nullptr) return codec;
  return absl::FailedPreconditionError(
      absl::StrCat("it was encoded as ", ref.codec(), ", and the store has no such profile of this model"));
}

absl::StatusOr<storage::NewBlock> BlockCoder::EncodeReplay(compressor::BlockView block,
                                                           const compressor::BlockId& id) const {
  absl::StatusOr<std::string> bytes = compressor::EncodeBlock(*replay_, block, id, {});
  if (!bytes.ok()) return bytes.status();
  return storage::NewBlock{
      .id = {.content_id = id.ToBytes(), .codec = EncodingKey(replay_->name(), replay_->version(), {})},
      .bytes = *std::move(bytes)};
}

absl::Status BlockCoder::CheckFits(const compressor::ContainerInfo& info, const storage::BlockRef& ref,
                                   std::string_view model_fingerprint) const {
  if (info.block_id.ToBytes() != ref.id()) {
    return absl::DataLossError(absl::StrCat("the stored bytes are block ", info.block_id.ToHex()));
  }
  const auto tokens = static_cast<int>(ref.token_count());
  const bool same_model = model_fingerprint == model_fingerprint_;
  if (info.shape.tokens != tokens || info.shape.bytes() != ref.raw_bytes() ||
      (same_model && info.shape != ShapeOfBlock(shape_, tokens))) {
    return absl::DataLossError(absl::StrCat("the stored bytes hold ", info.shape.DebugString(), ", the node needs ",
                                            tokens, " tokens in ", ref.raw_bytes(), " bytes"));
  }
  return absl::OkStatus();
}

absl::StatusOr<const compressor::CodecRegistry*> BlockCoder::RegistryFor(const compressor::ContainerInfo& info,
                                                                         std::string_view model_fingerprint) {
  if (codecs_->Find(info.codec, info.profile_id).ok()) return codecs_;
  if (decoders_.Find(info.codec, info.profile_id).ok()) return &decoders_;
  // DecodeBlock says what is missing.
  if (info.codec != kExact || info.profile_id.IsNone()) return codecs_;
  const auto profile = LoadProfile(*store_, model_fingerprint, info.profile_id.ToHex());
  if (absl::IsNotFound(profile.status())) return absl::DataLossError(profile.status().message());
  if (!profile.ok()) return profile.status();
  absl::Status status = Registered(decoders_.Register(compressor::NewExactCodec(*profile)));
  if (!status.ok()) return status;
  return &decoders_;
}

absl::StatusOr<RawBlock> BlockCoder::Decode(const storage::BlockRef& ref, std::string_view bytes,
                                            const compressor::BlockContext& context) {
  absl::StatusOr<compressor::ContainerInfo> info = compressor::PeekContainer(bytes);
  if (!info.ok()) return info.status();
  if (absl::Status fits = CheckFits(*info, ref, context.model_fingerprint); !fits.ok()) return fits;
  absl::StatusOr<const compressor::CodecRegistry*> registry = RegistryFor(*info, context.model_fingerprint);
  if (!registry.ok()) return registry.status();
  RawBlock block(info->shape);
  absl::Status decoded = compressor::DecodeBlock(**registry, bytes, context, block.mutable_view());
  if (!decoded.ok()) return decoded;
  return block;
}

}  // namespace quicksave::server
