// The profile of the `learned` codec: a trained sidecar (E, D) for one model.
//
// It stands on a latent profile, the *base*, which makes panels of a block: keys before RoPE, less a linear prediction,
// each group's channels divided by scales or in a basis. The sidecar's encoder makes z_t of these components, its
// decoder components of z_t:
//
//   y = base.analyse(K, V),   z = E(y),   y^ = D(quantised z),   K^, V^ = base.synthesise(y^)
//
// E and D are, for each group, linear, GELU, layer norm, linear; the architectures differ in what else the first linear
// layer sees. docs/compression.md explains them; docs/formats/learned_profile.md has the bytes.

#ifndef QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_PROFILE_H_
#define QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_PROFILE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/latent/latent_profile.h"
#include "compressor/learned/learned_layers.h"

namespace quicksave::compressor {

enum class Architecture {
  kGrouped,    // each group by itself; groups of one layer are the per-layer sidecar
  kConv,       // over the tokens of a block, kernel 3, and where each token stands
  kUnified,    // attention between the groups after the first linear layer
  kRecurrent,  // E sees z of the token before; what is coded is z less a share of that
};

// "grouped", "conv", "unified", "recurrent".
std::string_view NameOf(Architecture architecture);
// INVALID_ARGUMENT for another name.
absl::StatusOr<Architecture> ArchitectureOf(std::string_view name);

// E or D of a group: linear, GELU, layer norm, linear.
struct GroupNetwork {
  LinearLayer first;
  NormLayer norm;
  LinearLayer second;
};

// Immutable once parsed or built; any thread may read it.
struct LearnedProfile {
  // Its tables are those of z. It has also the model, the split, the points of the dial, and the notes.
  LatentProfile base;
  Architecture architecture = Architecture::kGrouped;
  // One for each group of the base.
  std::vector<GroupNetwork> encoders;
  std::vector<GroupNetwork> decoders;
  // Standard deviation of each coded component of z, above 0.
  std::vector<std::vector<float>> sigma;
  // Unified only: after the first layer of all encoders and of all decoders.
  AttentionLayer encoder_attention;
  AttentionLayer decoder_attention;
  // Recurrent only: z_t = coded_t + decay * z_(t-1), in (-1, 1), for each group and component.
  std::vector<std::vector<float>> decay;

  // Components of a group's z.
  int latent_width(size_t group) const { return static_cast<int>(sigma[group].size()); }
  // What the first layers take of panels of this width and, in a recurrent encoder, of z.
  int EncoderInputs(size_t group) const;
  int DecoderInputs(size_t group) const;

  // INVALID_ARGUMENT, saying what, unless all sizes agree and all numbers are finite and in range.
  absl::Status Validate() const;
  // A safetensors file. Equal profiles give equal bytes. The profile must be valid.
  std::string Serialize() const;
  // Whether bytes say that they are one, of whatever version and however damaged.
  static bool IsOne(std::string_view bytes);
  // DATA_LOSS for damage, UNIMPLEMENTED for a newer version.
  static absl::StatusOr<LearnedProfile> Parse(std::string_view bytes);
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LEARNED_LEARNED_PROFILE_H_
