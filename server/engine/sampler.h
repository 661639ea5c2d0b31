#ifndef QUICKSAVE_SERVER_ENGINE_SAMPLER_H_
#define QUICKSAVE_SERVER_ENGINE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace quicksave::engine {

// How the next token is drawn; meanings and ranges as in quicksave.v1.SamplingParameters.
struct SamplingParameters {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  uint64_t seed = 0;

  friend bool operator==(const SamplingParameters&, const SamplingParameters&) = default;
};

// INVALID_ARGUMENT, naming the field and its range, unless every value is in range and finite.
absl::Status Validate(const SamplingParameters& parameters);

// Draws the token that follows `tokens`, given its logits [vocabulary]. A pure function: the randomness is
// Philox4x32-10 (Salmon et al., 2011) with the seed as key and the position, tokens.size(), as counter. A logit that is
// not a number counts as minus infinity; among infinite ones the draw is even. O(vocabulary).
int32_t Sample(absl::Span<const float> logits, const SamplingParameters& parameters, absl::Span<const int32_t> tokens);

// A token and the natural logarithm of its probability.
struct TokenLogprob {
  int32_t id;
  float logprob;
};

// log-softmax of one row of logits; one that is not a number counts as minus infinity.
class LogProbabilities {
 public:
  explicit LogProbabilities(absl::Span<const float> logits);
  float of(int32_t id) const;
  // The k most likely tokens, best first, the lower id first on a tie; k is cut to the vocabulary.
  std::vector<TokenLogprob> Top(int k) const;

 private:
  absl::Span<const float> logits_;
  double largest_;
  double log_sum_;  // of the exponentials of the logits less the largest
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_SAMPLER_H_
