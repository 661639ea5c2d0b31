// Taking references to blocks away, and the blocks to which none is left.
#ifndef QUICKSAVE_STORAGE_BLOCK_REMOVER_H_
#define QUICKSAVE_STORAGE_BLOCK_REMOVER_H_

#include <memory>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "quicksave/storage/v1/entries.pb.h"
#include "storage/block_pins.h"
#include "storage/database.h"
#include "storage/store.h"

namespace quicksave::storage {

// What one batch takes away of blocks. To be used with the writers' lock held from the first call to the end of the
// write; what it is given outlives it.
class BlockRemover {
 public:
  BlockRemover(const Database& database, Batch* batch, v1::UsageEntry* usage)
      : database_(database), batch_(*batch), usage_(*usage) {}

  // Deletes the node's reference to a block. The batch adds none to it.
  void Release(absl::string_view block_key, absl::string_view node_id);

  // Deletes the released blocks to which no other node refers, unless they are pinned. Once, after the last Release.
  absl::Status RemoveFreed(const BlockPinTable& pins);

  // Deletes a block. The sizes in an entry that cannot be read stay in the totals.
  absl::Status Remove(absl::string_view block_key);

  // Blocks deleted so far.
  const GarbageReport& removed() const { return removed_; }

 private:
  const Database& database_;
  Batch& batch_;
  v1::UsageEntry& usage_;
  GarbageReport removed_;
  absl::btree_map<std::string, absl::flat_hash_set<std::string>> released_by_;  // Nodes by key of the block.
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_BLOCK_REMOVER_H_
