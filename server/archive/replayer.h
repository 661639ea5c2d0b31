#ifndef QUICKSAVE_SERVER_ARCHIVE_REPLAYER_H_
#define QUICKSAVE_SERVER_ARCHIVE_REPLAYER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/engine/page_pool.h"
#include "server/engine/sequence.h"
#include "server/engine/taps.h"

namespace quicksave::server {

// Computes K and V that a node does not have from its token ids, by the model that made them, bit for bit: what
// restoring needs of the engine when an encoding left the first layers out. Made for one call, whose caller it
// computes for.
//
//   engine::Sequence sequence;
//   auto first = replayer.Replay(tokens.subspan(0, 4), {}, sequence, pages);
//   auto taps = replayer.Replay(tokens.subspan(4), /*splits=*/{7}, sequence, pages);
//   // Now layers 8 and up of the tokens from 4 on are to be written to sequence.pages().
class Replayer {
 public:
  virtual ~Replayer() = default;

  // Appends `tokens` to `sequence` and computes their K and V: of all layers without splits, else of the layers 0 to
  // the last of `splits`, which ascend; those of higher layers are undefined then. The tokens before need K and V of
  // the layers that are gone through as a whole. Returns the hidden states of the new tokens after each split, [tokens,
  // hidden_size] in fp32 (Taps::Row(index of the split, position)); without splits, none are captured.
  //
  // `pages` has what sequence.PagesToAppend says; what is not taken stays there. The sequence is nobody else's
  // meanwhile and, when this fails, has some of the tokens.
  //
  // Costs (last split) / layers of a prefill. Blocks; not on the engine thread. INVALID_ARGUMENT for a split, token id
  // or position that the model does not have; otherwise the errors of Scheduler::Run: CANCELLED and DEADLINE_EXCEEDED
  // when the call ends first, RESOURCE_EXHAUSTED, UNAVAILABLE.
  virtual absl::StatusOr<engine::Taps> Replay(absl::Span<const int32_t> tokens, const std::vector<int>& splits,
                                              engine::Sequence& sequence, engine::PageReservation& pages) = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_REPLAYER_H_
