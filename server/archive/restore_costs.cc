#include "server/archive/restore_costs.h"

#include <algorithm>

#include "compressor/learned/learned_codec.h"
#include "compressor/replay_codec.h"

namespace quicksave::server {

RestoreCosts::Work RestoreCosts::ReadingOf(const RestoreSource& source) {
  if (source.replay_end == 0) return kExact;
  const bool layered = std::any_of(source.residuals.begin(), source.residuals.end(),
                                   [](const storage::BlockRef* ref) { return ref != nullptr; });
  if (layered) return kLayered;
  if (source.encoding == nullptr) return kLatent;
  if (source.encoding->codec() == compressor::kReplayCodec) return kReplayed;
  return source.encoding->codec() == compressor::kLearnedCodec ? kLearned : kLatent;
}

double RestoreCosts::PrefillWork(int tokens, double layers_share) const {
  return tokens * layers_share * (1 + tokens / 2.0 / attention_parity_);
}

absl::Duration RestoreCosts::Estimate(const RestoreSource& source, int tokens, double layers_share) const {
  const absl::Time now = clock_();
  absl::MutexLock lock(&mutex_);
  double seconds = lines_[ReadingOf(source)].Expect(now).At(tokens);
  if (source.replay_end > 0) {
    seconds += lines_[kPrefill].Expect(now).At(PrefillWork(source.replay_end, layers_share));
  }
  return absl::Seconds(seconds);
}

void RestoreCosts::NoteRead(const RestoreSource& source, int tokens, absl::Duration time) {
  if (tokens == 0) return;
  const absl::Time now = clock_();
  absl::MutexLock lock(&mutex_);
  lines_[ReadingOf(source)].Note(tokens, absl::ToDoubleSeconds(time), now);
}

void RestoreCosts::NoteReplay(int tokens, double layers_share, absl::Duration time) {
  if (tokens == 0 || layers_share <= 0) return;
  const absl::Time now = clock_();
  absl::MutexLock lock(&mutex_);
  lines_[kPrefill].Note(PrefillWork(tokens, layers_share), absl::ToDoubleSeconds(time), now);
}

}  // namespace quicksave::server
