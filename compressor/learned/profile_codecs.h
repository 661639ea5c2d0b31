// Profiles of every kind that has latents, for whoever encodes with them without minding which it is.

#ifndef QUICKSAVE_COMPRESSOR_LEARNED_PROFILE_CODECS_H_
#define QUICKSAVE_COMPRESSOR_LEARNED_PROFILE_CODECS_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "compressor/codec.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::compressor {

// A profile and its codecs.
struct ProfileCodecs {
  // Model, shape, split, points, notes; of a learned profile its base.
  std::shared_ptr<const LatentProfile> profile;
  std::unique_ptr<const Codec> latent;    // `latent` or `learned`
  std::unique_ptr<const Codec> residual;  // null where latents have no residual
};

// Reads a latent or learned profile; the codecs have the digest of the bytes as profile id. DATA_LOSS for bytes that
// are none or damaged, UNIMPLEMENTED for a newer version.
absl::StatusOr<ProfileCodecs> ParseProfile(std::string_view bytes);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LEARNED_PROFILE_CODECS_H_
