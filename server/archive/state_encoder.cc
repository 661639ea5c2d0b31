#include "server/archive/state_encoder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/latent/panel_product.h"
#include "compressor/replay_codec.h"
#include "server/archive/block_pages.h"
#include "server/archive/stopwatch.h"

namespace quicksave::server {
namespace {

storage::BlockRef RefTo(const storage::NewBlock& block, const storage::BlockRef& saved) {
  storage::BlockRef ref = saved;
  ref.set_id(block.id.content_id);
  ref.set_codec(block.id.codec);
  ref.clear_stored_bytes();
  return ref;
}

}  // namespace

absl::StatusOr<EncodedState> StateEncoder::Encode() {
  const auto& saved = in_.record.contents().blocks();
  std::vector<Part> parts(saved.size());
  std::atomic<bool> failed = false;
  d_.workers->ParallelFor(saved.size(), [&](int i) {
    if (failed) return;
    parts[i].status = EncodeBlock(saved[i], parts[i]);
    if (!parts[i].status.ok()) failed = true;
  });
  for (const Part& part : parts) {
    if (!part.status.ok()) {
      return absl::Status(part.status.code(),
                          absl::StrCat("nodes/", in_.record.node_id(), ": ", part.status.message()));
    }
  }
  EncodedState encoded;
  storage::v1::Encoding& encoding = encoded.encoding;
  const LatentProfileEntry* profile = in_.choice.profile;
  encoding.set_codec(profile == nullptr ? compressor::kReplayCodec : std::string(profile->latent->name()));
  if (profile != nullptr) {
    encoding.set_profile_id(profile->id);
    encoding.set_split(static_cast<uint32_t>(profile->profile->split));
    encoding.set_step(in_.choice.step);
  }
  SetErrors(parts, *encoding.mutable_fidelity());
  for (Part& part : parts) {
    *encoding.add_blocks() = std::move(part.ref);
    if (!part.residual_ref.id().empty()) *encoding.add_residuals() = std::move(part.residual_ref);
    std::move(part.blocks.begin(), part.blocks.end(), std::back_inserter(encoded.blocks));
    encoded.encode += part.encode;
  }
  return encoded;
}

absl::Status StateEncoder::EncodeBlock(const storage::BlockRef& saved_ref, Part& part) const {
  const int first = static_cast<int>(saved_ref.first_token());
  const compressor::BlockShape shape = ShapeOfBlock(d_.pool->shape(), static_cast<int>(saved_ref.token_count()));
  RawBlock saved(shape);
  GatherBlock(in_.saved.pages(), first, saved.mutable_view());
  if (ParseLatentKey(saved_ref.codec()) || saved_ref.first_token() < in_.record.lossy_tokens()) {
    part.ref = saved_ref;
    AddErrors(saved, saved, part);
    ScatterBlock(saved.view(), shape.tokens, first, in_.replayed.pages());
    return absl::OkStatus();
  }
  Stopwatch watch;
  RawBlock decoded(shape);
  GatherBlock(in_.replayed.pages(), first, decoded.mutable_view());
  absl::Status status = in_.choice.profile == nullptr ? EncodeReplay(saved_ref, saved, decoded, part)
                                                      : EncodeLatent(saved_ref, saved, decoded, part);
  if (!status.ok()) return status;
  part.encode = watch.Lap();
  AddErrors(saved, decoded, part);
  ScatterBlock(decoded.view(), shape.tokens, first, in_.replayed.pages());
  return absl::OkStatus();
}

absl::Status StateEncoder::EncodeLatent(const storage::BlockRef& saved_ref, const RawBlock& saved, RawBlock& decoded,
                                        Part& part) const {
  const int first = static_cast<int>(saved_ref.first_token());
  const LatentProfileEntry& profile = *in_.choice.profile;
  OwnedContext owned = in_.replay.ContextOf(profile.profile->split, first, saved.shape.tokens, *d_.angles);
  owned.context.model_fingerprint = d_.model.fingerprint;
  owned.context.step = in_.choice.step;
  absl::Status known = CheckKnown(saved, decoded, profile.profile->first_layer(), owned.context.known_tokens, first);
  if (!known.ok()) return known;
  const absl::StatusOr<compressor::BlockId> id = compressor::BlockId::FromBytes(saved_ref.id());
  if (!id.ok()) return id.status();
  absl::StatusOr<storage::NewBlock> latent = coder_.EncodeLatent(profile, false, saved.view(), *id, owned.context);
  if (!latent.ok()) return latent.status();
  part.ref = RefTo(*latent, saved_ref);
  absl::Status status = coder_.DecodeLatent(part.ref, latent->bytes, owned.context, decoded.mutable_view());
  if (!status.ok()) return status;
  part.blocks.push_back(*std::move(latent));
  if (!in_.choice.residual) return absl::OkStatus();
  owned.context.base = decoded.view().values;
  absl::StatusOr<storage::NewBlock> residual = coder_.EncodeLatent(profile, true, saved.view(), *id, owned.context);
  if (!residual.ok()) return residual.status();
  part.residual_ref = RefTo(*residual, saved_ref);
  // Decoded once before the blocks as saved may go: its identity is checked then.
  RawBlock exact(saved.shape);
  status = coder_.DecodeLatent(part.residual_ref, residual->bytes, owned.context, exact.mutable_view());
  if (!status.ok()) return status;
  part.blocks.push_back(*std::move(residual));
  return absl::OkStatus();
}

absl::Status StateEncoder::EncodeReplay(const storage::BlockRef& saved_ref, const RawBlock& saved,
                                        const RawBlock& replayed, Part& part) const {
  const int first = static_cast<int>(saved_ref.first_token());
  absl::Status known = CheckKnown(saved, replayed, saved.shape.layers, 0, first);
  if (!known.ok()) return known;
  const absl::StatusOr<compressor::BlockId> id = compressor::BlockId::FromBytes(saved_ref.id());
  if (!id.ok()) return id.status();
  absl::StatusOr<storage::NewBlock> block = coder_.EncodeReplay(saved.view(), *id);
  if (!block.ok()) return block.status();
  part.ref = RefTo(*block, saved_ref);
  part.blocks.push_back(*std::move(block));
  return absl::OkStatus();
}

absl::Status StateEncoder::CheckKnown(const RawBlock& saved, const RawBlock& replayed, int known_layers,
                                      int known_tokens, int first_token) const {
  const size_t tokens = saved.shape.tokens;
  const size_t known_values = known_layers * 2 * saved.shape.channels_per_tensor() * tokens;
  const auto same = [&](size_t begin, size_t count) {
    return std::equal(saved.values.get() + begin, saved.values.get() + begin + count, replayed.values.get() + begin);
  };
  bool all = same(0, known_values);
  for (size_t row = known_values; all && row < saved.shape.values(); row += tokens) all = same(row, known_tokens);
  if (all) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "what the model recomputes of tokens ", first_token, " to ", first_token + saved.shape.tokens, " in layers 0 to ",
      known_layers - 1, " is not what was saved, as after an edit or a lossy restore; choose a smaller split"));
}

void StateEncoder::AddErrors(const RawBlock& saved, const RawBlock& decoded, Part& part) const {
  const compressor::BlockShape& shape = saved.shape;
  const size_t per_tensor = shape.channels_per_tensor() * shape.tokens;
  part.errors.resize(shape.tensors());
  for (size_t tensor = 0; tensor < shape.tensors(); ++tensor) {
    ErrorSums& sums = part.errors[tensor];
    for (size_t i = tensor * per_tensor; i < (tensor + 1) * per_tensor; ++i) {
      const double x = compressor::WidenBf16(saved.values[i]);
      const double y = compressor::WidenBf16(decoded.values[i]);
      sums.error += (x - y) * (x - y);
      sums.saved += x * x;
      sums.decoded += y * y;
      sums.product += x * y;
    }
  }
}

void StateEncoder::SetErrors(const std::vector<Part>& parts, storage::v1::Fidelity& fidelity) const {
  const size_t tensors = size_t{2} * d_.pool->shape().layers;
  for (size_t tensor = 0; tensor < tensors; ++tensor) {
    ErrorSums sums;
    for (const Part& part : parts) {
      sums.error += part.errors[tensor].error;
      sums.saved += part.errors[tensor].saved;
      sums.decoded += part.errors[tensor].decoded;
      sums.product += part.errors[tensor].product;
    }
    const double lengths = std::sqrt(sums.saved * sums.decoded);
    const auto mse = static_cast<float>(sums.saved > 0 ? sums.error / sums.saved : 0);
    const auto cosine = static_cast<float>(lengths > 0 ? sums.product / lengths : 1);
    const bool key = tensor % 2 == 0;
    (key ? fidelity.mutable_key_relative_mse() : fidelity.mutable_value_relative_mse())->Add(mse);
    (key ? fidelity.mutable_key_cosine() : fidelity.mutable_value_cosine())->Add(cosine);
  }
}

}  // namespace quicksave::server
