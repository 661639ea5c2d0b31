#ifndef QUICKSAVE_SERVER_ENGINE_SAMPLER_H_
#define QUICKSAVE_SERVER_ENGINE_SAMPLER_H_

#include <cstdint>
#include <map>
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
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::map<int32_t, float> logit_bias;
  uint64_t seed = 0;

  friend bool operator==(const SamplingParameters&, const SamplingParameters&) = default;
};

// INVALID_ARGUMENT, naming the field and its range, unless every value is in range and finite, and every biased token
// in the vocabulary.
absl::Status Validate(const SamplingParameters& parameters, int vocab_size);

// The tokens that may be drawn: bit `id % 32` of word `id / 32`; those beyond its end may not. Empty: all may.
using TokenMask = absl::Span<const uint32_t>;

// Draws the token that follows `tokens`, given its logits [vocabulary], or only those of the first ids, of which one is
// drawn then. A pure function: the randomness is
// Philox4x32-10 (Salmon et al., 2011) with the seed as key and the position, tokens.size(), as counter. A logit that is
// not a number counts as minus infinity; among infinite ones the draw is even. A mask that is not empty allows at least
// one token; the others are as if the vocabulary did not have them. O(vocabulary + tokens).
int32_t Sample(absl::Span<const float> logits, const SamplingParameters& parameters, absl::Span<const int32_t> tokens,
               TokenMask allowed = {});

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
