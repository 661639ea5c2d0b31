// The `latent` codec: K and V as small integers in a calibrated basis, entropy coded with static tables. Lossy.
//
//   absl::StatusOr<LatentProfile> profile = LatentProfile::Parse(bytes);
//   registry.Register(NewLatentCodec(std::make_shared<LatentProfile>(*std::move(profile))));
//   context.step = 0.5f;  // the dial: twice the step, about one bit less for each component that is not near zero
//
// A transform codec in the manner of KVTC (ICLR 2026), with the Fisher metric, a prediction from recomputed layers, and
// one uniform quantiser with dead zone and centroids; docs/compression.md.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_LATENT_CODEC_H_
#define QUICKSAVE_COMPRESSOR_LATENT_LATENT_CODEC_H_

#include <memory>

#include "compressor/codec.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::compressor {

inline constexpr char kLatentCodec[] = "latent";

// The codec of a valid profile; its profile_id is the digest of the profile's bytes. Encode and Decode need in the
// context: angles, hidden_states (where the profile has features), known_tokens, and Encode the step. Decode expects in
// `out` what the codec does not store: K and V of the profile's first layers (below first_layer()) for all tokens, and
// all layers of the known tokens. The payload tells the digest of the whole decoded block, so that DATA_LOSS is the
// answer to anything else than the values that Encode saw.
std::unique_ptr<const Codec> NewLatentCodec(std::shared_ptr<const LatentProfile> profile);
// The same, for a caller that has the digest of the profile's bytes already.
std::unique_ptr<const Codec> NewLatentCodec(std::shared_ptr<const LatentProfile> profile, const Digest128& profile_id);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_LATENT_CODEC_H_
