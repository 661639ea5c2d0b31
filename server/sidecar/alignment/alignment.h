#ifndef QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_H_
#define QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_H_

// Whether the latents of two models say the same: a linear map from one's to the other's, fitted on some texts and
// scored on others. The models may have different tokenizers, widths and depths.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "compressor/latent/latent_profile.h"
#include "server/sidecar/alignment/latent_rows.h"
#include "server/sidecar/alignment/retrieval.h"
#include "server/sidecar/model_runner.h"

namespace quicksave::server {

// A model with a profile of its latents.
struct AlignedModel {
  ModelRunner* runner;
  const compressor::LatentProfile* profile;
  LatentRowsOptions rows;
};

// A piece of a file, in UTF-8.
struct AlignmentText {
  std::string file;
  std::string text;
};

struct AlignmentOptions {
  std::vector<AlignmentText> texts;
  double held_out = 0.2;      // share of each file's pieces that the map is scored on
  double ridge = 0.01;        // see LinearMap
  int queries = 2000;         // most held-out tokens among which one is to be recognised
  int least_of_a_token = 10;  // occurrences of a token among which one is to be recognised
  uint64_t seed = 11;         // of the control's wrong places
  // Told what is being done.
  std::function<void(const std::string& what)> progress;
};

// A map, on held-out tokens.
struct AlignmentScores {
  double variance_explained = 0;  // of the target's latents, 1 - FractionOfVarianceUnexplained
  double cka = 0;                 // between mapped and true latents
  Retrieval among_all;            // the true latent of a mapped one, among those of other places
  Retrieval within_token;         // among places where both models read the same token
  Retrieval of_pieces;            // the mean over a piece, among pieces
};

struct AlignmentReport {
  int fitted_tokens = 0;
  int held_out_tokens = 0;
  int held_out_pieces = 0;
  double paired_tokens = 0;  // share of the source's tokens that are compared, the first ones not counted
  double cka_unmapped = 0;   // between the two models' latents as they are
  AlignmentScores forward;   // source to target
  AlignmentScores backward;  // target to source
  // Source to target, fitted to the latents of wrong places: must be no better than chance. Its CKA says nothing, since
  // CKA does not ask which direction is which.
  AlignmentScores control;

  // Whether the control found nothing.
  bool reliable() const;
};

// INVALID_ARGUMENT for options out of range, for texts that are longer than a model's context or leave nothing to fit
// or to score, for profiles without bases; else errors of the models' runs. One thread at a time.
absl::Status CheckAlignmentOptions(const AlignmentOptions& options);
absl::StatusOr<AlignmentReport> Align(const AlignedModel& source, const AlignedModel& target,
                                      const AlignmentOptions& options);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_ALIGNMENT_H_
