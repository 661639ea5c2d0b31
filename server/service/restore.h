#ifndef QUICKSAVE_SERVER_SERVICE_RESTORE_H_
#define QUICKSAVE_SERVER_SERVICE_RESTORE_H_

// Restoring a node with proof, and the start states of calls.

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quicksave/v1/session.pb.h"
#include "server/scheduler/call_context.h"
#include "server/scheduler/session_state.h"
#include "server/service/core.h"

namespace quicksave::server {

struct ProvenState {
  SessionState state;
  v1::Proof proof;
  engine::PageReservation pages;  // for what comes next
};

// How many pages to reserve for what is to be done with a state of a length.
using Growth = SessionTable::Growth;
inline int NoGrowth(int) { return 0; }

// What is to be done with a start state.
struct StartUse {
  Growth growth = NoGrowth;
  // Without, it captures nothing and has none of its node's hidden states.
  bool taps = true;
  // Which of the node's encodings will do.
  RestorePreference preference = {};
};

// Restores `node` ("nodes/..."), rewound to `at_token` when that is set, and unless `skip_check`, evaluates its last
// token again over the restored K and V and compares: K and V of that token in every layer, its hidden states when they
// are stored, and the logits when they are. Every bit must be the same, because a state is a pure function of its
// tokens; otherwise DATA_LOSS. A state that was decoded from a latent goes on from its own distribution, which must
// diverge from the stored one as was measured when it was encoded; of one that was saved with lossy tokens up to its
// end, the logits alone are compared. Other errors are those of Archive::Restore,
// AdmitTaps, PageBroker::Reserve and Scheduler::Run.
absl::StatusOr<ProvenState> RestoreWithProof(Core& core, const std::string& node, std::optional<int> at_token,
                                             bool skip_check, const CallContext& call, const StartUse& use = {});

// Restores the first tokens of a stored state bit for bit, with pages out of `pages`, for another state that begins
// like it; proved as above. With next-token logits. Errors of Archive::Restore and Scheduler::Run; DATA_LOSS also when
// it turns out not to be the model's own.
absl::StatusOr<engine::Sequence> RestorePrefix(Core& core, const StoredPrefix& prefix, engine::PageReservation& pages,
                                               const CallContext& call);

// Gives a state whose last token was decoded from a latent the logits and hidden states of that token which it lacks,
// and leaves its K and V as they are: feeding the token to the state itself would put others in their place.
absl::Status CompleteDecoded(Core& core, SessionState& state, const CallContext& call);

// Computes the next-token logits of a state that lacks them (a rewound one), by feeding its last token again.
// FAILED_PRECONDITION when the state has no token.
absl::Status EnsureLogits(Core& core, SessionState& state, const CallContext& call);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_RESTORE_H_
