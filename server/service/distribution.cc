#include "server/service/distribution.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "server/engine/sampler.h"

namespace quicksave::server {

DistributionDistance CompareDistributions(absl::Span<const float> stored, absl::Span<const float> now) {
  if (std::memcmp(stored.data(), now.data(), stored.size() * sizeof(float)) == 0) {
    return {.same_bits = true, .same_top = true};
  }
  const engine::LogProbabilities p(stored);
  const engine::LogProbabilities q(now);
  DistributionDistance distance;
  for (size_t id = 0; id < stored.size(); ++id) {
    const double stored_logprob = p.of(static_cast<int32_t>(id));
    distance.kl += std::exp(stored_logprob) * (stored_logprob - q.of(static_cast<int32_t>(id)));
    distance.largest_difference = std::max(distance.largest_difference, std::abs(stored[id] - now[id]));
  }
  const auto top = [](absl::Span<const float> logits) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  };
  distance.same_top = top(stored) == top(now);
  return distance;
}

}  // namespace quicksave::server
