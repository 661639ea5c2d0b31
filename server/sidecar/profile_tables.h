#ifndef QUICKSAVE_SERVER_SIDECAR_PROFILE_TABLES_H_
#define QUICKSAVE_SERVER_SIDECAR_PROFILE_TABLES_H_

// The static tables of a latent profile, counted on texts that its bases were not fitted to.

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "compressor/latent/latent_profile.h"
#include "compressor/latent/quantiser.h"
#include "server/sidecar/corpus.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

// Told how much is done, 0 to 1.
using PartDone = std::function<void(double done)>;

// Sets the deviations of a group's components, of which `latent` has [tokens, components], and counts their symbols at
// steps of the whole range of use.
void CountComponents(const std::vector<float>& latent, std::vector<float>& sigma,
                     compressor::ClassStatistics& statistics);

// Sets the components' deviations, and the symbols' tables and centroids. Holds all latents of the pieces: 4 bytes for
// each component of each token.
absl::Status CountSymbols(ModelRunner& runner, const std::vector<const TextPiece*>& pieces, const PartDone& report,
                          compressor::LatentProfile& profile);

// Sets the tables of the residual, from a few blocks of each piece at steps of the whole range of use. The profile has
// its other tables.
absl::Status CountResiduals(ModelRunner& runner, const std::vector<const TextPiece*>& pieces, const PartDone& report,
                            compressor::LatentProfile& profile);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_PROFILE_TABLES_H_
