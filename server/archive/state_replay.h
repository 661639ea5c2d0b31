#ifndef QUICKSAVE_SERVER_ARCHIVE_STATE_REPLAY_H_
#define QUICKSAVE_SERVER_ARCHIVE_STATE_REPLAY_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/codec.h"
#include "server/archive/replayer.h"
#include "server/archive/rope_angles.h"
#include "server/engine/page_pool.h"
#include "server/engine/sequence.h"
#include "server/engine/taps.h"

namespace quicksave::server {

// Tokens of a state that no latent stores: the first ones attract most of the attention and have K and V unlike all
// others (Xiao et al. 2023, arXiv:2309.17453). All of their layers are recomputed, at next to no cost.
inline constexpr int kRecomputedTokens = 4;

// What a codec is told about a block, with what that points to.
struct OwnedContext {
  std::vector<const float*> angles;
  std::vector<float> hidden_states;
  compressor::BlockContext context;
};

// What latents leave out of a state, recomputed from its token ids: all layers of the first tokens, the first layers
// and the residual stream after them of the others. Immutable.
class StateReplay {
 public:
  // Recomputes `tokens` into `sequence`, which is empty; layers above the last of `splits`, which ascend, are left
  // undefined but for the first tokens. `pages` as Replayer::Replay says, and its errors.
  static absl::StatusOr<StateReplay> Run(Replayer& replayer, absl::Span<const int32_t> tokens,
                                         const std::vector<int>& splits, engine::Sequence& sequence,
                                         engine::PageReservation& pages);

  // For a block of these tokens and a codec with this split, which is one of those that were run.
  OwnedContext ContextOf(int split, int first_token, int count, const RopeAngles& angles) const;

 private:
  StateReplay(std::vector<int> splits, engine::Taps taps) : splits_(std::move(splits)), taps_(std::move(taps)) {}

  std::vector<int> splits_;
  engine::Taps taps_;  // of the tokens after the first ones
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_STATE_REPLAY_H_
