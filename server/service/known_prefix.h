#ifndef QUICKSAVE_SERVER_SERVICE_KNOWN_PREFIX_H_
#define QUICKSAVE_SERVER_SERVICE_KNOWN_PREFIX_H_

// New states begin with what is known of their tokens already: of a sequence in memory, a stored node, a parked
// session.

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/archive/archive.h"
#include "server/engine/page_pool.h"
#include "server/engine/sequence.h"
#include "server/scheduler/call_context.h"
#include "server/service/core.h"

namespace quicksave::server {

// The beginning of some tokens, bit for bit as if it had been computed.
struct KnownPrefix {
  engine::Sequence sequence;      // empty when nothing is known; may have next-token logits
  bool restored = false;          // from the store; else its pages are shared with a sequence in memory
  std::string node;               // "nodes/..." that it was restored from; empty for a parked session
  engine::PageReservation pages;  // for what comes next
};

// Whether a stored prefix is estimated to be there sooner than the tokens that it has more than `shared`, which need
// no work, are computed. `row` is the time that computing one takes; infinite when that is not known.
bool IsWorthRestoring(const StoredPrefix& prefix, int shared, absl::Duration row);

// Takes the longest known beginning of `tokens` that costs less than computing it, and reserves memory: for a state
// that will have `pages` pages in all, those that it lacks then; nothing for one that will have none. A stored prefix
// is proved like a restored node; one that fails is logged, and the call goes on without it. Errors of
// PageBroker::Reserve.
absl::StatusOr<KnownPrefix> TakeKnownPrefix(Core& core, absl::Span<const int32_t> tokens, int pages,
                                            const CallContext& call);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_KNOWN_PREFIX_H_
