#include "server/sidecar/alignment/token_pairs.h"

#include "absl/strings/match.h"

namespace quicksave::server {

absl::StatusOr<std::vector<int>> TokenEnds(const text::Tokenizer& tokenizer, const std::string& text,
                                           absl::Span<const int32_t> ids) {
  std::vector<int> ends;
  int last = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const absl::StatusOr<std::string> begin = tokenizer.Decode(ids.first(i + 1), /*skip_special=*/true);
    if (!begin.ok()) return begin.status();
    const int end = static_cast<int>(begin->size());
    // A part of a character comes out as U+FFFD, which the text does not have there.
    const bool new_text = end > last && absl::StartsWith(text, *begin);
    ends.push_back(new_text ? end : kNoEnd);
    if (new_text) last = end;
  }
  return ends;
}

std::vector<TokenPair> PairTokens(absl::Span<const int> source_ends, absl::Span<const int> target_ends) {
  std::vector<TokenPair> pairs;
  size_t target = 0;
  for (size_t source = 0; source < source_ends.size(); ++source) {
    if (source_ends[source] == kNoEnd) continue;
    while (target < target_ends.size() && target_ends[target] < source_ends[source]) ++target;
    if (target == target_ends.size()) break;
    if (target_ends[target] != source_ends[source]) continue;
    pairs.push_back({static_cast<int>(source), static_cast<int>(target)});
  }
  return pairs;
}

}  // namespace quicksave::server
