#ifndef QUICKSAVE_SERVER_ARCHIVE_ARCHIVE_H_
#define QUICKSAVE_SERVER_ARCHIVE_ARCHIVE_H_

// Turns session states into nodes and back: the only place that knows sessions, codecs and the store together.

#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "compressor/codec.h"
#include "server/archive/replayer.h"
#include "server/archive/restore_costs.h"
#include "server/archive/restore_plan.h"
#include "server/archive/rope_angles.h"
#include "server/archive/state_replay.h"
#include "server/engine/page_pool.h"
#include "server/scheduler/session_state.h"
#include "server/worker_pool.h"
#include "storage/store.h"

namespace quicksave::server {

class BlockCoder;

// Which model the states belong to.
struct ModelIdentity {
  std::string fingerprint;
  std::string numerics;  // engine::NumericsVersion
  int vocab_size = 0;
  int hidden_size = 0;
};

struct SaveRequest {
  SessionState state;  // must have next_logits
  std::string tenant;
  std::map<std::string, std::string> labels;
  std::string note;
  // Unset: CONTINUATION when the state has all of its origin's tokens, else COUNTERFACTUAL.
  std::optional<storage::EdgeType> edge_type;
  // Last characters of the text, for lists. UTF-8, as are labels and note.
  std::string text_tail;
  // Remembered with the node in the same atomic step.
  std::optional<storage::AnsweredRequest<storage::NodeRecord>> request;
};

// Times are summed over threads, but for commit and total.
struct SaveReport {
  int64_t written_bytes = 0;  // new blocks, logits, hidden states and record
  int64_t encoded_bytes = 0;  // raw bytes of K and V that were encoded
  int new_blocks = 0;
  int shared_blocks = 0;
  absl::Duration gather;  // from pages, with the computation of the identity
  absl::Duration encode;
  absl::Duration commit;
  absl::Duration total;
};

struct SavedNode {
  storage::NodeRecord record;  // without contents
  // The same state with the new node as its origin. The stored_bytes of blocks that other nodes had stored are 0.
  std::shared_ptr<const Origin> origin;
  SaveReport report;
};

// Times are summed over threads, but for replay and total.
struct RestoreReport {
  int64_t bytes_read = 0;      // blocks, logits and hidden states, as stored
  int64_t bytes_restored = 0;  // K, V and logits
  std::string codec;
  // The encoding that was read, unless it was the one as saved, and what was measured of it.
  std::optional<storage::v1::EncodingSummary> encoding;
  std::optional<storage::v1::Fidelity> fidelity;
  // Whether the state has the bits that were saved.
  bool exact = true;
  // Layers that were recomputed for all tokens, and tokens for which all were.
  int replayed_layers = 0;
  int recomputed_tokens = 0;
  absl::Duration estimate;  // of total, before
  absl::Duration replay;    // recomputing
  absl::Duration read;      // from the store, with its checksum
  absl::Duration decode;    // with the check of the identity
  absl::Duration load;      // into pages
  absl::Duration total;
};

struct RestoredState {
  // With next_logits only when all tokens of the node were restored. A rewound state has an empty text state but for
  // the detokenizer, which starts after its last token.
  SessionState state;
  storage::NodeRecord record;
  RestoreReport report;
};

// Reserves pages for `room` tokens, or more; the restored state has `tokens` of them.
using ReservePages = std::function<absl::StatusOr<engine::PageReservation>(int tokens, int room)>;

struct RestoreOptions {
  // Keeps that many tokens only, 1 to all.
  std::optional<int> at_token;
  // Where the pages come from, if not from the pool; its errors.
  ReservePages reserve;
  // Told before anything is read how many bytes of hidden states the state has, or, where it is to have those of its
  // last token only, will have; its errors.
  std::function<absl::Status(int64_t bytes)> admit_taps;
  // Leaves the hidden states out, and what the state captures.
  bool without_taps = false;
  // Recomputes what latents leave out. Without it, a node with latents is FAILED_PRECONDITION.
  Replayer* replayer = nullptr;
  RestorePreference preference;
};

// The beginning of a stored state that is the beginning of wanted tokens, too.
struct StoredPrefix {
  std::string tenant;
  std::string node_id;
  int tokens = 0;
  int room = 0;             // tokens for which restoring them takes pages
  absl::Duration estimate;  // of restoring them
};

// Another encoding of a node, which no store has yet.
struct EncodedState {
  storage::v1::Encoding encoding;  // without fidelity but for the errors of K and V
  std::vector<storage::NewBlock> blocks;
  absl::Duration encode;  // summed over threads
};

struct VerifiedNode {
  int blocks = 0;          // those of hidden states included
  int64_t bytes_read = 0;  // blocks and logits, as stored
};

// Thread-safe. Methods block on the store and on encoding; call them from workers, never from the engine thread or a
// gRPC callback.
class Archive {
 public:
  struct Dependencies {
    storage::Store* store;
    compressor::CodecRegistry* codecs;
    engine::PagePool* pool;
    WorkerPool* workers;
    ModelIdentity model;
    // What latents need; null where they are not used.
    const RopeAngles* angles = nullptr;
    // ModelConfig's, for estimates.
    double attention_parity = std::numeric_limits<double>::infinity();
  };
  // Registers the codecs that need no profile, unless they are registered, and the model's stored profile of the exact
  // codec, when there is one. DATA_LOSS when that profile is damaged. What is given must outlive the archive.
  static absl::StatusOr<std::unique_ptr<Archive>> Create(const Dependencies& dependencies);
  ~Archive();

  // Whether the exact codec has a profile for this model; without one it uses generic tables.
  bool has_profile() const;
  // Calibrates the exact codec on states of this model, stores the profile and uses it from now on. FAILED_PRECONDITION
  // when the states have no tokens; the store's errors.
  absl::Status Calibrate(const std::vector<engine::Sequence>& sequences);

  // The latent profiles of the model.
  LatentProfiles& latents();

  // Encodes a node's state, which was restored as saved, with a latent profile at a step, and with residuals if asked
  // for; or without a profile so that all of it is recomputed. Blocks that are latents already, and others with lossy
  // tokens, are kept as they are: nothing decoded is encoded anew. `replayed` holds what the profile leaves out,
  // recomputed by `replay`; it gets the rest as it will be decoded. FAILED_PRECONDITION when what was recomputed is not
  // what was saved; errors of encoding.
  struct EncodingChoice {
    const LatentProfileEntry* profile = nullptr;
    float step = 0;
    bool residual = false;
  };
  absl::StatusOr<EncodedState> EncodeState(const storage::NodeRecord& record, const engine::Sequence& saved,
                                           const StateReplay& replay, const engine::Sequence& replayed,
                                           const EncodingChoice& choice);

  // Saves a state as a new node, in one atomic step: what its origin already has is referred to, the rest is gathered
  // from pages, encoded in parallel and written. Blocks end at multiples of 128 tokens. A window of 128 tokens that
  // earlier saves cut into pieces keeps them until there would be more than kMaxPieces, then it is stored anew as one
  // block. When the origin or some of its blocks were deleted meanwhile, the missing blocks are stored again, and
  // without the origin the node is a root. FAILED_PRECONDITION when the state has no logits; RESOURCE_EXHAUSTED when
  // the disk is full; ABORTED when the request was answered meanwhile; the store's other errors.
  absl::StatusOr<SavedNode> Save(const SaveRequest& request);

  // Reads a node back into pages, from the encoding that the preference allows and that is estimated to be fastest.
  // Blocks are read, decoded straight into pages and checked against their identity, in parallel; latents against what
  // was measured when they were encoded. NOT_FOUND; OUT_OF_RANGE for at_token;
  // FAILED_PRECONDITION for a node of another model or numerics, saying which, or one that lacks something; DATA_LOSS
  // naming node and part; UNIMPLEMENTED when a newer program encoded a block; RESOURCE_EXHAUSTED when there are no
  // pages.
  absl::StatusOr<RestoredState> Restore(const std::string& tenant, const std::string& node_id,
                                        const RestoreOptions& options);

  // The longest beginning of `tokens` that a node can give bit for bit without recomputing all of it. NOT_FOUND when no
  // node has as much as Store::FindBeginning wants, or a damaged one or one that lacks something was found; the store's
  // errors. A few reads of small values.
  absl::StatusOr<StoredPrefix> FindPrefix(const std::string& tenant, absl::Span<const int32_t> tokens) const;

  // The values [tokens, hidden_size] of block `index` of a consistent record's hidden states, of whatever model.
  // DATA_LOSS naming node and part; UNIMPLEMENTED; NOT_FOUND when the node was deleted meanwhile.
  absl::StatusOr<std::vector<float>> ReadTaps(const storage::NodeRecord& record, int index) const;

  // Reads and decodes everything that a node, of whatever model, refers to. NOT_FOUND; DATA_LOSS names the part that is
  // not whole; UNIMPLEMENTED.
  absl::StatusOr<VerifiedNode> Verify(const std::string& tenant, const std::string& node_id);

 private:
  Archive(const Dependencies& dependencies, std::unique_ptr<BlockCoder> coder);
  // Whether the record of a node can be restored by this model, errors as of Restore.
  absl::Status Check(const storage::NodeRecord& record) const;
  absl::StatusOr<RestoredState> RestoreOnce(storage::NodeRecord record, const RestoreOptions& options);
  absl::StatusOr<VerifiedNode> VerifyOnce(const storage::NodeRecord& record) const;
  // Whether a node was changed since its record was read.
  bool HasChanged(const storage::NodeRecord& record) const;
  // Reads the first `tokens` tokens of restored.record into restored.state, and the hidden states of
  // `extent`.
  absl::Status Load(const RestoreSource& source, int tokens, const engine::TapExtent& extent, Replayer* replayer,
                    engine::PageReservation reservation, RestoredState& restored);

  const Dependencies d_;
  const std::unique_ptr<BlockCoder> coder_;
  RestoreCosts costs_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_ARCHIVE_H_
