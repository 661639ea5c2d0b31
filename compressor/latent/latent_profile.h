// The profile of the `latent` codec: what was calibrated, once for a model, so that K and V become few small integers.
//
// The layers from `first_layer()` on are coded in groups. Within a group, the channels of a token are all K and V of
// its layers, keys before RoPE: [layers of the group][K, V][kv_heads][head_dim]. With x the residual stream of the
// token after `split` layers, standardised,
//
//   latent = encode^T (channels - mean - predictor^T x),     channels ~ mean + predictor^T x + decode^T latent
//
// where encode = F^(1/2) U and decode = U^T F^(-1/2): F is the Fisher information of the group's channels (how much the
// model's output depends on them), U the principal directions of what the prediction leaves, measured in that metric.
// So an error of the same size in any component does the same harm, and one step for all components is right.
// docs/compression.md explains and gives sources; docs/formats/latent_profile.md the bytes.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_LATENT_PROFILE_H_
#define QUICKSAVE_COMPRESSOR_LATENT_LATENT_PROFILE_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "compressor/block.h"
#include "compressor/entropy_table.h"
#include "compressor/latent/weight_matrix.h"

namespace quicksave::compressor {

// Layers that are coded together.
struct LayerGroup {
  int first_layer = 0;
  int layers = 0;
  // [channels]
  std::vector<float> mean;
  // [features, channels]; empty without prediction.
  WeightMatrix predictor;
  // [channels, components] and [components + refined(), channels]. Both empty where the components are the channels
  // themselves, each divided by its `scale`.
  Bf16Matrix encode;
  WeightMatrix decode;
  std::vector<float> scale;
  // Standard deviation of each component, above 0.
  std::vector<float> sigma;

  int components() const { return static_cast<int>(sigma.size()); }
  // The first components, which vary most, have a second row in a `decode` of bytes, after those of all components: it
  // counts 1 / Int8Matrix::kRefinement. So what rounding a row leaves is small beside a step for them, too.
  int refined() const { return decode.empty() ? 0 : decode.inputs() - components(); }
  // What a component contributes to a channel.
  double DecodeWeight(int component, int channel) const;
};

// Statistics of quantised components, by class of log2(sigma / step): four classes an octave.
inline constexpr int kSigmaClasses = 60;
// sigma / step of the lowest class is 2^(-6).
inline constexpr int kLowestSigmaExponent = -6;
// The first magnitudes have centroids of their own, the last one stands for all larger ones.
inline constexpr int kCentroids = 3;

struct SigmaClass {
  // Symbol q + kZeroSymbol for -kZeroSymbol <= q < kEscapeSymbol - kZeroSymbol; kEscapeSymbol for others.
  TableFrequencies frequencies{};
  // What is added to |q| = 1, 2 and more, to reconstruct in the middle of what was rounded to it. In steps.
  std::array<float, kCentroids> centroids{};
  // Mean square error of a component, in squared steps.
  float error = 0;
};
inline constexpr int kZeroSymbol = 127;

// Tables of the residual: 20 for distances, 12 for values near zero; see residual_symbols.h.
inline constexpr int kResidualClasses = 32;

// The class of a component, or -1 when its deviation is so small that it is not coded (and where there is no such
// class: a step that is negative or not a number).
int SigmaClassOf(float sigma, float step);

// A named setting of the dial.
struct DialPoint {
  std::string name;  // "fine", "default", "small"
  float step = 0;
  // As measured at calibration, on text that was not calibrated on; 0 when it was not.
  double ratio = 0;
  double mean_kl = 0;  // nats
};

// Immutable once parsed or built; any thread may read it.
struct LatentProfile {
  std::string model_fingerprint;
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  // Layers that are recomputed from the token ids; their K and V, and those of the next layer, cost nothing.
  int split = 0;
  // Width of the residual stream; 0 without prediction.
  int features = 0;
  // Of the residual stream after `split` layers, [features].
  std::vector<float> feature_mean;
  std::vector<float> feature_scale;
  // They cover the layers from first_layer() on, in order.
  std::vector<LayerGroup> groups;
  // kSigmaClasses of them.
  std::vector<SigmaClass> classes;
  // kResidualClasses of them.
  std::vector<TableFrequencies> residual_tables;
  std::vector<DialPoint> points;
  // How it was made, for people: tokens, seed, texts, program.
  std::map<std::string, std::string> notes;

  int first_layer() const { return split + 1; }
  size_t kv_width() const { return static_cast<size_t>(kv_heads) * head_dim; }
  // Channels of a group.
  int channels(const LayerGroup& group) const { return static_cast<int>(2 * kv_width()) * group.layers; }

  // INVALID_ARGUMENT, saying what, unless all sizes agree and all numbers are finite and in range.
  absl::Status Validate() const;
  // A safetensors file. Equal profiles give equal bytes. The profile must be valid.
  std::string Serialize() const;
  // DATA_LOSS for damage, UNIMPLEMENTED for a newer version.
  static absl::StatusOr<LatentProfile> Parse(std::string_view bytes);
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_LATENT_PROFILE_H_
