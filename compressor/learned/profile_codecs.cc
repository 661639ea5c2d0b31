#include "compressor/learned/profile_codecs.h"

#include <utility>

#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "compressor/learned/learned_codec.h"
#include "compressor/learned/learned_profile.h"

namespace quicksave::compressor {

absl::StatusOr<ProfileCodecs> ParseProfile(std::string_view bytes) {
  const Digest128 id = ComputeDigest(bytes);
  if (LearnedProfile::IsOne(bytes)) {
    absl::StatusOr<LearnedProfile> parsed = LearnedProfile::Parse(bytes);
    if (!parsed.ok()) return parsed.status();
    const auto learned = std::make_shared<const LearnedProfile>(*std::move(parsed));
    return ProfileCodecs{.profile = {learned, &learned->base}, .latent = NewLearnedCodec(learned, id)};
  }
  absl::StatusOr<LatentProfile> parsed = LatentProfile::Parse(bytes);
  if (!parsed.ok()) return parsed.status();
  const auto latent = std::make_shared<const LatentProfile>(*std::move(parsed));
  return ProfileCodecs{
      .profile = latent, .latent = NewLatentCodec(latent, id), .residual = NewResidualCodec(latent, id)};
}

}  // namespace quicksave::compressor
