#ifndef QUICKSAVE_SERVER_ARCHIVE_NODE_READER_H_
#define QUICKSAVE_SERVER_ARCHIVE_NODE_READER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/archive/archive.h"
#include "server/archive/block_coder.h"
#include "server/archive/state_replay.h"
#include "server/archive/tap_blocks.h"

namespace quicksave::server {

// What reading cost.
struct ReadCost {
  int64_t bytes = 0;
  absl::Duration read;
  absl::Duration decode;
};

// Reads the parts of one node; every error names the node and the part. Thread-safe.
class NodeReader {
 public:
  // All arguments must outlive it; `record` has its contents.
  NodeReader(const Archive::Dependencies& dependencies, BlockCoder& coder, const storage::NodeRecord& record)
      : d_(dependencies), coder_(coder), record_(record) {}

  // A block of the record, decoded and checked against its identity.
  // DATA_LOSS; UNIMPLEMENTED when a newer program wrote it; NOT_FOUND when the node was deleted meanwhile.
  absl::StatusOr<RawBlock> ReadBlock(const storage::BlockRef& ref, ReadCost& cost) const;

  // A block that may be a latent, with its residual if there is one. `known` has what a latent does not store. With the
  // residual, or of another codec, the result has the block's identity.
  struct LatentSource {
    const StateReplay* replay;
    absl::Span<const engine::PageRef> pages;  // recomputed
    const RopeAngles* angles;
  };
  absl::StatusOr<RawBlock> ReadBlock(const storage::BlockRef& ref, const storage::BlockRef* residual,
                                     const LatentSource& source, ReadCost& cost) const;

  // Whether a latent's bytes are whole, which can be told without decoding them. Errors as ReadBlock.
  absl::Status CheckLatent(const storage::BlockRef& ref, ReadCost& cost) const;

  // The next-token logits; `vocab_size` 0 takes any number. Errors as ReadBlock.
  absl::StatusOr<std::shared_ptr<const engine::Logits>> ReadLogits(int vocab_size, ReadCost& cost) const;

  // The values [tokens, hidden_size] of a piece of the hidden states, which `ref` names. Errors as ReadBlock.
  absl::StatusOr<std::vector<float>> ReadTaps(const TapPiece& piece, const storage::BlockRef& ref,
                                              ReadCost& cost) const;

  // Does work(i, cost) for all i in [0, count) on the worker pool, until one fails; adds the costs to `cost`. Returns
  // the error of the lowest index that has one.
  absl::Status ForEach(int count, absl::FunctionRef<absl::Status(int, ReadCost&)> work, ReadCost& cost) const;

 private:
  absl::StatusOr<std::string> ReadBytes(const storage::BlockRef& ref, ReadCost& cost) const;
  absl::Status DecodeLatent(const storage::BlockRef& ref, const compressor::BlockContext& context,
                            compressor::MutableBlockView block, ReadCost& cost) const;
  absl::Status Explain(const absl::Status& status, const std::string& part) const;

  const Archive::Dependencies& d_;
  BlockCoder& coder_;
  const storage::NodeRecord& record_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_NODE_READER_H_
