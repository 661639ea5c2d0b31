#ifndef QUICKSAVE_SERVER_SERVICE_SCHEDULER_REPLAYER_H_
#define QUICKSAVE_SERVER_SERVICE_SCHEDULER_REPLAYER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/archive/replayer.h"
#include "server/engine/model/model_config.h"
#include "server/scheduler/call_context.h"
#include "server/scheduler/scheduler.h"

namespace quicksave::server {

// Replays as a job of a call, beside whatever else the engine computes.
class SchedulerReplayer : public Replayer {
 public:
  // `scheduler` and `config`, its model's, must outlive this.
  SchedulerReplayer(Scheduler* scheduler, const engine::ModelConfig& config, CallContext call)
      : scheduler_(scheduler), config_(config), call_(std::move(call)) {}

  absl::StatusOr<engine::Taps> Replay(absl::Span<const int32_t> tokens, const std::vector<int>& splits,
                                      engine::Sequence& sequence, engine::PageReservation& pages) override;

 private:
  // Whether the model can compute that at all.
  absl::Status Check(absl::Span<const int32_t> tokens, const std::vector<int>& splits, int first_position) const;

  Scheduler* const scheduler_;
  const engine::ModelConfig& config_;
  const CallContext call_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_SCHEDULER_REPLAYER_H_
