#ifndef QUICKSAVE_SERVER_SCHEDULER_SESSION_STATE_H_
#define QUICKSAVE_SERVER_SCHEDULER_SESSION_STATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/engine/sampler.h"
#include "server/engine/sequence.h"
#include "server/engine/taps.h"
#include "server/text/constraint.h"
#include "server/text/detokenizer.h"

namespace quicksave::server {

// What stands between the tokens of a state and its text.
struct TextState {
  text::Detokenizer::State detokenizer;
  // Text held back because it may become a stop string.
  std::string held_text;
};

// The constraint that a state's last tokens were generated under, and under which it goes on without input. What the
// grammar makes of these tokens is a function of both, so this is its whole state.
struct ConstraintState {
  // Null when none is in force.
  std::shared_ptr<const text::Constraint> constraint;
  // Tokens of the state since it began.
  int tokens = 0;
};

// A stored block that a state's beginning consists of.
struct StoredBlock {
  std::string content_id;  // 16 bytes
  std::string codec;       // key of the encoding, as in storage::BlockId
  int first_token = 0;
  int token_count = 0;
  int64_t raw_bytes = 0;
  int64_t stored_bytes = 0;
};

// The node that a state was restored from or last saved as.
struct Origin {
  std::string node_id;       // without "nodes/"
  int node_token_count = 0;  // tokens of the node
  // Stored blocks of the node, in order. Those within the state's common tokens need not be stored again.
  std::vector<StoredBlock> blocks;
};

// Everything needed to go on exactly. Copying it is O(1) but for short strings and the sampler's biases; see
// Sequence.
struct SessionState {
  engine::Sequence sequence;
  engine::SamplingParameters sampling;
  TextState text;
  ConstraintState constraint;
  // Hidden states; off when none are captured.
  engine::Taps taps;
  // Null for a state that has no node.
  std::shared_ptr<const Origin> origin;
  // The first tokens of the state that are the origin's: min(node_token_count, the token it was rewound to).
  int origin_tokens = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_SESSION_STATE_H_
