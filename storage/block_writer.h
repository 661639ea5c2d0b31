// Adding blocks of a node, and its references to them.
#ifndef QUICKSAVE_STORAGE_BLOCK_WRITER_H_
#define QUICKSAVE_STORAGE_BLOCK_WRITER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "quicksave/storage/v1/entries.pb.h"
#include "storage/store.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

struct BlockSizes {
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;
};

// The references that one node gains by one batch, and those of the blocks behind them that are not stored whole. To be
// used with the writers' lock held from the first call to the end of the write; what it is given outlives it.
class BlockWriter {
 public:
  // Of `node`, tenant, model and id are read. `given` are the blocks that may not be stored yet.
  BlockWriter(const NodeRecord& node, absl::Span<const NewBlock> given, const WriterState& state, Batch* batch,
              v1::UsageEntry* usage);

  // Adds a reference to each block, and the block if need be; tells each its stored size and adds the sizes to `sizes`.
  // FAILED_PRECONDITION: one is neither given nor stored whole. INVALID_ARGUMENT: one has another raw size.
  absl::Status Add(absl::Span<BlockRef* const> refs, BlockSizes* sizes);

  // Adds those of an encoding, and sets what the store sets of it. Errors as of Add.
  absl::Status Add(int64_t time_us, v1::Encoding* encoding);

  // Keys of the blocks in the batch, and their size.
  const std::vector<std::string>& written() const { return written_; }
  uint64_t written_bytes() const { return written_bytes_; }

 private:
  std::string KeyOf(const BlockId& id) const;
  // Looks up all blocks at once.
  absl::Status LoadStoredBlocks(absl::Span<BlockRef* const> refs);
  // The entry of the block, which is added if need be.
  absl::StatusOr<v1::BlockEntry> EntryFor(const BlockRef& ref);
  void AddBlock(const NewBlock& block, uint64_t raw_bytes);

  const NodeRecord& node_;
  const WriterState& state_;
  Batch& batch_;
  v1::UsageEntry& usage_;
  absl::flat_hash_map<BlockId, const NewBlock*> new_blocks_;
  absl::flat_hash_map<BlockId, v1::BlockEntry> entries_;  // Of blocks that are stored whole or in the batch.
  absl::flat_hash_map<BlockId, std::optional<v1::BlockEntry>> replaced_;  // Of damaged ones, where readable.
  std::vector<std::string> written_;
  uint64_t written_bytes_ = 0;
};

// Pointers to all of them.
std::vector<BlockRef*> PointersTo(google::protobuf::RepeatedPtrField<BlockRef>* refs);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_BLOCK_WRITER_H_
