#ifndef QUICKSAVE_SERVER_SERVICE_DISTRIBUTION_H_
#define QUICKSAVE_SERVER_SERVICE_DISTRIBUTION_H_

#include "absl/types/span.h"

namespace quicksave::server {

// How a next-token distribution differs from another.
struct DistributionDistance {
  bool same_bits = false;
  bool same_top = false;         // the most likely token is the same
  double kl = 0;                 // Kullback-Leibler divergence of `now` from `stored`, nats
  float largest_difference = 0;  // of two logits
};

// Both are logits of the whole vocabulary.
DistributionDistance CompareDistributions(absl::Span<const float> stored, absl::Span<const float> now);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_DISTRIBUTION_H_
