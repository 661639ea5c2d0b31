#include "storage/block_reader.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "storage/keys.h"

namespace quicksave::storage {
std::string BlockName(absl::string_view tenant, const BlockId& id) {
  return absl::StrCat("block ", absl::BytesToHexString(id.content_id), " (", id.codec, ") of tenant ", tenant);
}

absl::StatusOr<v1::BlockEntry> ReadBlockEntry(const Database& database, absl::string_view block_key,
                                              absl::string_view what, const Snapshot* snapshot) {
  v1::BlockEntry entry;
  absl::Status status = database.GetMessage(Family::kReferences, block_key, what, &entry, snapshot);
  if (!status.ok()) return status;
  return entry;
}

absl::StatusOr<bool> IsStored(const Database& database, const DamagedBlocks& damaged, absl::string_view block_key) {
  if (damaged.Contains(block_key)) return false;
  const absl::Status entry = ReadBlockEntry(database, block_key, "entry of a block").status();
  if (absl::IsNotFound(entry) || absl::IsDataLoss(entry)) return false;
  if (!entry.ok()) return entry;
  return true;
}

absl::StatusOr<std::string> ReadBlock(const Database& database, absl::string_view tenant,
                                      absl::string_view model_fingerprint, const BlockId& id) {
  const std::string key = BlockKey(tenant, model_fingerprint, id);
  const std::string what = BlockName(tenant, id);
  absl::StatusOr<std::string> bytes = database.Get(Family::kBlocks, key, what);
  if (bytes.ok() || !absl::IsNotFound(bytes.status())) return bytes;
  // Absent: rightly so, unless something of the same moment says that it is stored.
  const auto snapshot = database.NewSnapshot();
  bytes = database.Get(Family::kBlocks, key, what, snapshot.get());
  if (bytes.ok() || !absl::IsNotFound(bytes.status())) return bytes;
  const auto mentions = database.NewScan(Family::kReferences, key, snapshot.get());
  if (mentions->Valid()) return absl::DataLossError(absl::StrCat(what, ": missing"));
  if (!mentions->status().ok()) return mentions->status();
  return bytes;
}

}  // namespace quicksave::storage
