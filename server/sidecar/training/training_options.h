#ifndef QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_OPTIONS_H_
#define QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_OPTIONS_H_

// How a sidecar is built and trained.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "compressor/learned/learned_profile.h"

namespace quicksave::server {

// What R(z) of the loss is.
enum class RateModel {
  kEntropy,  // bits of rounded values under a Laplace distribution whose scale is learned (Balle et al. 2017)
  kKl,       // KL of a Gaussian of a rounding's variance around z from N(0, learned), as in a VAE (arXiv:1312.6114)
};

// What a network is before its first step.
enum class Start {
  kRandom,     // uniform numbers
  kPrincipal,  // near enough the principal components of the training set, which it can only get better than
};

struct SidecarShape {
  compressor::Architecture architecture = compressor::Architecture::kGrouped;
  int hidden = 512;
  // Components of z for each component of the base, at least 1 in all.
  double latent_share = 0.25;
  int heads = 4;  // of the unified sidecar's attention
};

struct TrainingOptions {
  SidecarShape shape;
  RateModel rate = RateModel::kEntropy;
  Start start = Start::kRandom;
  // What one step of z is, in the base's components, for a start from principal components.
  double start_step = 0.6;
  // loss = kv_weight * relative squared error + rate_weight * bits a component + cosine_weight * (1 - cosine).
  double kv_weight = 1;
  double rate_weight = 0.02;
  double cosine_weight = 0;
  // The first tenths of the training: groups join one by one, from the first on; then rate and cosine grow to their
  // weights, so that squared error is first.
  bool progressive = false;
  double learning_rate = 1e-3;  // at first; falls to a hundredth along half a cosine
  int batch_tokens = 496;
  int epochs = 6;
  // Stops after so many evaluations that were no better than the best one; 0: never. It is kept in any case.
  int patience = 4;
  int evaluations = 20;  // in all
  uint64_t seed = 1;
};

// One evaluation on tokens that are not trained on.
struct TrainingRow {
  int64_t step = 0;
  double loss = 0;
  double relative_error = 0;  // |y - y^|^2 / |y|^2, of the base's components
  double bits = 0;            // a component, estimated
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_TRAINING_TRAINING_OPTIONS_H_
