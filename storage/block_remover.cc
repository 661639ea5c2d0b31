#include "storage/block_remover.h"

#include <optional>
#include <utility>

#include "storage/block_reader.h"
#include "storage/keys.h"
#include "storage/writer_state.h"

namespace quicksave::storage {
namespace {

// Does any but these nodes refer to the block?
absl::StatusOr<bool> IsReferenced(absl::string_view key, const absl::flat_hash_set<std::string>& nodes, Scan* scan) {
  for (scan->Seek(key); scan->Valid(); scan->Next()) {
    const std::optional<ParsedReference> reference = ParseReferenceKey(scan->key());
    if (!reference || reference->block_key != key) return false;
    if (!reference->node_id.empty() && !nodes.contains(reference->node_id)) return true;
  }
  if (!scan->status().ok()) return scan->status();
  return false;
}

}  // namespace

void BlockRemover::Release(absl::string_view block_key, absl::string_view node_id) {
  batch_.Delete(Family::kReferences, ReferenceKey(block_key, node_id));
  released_by_[std::string(block_key)].insert(std::string(node_id));
}

absl::Status BlockRemover::RemoveFreed(const BlockPinTable& pins) {
  const std::unique_ptr<Scan> scan = database_.NewScan(Family::kReferences, "");
  for (const auto& [key, nodes] : released_by_) {
    absl::StatusOr<bool> referenced = IsReferenced(key, nodes, scan.get());
    // Perhaps it is.
    if (absl::IsDataLoss(referenced.status())) continue;
    if (!referenced.ok()) return referenced.status();
    if (*referenced || pins.Contains(key)) continue;
    if (absl::Status removed = Remove(key); !removed.ok()) return removed;
  }
  return absl::OkStatus();
}

absl::Status BlockRemover::Remove(absl::string_view block_key) {
  absl::StatusOr<v1::BlockEntry> entry = ReadBlockEntry(database_, block_key, "entry of a block");
  const bool lost = absl::IsDataLoss(entry.status()) || absl::IsNotFound(entry.status());
  if (!entry.ok() && !lost) return entry.status();
  const v1::BlockEntry sizes = lost ? v1::BlockEntry() : *std::move(entry);
  batch_.Delete(Family::kBlocks, block_key);
  batch_.Delete(Family::kReferences, block_key);
  SubtractBlock(sizes, &usage_);
  ++removed_.blocks;
  removed_.stored_bytes += sizes.stored_bytes();
  return absl::OkStatus();
}

}  // namespace quicksave::storage
