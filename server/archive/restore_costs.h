#ifndef QUICKSAVE_SERVER_ARCHIVE_RESTORE_COSTS_H_
#define QUICKSAVE_SERVER_ARCHIVE_RESTORE_COSTS_H_

#include <array>
#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/archive/cost_line.h"
#include "server/archive/restore_plan.h"

namespace quicksave::server {

// What restoring costs on this machine, learned from what it took. Thread-safe.
class RestoreCosts {
 public:
  // `attention_parity` is ModelConfig's.
  explicit RestoreCosts(double attention_parity, std::function<absl::Time()> clock = absl::Now)
      : attention_parity_(attention_parity), clock_(std::move(clock)) {}

  // For `tokens` tokens, of which the first `source.replay_end` go through `layers_share` of the model's layers.
  absl::Duration Estimate(const RestoreSource& source, int tokens, double layers_share) const;
  // What reading and decoding took, and what recomputing did.
  void NoteRead(const RestoreSource& source, int tokens, absl::Duration time);
  void NoteReplay(int tokens, double layers_share, absl::Duration time);

 private:
  // Work that takes times of its own: reading sources of a kind, whose unit is a token, and recomputing, whose unit is
  // a token through all layers without its attention.
  enum Work { kExact, kReplayed, kLatent, kLearned, kLayered, kPrefill, kWorks };
  static Work ReadingOf(const RestoreSource& source);
  // Of recomputing the first `tokens` tokens.
  double PrefillWork(int tokens, double layers_share) const;

  const double attention_parity_;
  const std::function<absl::Time()> clock_;
  mutable absl::Mutex mutex_;
  // Before anything was measured, those of SmolLM2-135M on two CPU cores.
  std::array<CostLine, kWorks> lines_ ABSL_GUARDED_BY(mutex_) = {
      CostLine({1e-3, 40e-6}),  CostLine({0.3e-3, 10e-6}), CostLine({1.5e-3, 70e-6}),
      CostLine({2e-3, 200e-6}), CostLine({2.5e-3, 90e-6}), CostLine({20e-3, 1.1e-3}),
  };
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_RESTORE_COSTS_H_
