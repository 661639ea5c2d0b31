#ifndef QUICKSAVE_SERVER_SIDECAR_PROFILE_FITTER_H_
#define QUICKSAVE_SERVER_SIDECAR_PROFILE_FITTER_H_

// Fits the bases and predictors of a latent profile to what a model's K and V are like.

#include <cstdint>
#include <istream>
#include <memory>
#include <ostream>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::server {

// How errors of a group's channels are weighed against each other.
enum class ErrorMetric {
  kFisher,    // by how much the model's output depends on them
  kVariance,  // each channel by what the prediction leaves of it: plain principal components, no gradients needed
};

struct FitOptions {
  int split = 0;
  // Layers that are coded together; 0 goes without bases and predictors: each channel by itself, in steps by its Fisher
  // information. A profile of that kind is small and fast, and compresses less.
  int layers_per_group = 5;

  ErrorMetric metric = ErrorMetric::kFisher;

  bool transforms() const { return layers_per_group > 0; }
  // Added to the diagonal of the standardised features' covariance: keeps the prediction from fitting noise.
  double ridge = 0.01;
  // Share of the Fisher information's diagonal in the metric, which steadies directions that few gradients showed.
  double diagonal_share = 0.05;
};

// Collects second moments, group by group, and makes a profile of them. Holds for each group two matrices of its
// channels squared and one of features by channels, in fp32; Fit takes about ten of the former in double, for one group
// at a time. One thread at a time.
//
// Sources: KVTC (ICLR 2026) for the transform; Fisher information as metric, Amari 1998; ridge regression.
class ProfileFitter {
 public:
  // `model` has fingerprint and shape; `features` is the width of the residual stream.
  ProfileFitter(compressor::LatentProfile model, int features, const FitOptions& options);
  ~ProfileFitter();

  const FitOptions& options() const { return options_; }

  // Adds tokens: `channels` of all layers [layers * 2 * kv_width][columns], keys before RoPE, and the residual stream
  // after the split [columns, features]. The first call also sets the features' standardisation.
  void AddStates(const std::vector<float>& channels, absl::Span<const float> hidden_states, int columns);

  // Adds gradients of all channels [tokens, layers * 2 * kv_width]: of the log-likelihood of `scored` labels drawn
  // after these tokens.
  void AddGradients(absl::Span<const float> gradients, int tokens, int scored);

  // A profile without tables, whose components have the deviations that the states had. To second order, errors e of a
  // token's components, the same for all tokens, make the next-token distributions diverge by sum(e^2) / 2 millionths
  // of a nat. With the variances as metric the
  // components are in units of the channels' deviations instead. FAILED_PRECONDITION without states, or without
  // gradients where the metric needs them.
  absl::StatusOr<compressor::LatentProfile> Fit() const { return Fit(/*basis=*/options_.transforms()); }
  // The same, whose components are the channels, less the prediction, in the metric's scale.
  absl::StatusOr<compressor::LatentProfile> FitChannels() const { return Fit(/*basis=*/false); }

  // Writes all that was added, and reads it back, bit for bit, into a fitter of the same model and options. DATA_LOSS
  // for a stream that is damaged or of another fitter; nothing should be added after that.
  void SaveMoments(std::ostream& stream) const;
  absl::Status LoadMoments(std::istream& stream);

 private:
  struct Moments;

  absl::StatusOr<compressor::LatentProfile> Fit(bool basis) const;
  // May throw what Torch throws.
  absl::StatusOr<compressor::LatentProfile> FitProfile(bool basis) const;

  const FitOptions options_;
  compressor::LatentProfile profile_;
  std::unique_ptr<Moments> moments_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_PROFILE_FITTER_H_
