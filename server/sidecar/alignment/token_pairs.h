#ifndef QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_TOKEN_PAIRS_H_
#define QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_TOKEN_PAIRS_H_

// Which tokens of one tokenizer belong to which of another: those that end at the same byte of the text, since the
// states after them are of two models that have read the same.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/text/tokenizer.h"

namespace quicksave::server {

// Where no token ends that another one could be compared with.
inline constexpr int kNoEnd = -1;

// For each token the byte of `text` at which it ends, or kNoEnd: for control tokens, for tokens that end within a
// character, and from where the tokens are no longer the text's. INVALID_ARGUMENT for an id outside the vocabulary.
// Cost: quadratic in the tokens.
absl::StatusOr<std::vector<int>> TokenEnds(const text::Tokenizer& tokenizer, const std::string& text,
                                           absl::Span<const int32_t> ids);

// Indices of two tokens that end at the same byte.
struct TokenPair {
  int source = 0;
  int target = 0;

  friend bool operator==(const TokenPair&, const TokenPair&) = default;
};

// All pairs, ascending; a token is in one pair at most.
std::vector<TokenPair> PairTokens(absl::Span<const int> source_ends, absl::Span<const int> target_ends);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_ALIGNMENT_TOKEN_PAIRS_H_
