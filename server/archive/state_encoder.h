#ifndef QUICKSAVE_SERVER_ARCHIVE_STATE_ENCODER_H_
#define QUICKSAVE_SERVER_ARCHIVE_STATE_ENCODER_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/archive/archive.h"
#include "server/archive/block_coder.h"

namespace quicksave::server {

// One encoding of a node's state; see Archive::EncodeState. Used once, by one thread, which the worker pool
// helps.
class StateEncoder {
 public:
  struct Input {
    const storage::NodeRecord& record;
    const engine::Sequence& saved;
    const StateReplay& replay;
    const engine::Sequence& replayed;
    const Archive::EncodingChoice& choice;
  };

  // All arguments must outlive it.
  StateEncoder(const Archive::Dependencies& dependencies, const BlockCoder& coder, const Input& input)
      : d_(dependencies), coder_(coder), in_(input) {}

  absl::StatusOr<EncodedState> Encode();

 private:
  // Sums over a layer's keys or values.
  struct ErrorSums {
    double error = 0;
    double saved = 0;
    double decoded = 0;
    double product = 0;
  };
  struct Part {
    storage::BlockRef ref;
    storage::BlockRef residual_ref;  // with an id if there is one
    std::vector<storage::NewBlock> blocks;
    std::vector<ErrorSums> errors;  // [layers][key, value]
    absl::Duration encode;
    absl::Status status;
  };

  absl::Status EncodeBlock(const storage::BlockRef& saved, Part& part) const;
  // `decoded` has what was recomputed, and then what the latent decodes to.
  absl::Status EncodeLatent(const storage::BlockRef& saved_ref, const RawBlock& saved, RawBlock& decoded,
                            Part& part) const;
  absl::Status EncodeReplay(const storage::BlockRef& saved_ref, const RawBlock& saved, const RawBlock& replayed,
                            Part& part) const;
  // Whether the layers and tokens that are recomputed are what was saved.
  absl::Status CheckKnown(const RawBlock& saved, const RawBlock& replayed, int known_layers, int known_tokens,
                          int first_token) const;
  void AddErrors(const RawBlock& saved, const RawBlock& decoded, Part& part) const;
  void SetErrors(const std::vector<Part>& parts, storage::v1::Fidelity& fidelity) const;

  const Archive::Dependencies& d_;
  const BlockCoder& coder_;
  const Input in_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_STATE_ENCODER_H_
