// The `learned` codec: K and V as the latent of a trained sidecar, quantised and entropy coded as `latent` is. Lossy.
//
//   absl::StatusOr<LearnedProfile> profile = LearnedProfile::Parse(bytes);
//   registry.Register(NewLearnedCodec(std::make_shared<LearnedProfile>(*std::move(profile))));
//   context.step = 1;  // what it was trained with; others work, too

#ifndef QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_CODEC_H_
#define QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_CODEC_H_

#include <functional>
#include <memory>

#include "absl/types/span.h"
#include "compressor/codec.h"
#include "compressor/learned/learned_profile.h"

namespace quicksave::compressor {

inline constexpr char kLearnedCodec[] = "learned";

// The codec of a valid profile; its profile_id is the digest of the profile's bytes. Needs what the latent codec of the
// profile's base needs, and keeps the same promise: what is decoded are the values that Encode saw, or DATA_LOSS.
std::unique_ptr<const Codec> NewLearnedCodec(std::shared_ptr<const LearnedProfile> profile);
// The same, for a caller that has the digest of the profile's bytes already.
std::unique_ptr<const Codec> NewLearnedCodec(std::shared_ptr<const LearnedProfile> profile,
                                             const Digest128& profile_id);

// What a block is coded as at this step, before it is rounded: calls use(group, component, values of all coded tokens).
// For counting deviations and tables. The context is one that the codec accepts.
void ForEachLatent(const LearnedProfile& profile, BlockView block, const BlockContext& context,
                   const std::function<void(size_t group, int component, absl::Span<const float> values)>& use);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_CODEC_H_
