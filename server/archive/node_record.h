#ifndef QUICKSAVE_SERVER_ARCHIVE_NODE_RECORD_H_
#define QUICKSAVE_SERVER_ARCHIVE_NODE_RECORD_H_

// What a node's record says about a session state, and whether it can be true.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/archive/archive.h"
#include "server/engine/page_pool.h"
#include "server/scheduler/session_state.h"
#include "storage/store.h"

namespace quicksave::server {

// Name of the state value that holds the next-token logits.
inline constexpr char kLogitsState[] = "logits";

// The record of a state, without node id, codec and blocks. Its parent is the origin, if there is one.
storage::NodeRecord MakeRecord(const SaveRequest& request, const ModelIdentity& model);

// fp32, little endian.
std::string LogitsToBytes(const engine::Logits& logits);
std::shared_ptr<const engine::Logits> LogitsFromBytes(std::string_view bytes);

// FAILED_PRECONDITION unless this model and numerics made the state, and all of it.
absl::Status CheckRestorable(const storage::NodeRecord& record, const ModelIdentity& model);

// DATA_LOSS, naming the node, unless the record agrees with itself: blocks tile the tokens and end at windows.
absl::Status CheckConsistent(const storage::NodeRecord& record);
// DATA_LOSS unless it also fits its model: token ids in the vocabulary, blocks of the model's size.
absl::Status CheckFitsModel(const storage::NodeRecord& record, const ModelIdentity& model,
                            const engine::KvShape& shape);

// A node as the origin of a state that was restored from `source`: with the blocks that give the state's bits one by
// one, so that a descendant can have them too.
std::shared_ptr<const Origin> OriginOf(const storage::NodeRecord& record, const RestoreSource& source);
std::vector<int32_t> TokensOf(const storage::NodeRecord& record, int tokens);
engine::SamplingParameters SamplingOf(const storage::NodeRecord& record);
// The text side after all tokens, or after the first `tokens`: then empty but for the detokenizer's place, from which
// GenerateJob finds its context.
TextState TextStateOf(const storage::NodeRecord& record, int tokens);
// The constraint that is in force after the first `tokens` tokens: the node's, unless it began later.
ConstraintState ConstraintOf(const storage::NodeRecord& record, int tokens);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_NODE_RECORD_H_
