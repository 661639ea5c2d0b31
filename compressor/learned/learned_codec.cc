#include "compressor/learned/learned_codec.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compressor/latent/latent_payload.h"
#include "compressor/latent/latent_transform.h"
#include "compressor/latent/quantiser.h"
#include "compressor/learned/learned_network.h"

namespace quicksave::compressor {
namespace {

constexpr uint32_t kVersion = 1;

// A block's transform by the base, and the network on its panels.
class Sidecar {
 public:
  Sidecar(const LearnedProfile& profile, const BlockShape& shape, const BlockContext& context)
      : profile_(profile),
        transform_(profile.base, shape, context),
        network_(profile, context.first_position + shape.tokens - transform_.tokens(), transform_.tokens(),
                 transform_.columns()) {}

  int tokens() const { return transform_.tokens(); }
  int columns() const { return transform_.columns(); }

  Panels Encode(BlockView block, float step) const {
    if (tokens() == 0) return Panels(profile_.base.groups.size());
    Panels components;
    for (const LayerGroup& group : profile_.base.groups) components.push_back(transform_.Analyse(group, block));
    return network_.Encode(components, [&](size_t group, int component, float value) {
      const int sigma_class = SigmaClassOf(profile_.sigma[group][component], step);
      // What is no number is refused after this.
      if (sigma_class < 0 || !std::isfinite(value)) return 0.0f;
      return Reconstruct(Quantise(value, 1 / step), profile_.base.classes[sigma_class]) * step;
    });
  }

  void Decode(absl::Span<const SparseLatent> coded, MutableBlockView out) const {
    if (tokens() == 0) return;
    Panels latents;
    for (size_t g = 0; g < coded.size(); ++g) {
      std::vector<float>& panel = latents.emplace_back(static_cast<size_t>(profile_.latent_width(g)) * columns());
      for (size_t i = 0; i < coded[g].used.size(); ++i) {
        const float* from = coded[g].values.data() + i * columns();
        float* to = panel.data() + static_cast<size_t>(coded[g].used[i]) * columns();
        for (int t = 0; t < columns(); ++t) to[t] = from[t] * coded[g].unit;
      }
    }
    Panels components = network_.Decode(latents);
    for (size_t g = 0; g < components.size(); ++g) {
      const LayerGroup& group = profile_.base.groups[g];
      SparseLatent all{.used = std::vector<int>(group.components()), .values = std::move(components[g])};
      std::iota(all.used.begin(), all.used.end(), 0);
      transform_.Synthesise(group, all, out);
    }
  }

 private:
  const LearnedProfile& profile_;
  const LatentTransform transform_;
  const LearnedNetwork network_;
};

class LearnedCodec : public Codec {
 public:
  LearnedCodec(std::shared_ptr<const LearnedProfile> profile, const Digest128& profile_id)
      : profile_(std::move(profile)), profile_id_(profile_id), coder_(profile_->base.classes) {
    for (const std::vector<float>& sigma : profile_->sigma) sigmas_.emplace_back(sigma);
  }

  std::string_view name() const override { return kLearnedCodec; }
  uint32_t version() const override { return kVersion; }
  bool lossless() const override { return false; }
  Digest128 profile_id() const override { return profile_id_; }

  absl::StatusOr<EncodedBlock> Encode(BlockView block, const BlockContext& context) const override {
    if (absl::Status status = block.Validate(); !status.ok()) return status;
    if (absl::Status status = LatentTransform::CheckContext(profile_->base, block.shape, context); !status.ok()) {
      return status;
    }
    if (!IsStep(context.step)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the learned codec needs a step above 0 that has an inverse, not ", context.step));
    }
    const Sidecar sidecar(*profile_, block.shape, context);
    PayloadDraft draft{.step = context.step};
    std::vector<SparseLatent> coded;
    const Panels latents = sidecar.Encode(block, context.step);
    for (size_t g = 0; g < latents.size(); ++g) {
      const int width = profile_->latent_width(g);
      for (int i = 0; i < width; ++i) {
        const float* row = latents[g].data() + static_cast<size_t>(i) * sidecar.columns();
        if (!std::all_of(row, row + sidecar.tokens(), [](float z) { return std::isfinite(z); })) {
          return absl::InvalidArgumentError("the learned codec codes finite values only");
        }
      }
      coded.push_back(coder_.Add(profile_->sigma[g], latents[g], sidecar.tokens(), sidecar.columns(), draft));
    }
    // What the decoder will make of it, for its digest.
    std::vector<uint16_t> values(block.values.begin(), block.values.end());
    const MutableBlockView decoded{block.shape, absl::MakeSpan(values)};
    sidecar.Decode(coded, decoded);
    if (absl::Status status = CheckDecodedIsFinite(block, decoded.view()); !status.ok()) return status;
    return coder_.Finish(draft, ComputeBlockId(decoded.view()), block.shape);
  }

  absl::Status Decode(const EncodedBlockView& encoded, uint32_t /*payload_version*/, const BlockContext& context,
                      MutableBlockView out) const override {
    if (absl::Status status = out.Validate(); !status.ok()) return status;
    if (absl::Status status = LatentTransform::CheckContext(profile_->base, out.shape, context); !status.ok()) {
      return status;
    }
    const Sidecar sidecar(*profile_, out.shape, context);
    absl::StatusOr<LatentPayload> payload = coder_.Decode(encoded.bytes, sigmas_, sidecar.tokens(), sidecar.columns());
    if (!payload.ok()) return payload.status();
    std::vector<SparseLatent> coded(sigmas_.size());
    for (SparseLatent& latent : coded) payload->TakeGroup(latent);
    sidecar.Decode(coded, out);
    return CheckDigest(payload->digest, out.view());
  }

 private:
  const std::shared_ptr<const LearnedProfile> profile_;
  const Digest128 profile_id_;
  const LatentPayloadCoder coder_;
  std::vector<absl::Span<const float>> sigmas_;
};

}  // namespace

std::unique_ptr<const Codec> NewLearnedCodec(std::shared_ptr<const LearnedProfile> profile) {
  const Digest128 id = ComputeDigest(profile->Serialize());
  return NewLearnedCodec(std::move(profile), id);
}

std::unique_ptr<const Codec> NewLearnedCodec(std::shared_ptr<const LearnedProfile> profile,
                                             const Digest128& profile_id) {
  return std::make_unique<LearnedCodec>(std::move(profile), profile_id);
}

void ForEachLatent(const LearnedProfile& profile, BlockView block, const BlockContext& context,
                   const std::function<void(size_t group, int component, absl::Span<const float> values)>& use) {
  const Sidecar sidecar(profile, block.shape, context);
  const Panels latents = sidecar.Encode(block, context.step);
  for (size_t g = 0; g < latents.size(); ++g) {
    for (int i = 0; i < profile.latent_width(g); ++i) {
      use(g, i, absl::MakeConstSpan(latents[g]).subspan(static_cast<size_t>(i) * sidecar.columns(), sidecar.tokens()));
    }
  }
}

}  // namespace quicksave::compressor
