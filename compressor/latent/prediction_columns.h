// Which of a block's hidden states are predicted from.

#ifndef QUICKSAVE_COMPRESSOR_LATENT_PREDICTION_COLUMNS_H_
#define QUICKSAVE_COMPRESSOR_LATENT_PREDICTION_COLUMNS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compressor/latent/latent_profile.h"

namespace quicksave::compressor {

// Of hidden states that are equal one is predicted from, as those of equal tokens are before the first layer. That
// changes no bit, since no column of a product depends on another one. Immutable.
class PredictionColumns {
 public:
  // Of hidden states [first + tokens, width] the last `tokens` ones.
  PredictionColumns(absl::Span<const float> hidden_states, size_t width, int first, int tokens);

  // A multiple of kColumnGroup.
  int count() const { return count_; }
  // Their hidden states, standardised as the profile says: [features, count()], padded with zeros.
  std::vector<float> Features(const LatentProfile& profile, absl::Span<const float> hidden_states) const;
  // From what is for each of them, [rows, count()], what is for each token: [rows, tokens], padded with anything. Only
  // where count() is less than the padded tokens.
  void ForEachToken(const std::vector<float>& values, std::vector<float>& all) const;

 private:
  std::vector<int> tokens_;  // of each column, its place in the hidden states
  // The column of each token, padded; empty where each has its own.
  std::vector<int32_t> of_token_;
  int count_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_LATENT_PREDICTION_COLUMNS_H_
