#ifndef QUICKSAVE_SERVER_ARCHIVE_NODE_SAVER_H_
#define QUICKSAVE_SERVER_ARCHIVE_NODE_SAVER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/archive/archive.h"
#include "server/archive/block_coder.h"
#include "server/archive/block_plan.h"
#include "server/archive/tap_blocks.h"

namespace quicksave::server {

// One save of a state. Used once, by one thread, which the worker pool helps.
class NodeSaver {
 public:
  // All arguments must outlive it.
  NodeSaver(const Archive::Dependencies& dependencies, BlockCoder& coder, const SaveRequest& request)
      : d_(dependencies), coder_(coder), request_(request), taps_(dependencies, request.tenant, request.state.taps) {}

  // See Archive::Save.
  absl::StatusOr<SavedNode> Save();

 private:
  // A block that is cut from pages.
  struct Cut {
    // Has no bytes when it is stored already, or once they are in the commit.
    storage::NewBlock block;
    int64_t encoded_bytes = 0;
    storage::BlockPin pin;
    absl::Duration gather;
    absl::Duration encode;
    absl::Status status;
  };

  absl::Status CheckState() const;
  // Decides the blocks; those of the origin that are kept are pinned from now on.
  absl::Status Plan();
  absl::Status CutBlocks();
  absl::Status CutBlock(const PlannedBlock& planned, Cut& cut) const;
  // The origin's or the cut block's part of the record.
  StoredBlock Describe(size_t index) const;
  storage::NodeCommit MakeCommit();
  // Names the node and commits; a parent that is gone is left out.
  absl::StatusOr<storage::NodeRecord> Commit(storage::NodeCommit& commit) const;
  absl::StatusOr<bool> OriginExists() const;
  SavedNode Finish(storage::NodeRecord record, const storage::NodeCommit& commit) const;

  const Archive::Dependencies& d_;
  BlockCoder& coder_;
  const SaveRequest& request_;
  // The origin's blocks that are still there.
  std::vector<StoredBlock> available_;
  storage::BlockPin origin_pin_;
  std::vector<PlannedBlock> plan_;
  // For each planned block; unused where it is the origin's.
  std::vector<Cut> cuts_;
  int new_blocks_ = 0;
  TapSaver taps_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_NODE_SAVER_H_
