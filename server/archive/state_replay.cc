#include "server/archive/state_replay.h"

#include <algorithm>
#include <utility>

namespace quicksave::server {

absl::StatusOr<StateReplay> StateReplay::Run(Replayer& replayer, absl::Span<const int32_t> tokens,
                                             const std::vector<int>& splits, engine::Sequence& sequence,
                                             engine::PageReservation& pages) {
  const auto first = tokens.subspan(0, std::min<size_t>(kRecomputedTokens, tokens.size()));
  const absl::StatusOr<engine::Taps> none = replayer.Replay(first, {}, sequence, pages);
  if (!none.ok()) return none.status();
  const auto rest = tokens.subspan(first.size());
  if (rest.empty()) return StateReplay(splits, engine::Taps());
  absl::StatusOr<engine::Taps> taps = replayer.Replay(rest, splits, sequence, pages);
  if (!taps.ok()) return taps.status();
  return StateReplay(splits, *std::move(taps));
}

OwnedContext StateReplay::ContextOf(int split, int first_token, int count, const RopeAngles& angles) const {
  OwnedContext owned{.angles = angles.From(first_token)};
  const int known = std::clamp(kRecomputedTokens - first_token, 0, count);
  if (taps_.on()) {
    const int layer = static_cast<int>(std::find(splits_.begin(), splits_.end(), split) - splits_.begin());
    const size_t width = taps_.extent().hidden_size;
    owned.hidden_states.resize(count * width);
    for (int t = known; t < count; ++t) {
      const absl::Span<const float> row = taps_.Row(layer, first_token + t);
      std::copy(row.begin(), row.end(), owned.hidden_states.begin() + static_cast<std::ptrdiff_t>(t * width));
    }
  }
  owned.context = {.first_position = first_token,
                   .angles = owned.angles,
                   .hidden_states = owned.hidden_states,
                   .known_tokens = known};
  return owned;
}

}  // namespace quicksave::server
