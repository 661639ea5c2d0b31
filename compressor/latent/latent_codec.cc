#include "compressor/latent/latent_codec.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compressor/latent/latent_payload.h"
#include "compressor/latent/latent_transform.h"
#include "compressor/latent/quantiser.h"

namespace quicksave::compressor {
namespace {

constexpr uint32_t kVersion = 1;

class LatentCodec : public Codec {
 public:
  LatentCodec(std::shared_ptr<const LatentProfile> profile, const Digest128& profile_id)
      : profile_(std::move(profile)), profile_id_(profile_id), coder_(profile_->classes) {
    for (const LayerGroup& group : profile_->groups) sigmas_.emplace_back(group.sigma);
  }

  std::string_view name() const override { return kLatentCodec; }
  uint32_t version() const override { return kVersion; }
  bool lossless() const override { return false; }
  Digest128 profile_id() const override { return profile_id_; }

  absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext& context) const override {
    if (absl::Status status = block.Validate(); !status.ok()) return status;
    if (absl::Status status = LatentTransform::CheckContext(*profile_, block.shape, context); !status.ok()) {
      return status;
    }
    if (!IsStep(context.step)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the latent codec needs a step above 0 that has an inverse, not ", context.step));
    }
    const LatentTransform transform(*profile_, block.shape, context);
    PayloadDraft draft{.step = context.step};
    // What the decoder will make of it, for its digest.
    std::vector<uint16_t> values(block.values.begin(), block.values.end());
    const MutableBlockView decoded{block.shape, absl::MakeSpan(values)};
    for (const LayerGroup& group : profile_->groups) {
      std::vector<float> predicted = transform.Predict(group);
      const std::vector<float> latent = transform.Analyse(group, block, predicted);
      if (!std::all_of(latent.begin(), latent.end(), [](float z) { return std::isfinite(z); })) {
        return absl::InvalidArgumentError("the latent codec codes finite values only");
      }
      SparseLatent coded = coder_.Add(group.sigma, latent, transform.tokens(), transform.columns(), draft);
      transform.Synthesise(group, coded, predicted, decoded);
    }
    if (absl::Status status = CheckDecodedIsFinite(block, decoded.view()); !status.ok()) return status;
    return coder_.Finish(draft, ComputeBlockId(decoded.view()), block.shape);
  }

  absl::Status Decode(const EncodedBlockView& encoded, uint32_t /*payload_version*/, const BlockContext& context,
                      MutableBlockView out) const override {
    if (absl::Status status = out.Validate(); !status.ok()) return status;
    if (absl::Status status = LatentTransform::CheckContext(*profile_, out.shape, context); !status.ok()) return status;
    const LatentTransform transform(*profile_, out.shape, context);
    absl::StatusOr<LatentPayload> payload =
        coder_.Decode(encoded.bytes, sigmas_, transform.tokens(), transform.columns());
    if (!payload.ok()) return payload.status();
    SparseLatent latent;
    std::vector<float> predicted;
    for (const LayerGroup& group : profile_->groups) {
      payload->TakeGroup(latent);
      predicted = transform.Predict(group, std::move(predicted));
      transform.Synthesise(group, latent, predicted, out);
    }
    return CheckDigest(payload->digest, out.view());
  }

 private:
  const std::shared_ptr<const LatentProfile> profile_;
  const Digest128 profile_id_;
  const LatentPayloadCoder coder_;
  std::vector<absl::Span<const float>> sigmas_;
};

}  // namespace

std::unique_ptr<const Codec> NewLatentCodec(std::shared_ptr<const LatentProfile> profile) {
  const Digest128 id = ComputeDigest(profile->Serialize());
  return NewLatentCodec(std::move(profile), id);
}

std::unique_ptr<const Codec> NewLatentCodec(std::shared_ptr<const LatentProfile> profile, const Digest128& profile_id) {
  return std::make_unique<LatentCodec>(std::move(profile), profile_id);
}

}  // namespace quicksave::compressor
