#ifndef QUICKSAVE_SERVER_SERVICE_FIDELITY_PROBE_H_
#define QUICKSAVE_SERVER_SERVICE_FIDELITY_PROBE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/sequence.h"
#include "server/scheduler/call_context.h"
#include "server/service/core.h"
#include "storage/store.h"

namespace quicksave::server {

// Measures how far a decoded state is from the saved one: feeds the state's last tokens again, over what comes before
// them in either state, and compares the next-token distributions. One thread.
class FidelityProbe {
 public:
  // Tokens that are fed again; fewer in short states.
  static constexpr int kTokens = 32;

  // Runs the saved state. Everything must outlive the probe. Errors of Scheduler::Run.
  static absl::StatusOr<FidelityProbe> Create(Core& core, const engine::Sequence& saved, const CallContext& call);

  // Adds what it measures of a state of the same tokens to `fidelity`. Errors of Scheduler::Run.
  absl::Status Measure(const engine::Sequence& decoded, storage::v1::Fidelity& fidelity) const;

 private:
  FidelityProbe(Core& core, CallContext call) : core_(core), call_(std::move(call)) {}
  // Logits [count, vocabulary] of the last `count` tokens.
  absl::StatusOr<std::vector<float>> Evaluate(const engine::Sequence& state, int count) const;

  Core& core_;
  const CallContext call_;
  int tokens_ = 0;
  std::vector<float> saved_;       // logits of the last tokens_
  std::vector<float> saved_next_;  // logits of the last token, over the state's own K and V
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_FIDELITY_PROBE_H_
