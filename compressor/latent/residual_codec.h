// The `latent-residual` codec: what a decoded latent lacks to the exact bits. A latent with its residual is smaller
// than the `exact` codec's block, and either can be read first, or dropped.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_CODEC_H_
#define QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_CODEC_H_

#include <memory>

#include "compressor/codec.h"
#include "compressor/latent/latent_profile.h"
#include "compressor/latent/residual_symbols.h"

namespace quicksave::compressor {

inline constexpr char kResidualCodec[] = "latent-residual";

// The codec of a valid profile. Lossless: Encode and Decode need in the context the base, which is what the latent
// codec with this profile decoded at the context's step, and known_tokens. `out` may be the base's own memory. Decode
// is told the step by the payload and refuses another base (DATA_LOSS).
std::unique_ptr<const Codec> NewResidualCodec(std::shared_ptr<const LatentProfile> profile);
// The same, for a caller that has the digest of the profile's bytes already.
std::unique_ptr<const Codec> NewResidualCodec(std::shared_ptr<const LatentProfile> profile,
                                              const Digest128& profile_id);

// The error that a latent of this step leaves in each channel of the coded layers, as residual levels:
// [layers from first_layer() on][K, V][kv_heads][head_dim].
std::vector<ErrorLevel> ErrorLevels(const LatentProfile& profile, float step);

// Counts residual symbols of blocks, and makes the tables of them.
class ResidualStatistics {
 public:
  ResidualStatistics();

  // Adds a block and what its latent decoded to; levels are those of the latent's step.
  void Add(const LatentProfile& profile, const std::vector<ErrorLevel>& levels, BlockView block, BlockView base,
           int known_tokens);

  std::vector<TableFrequencies> Build() const;

 private:
  std::vector<std::vector<uint64_t>> counts_;  // [kResidualClasses][kSymbols]
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_RESIDUAL_CODEC_H_
