#include "storage/block_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "storage/keys.h"

namespace quicksave::storage {
namespace {

// Bounds what is held twice while it is copied.
constexpr size_t kBlocksAtOnce = 16;

}  // namespace

std::string BlockName(absl::string_view tenant, const BlockId& id) {
  return absl::StrCat("block ", absl::BytesToHexString(id.content_id), " (", id.codec, ") of tenant ", tenant);
}

absl::StatusOr<v1::BlockEntry> ReadBlockEntry(const Database& database, absl::string_view block_key,
                                              absl::string_view what, const rocksdb::Snapshot* snapshot) {
  v1::BlockEntry entry;
  absl::Status status = database.GetMessage(Family::kReferences, block_key, what, &entry, snapshot);
  if (!status.ok()) return status;
  return entry;
}

absl::StatusOr<std::string> ReadBlock(const Database& database, absl::string_view tenant,
                                      absl::string_view model_fingerprint, const BlockId& id) {
  const std::string key = BlockKey(tenant, model_fingerprint, id);
  const std::string what = BlockName(tenant, id);
  absl::StatusOr<std::string> bytes = database.Get(Family::kBlocks, key, what);
  if (bytes.ok() || !absl::IsNotFound(bytes.status())) return bytes;
  // Absent: rightly so, unless something of the same moment says that it is stored.
  const auto snapshot = database.NewSnapshot();
  bytes = database.Get(Family::kBlocks, key, what, snapshot->snapshot());
  if (bytes.ok() || !absl::IsNotFound(bytes.status())) return bytes;
  const auto mentions = database.NewScan(Family::kReferences, key, snapshot->snapshot());
  if (mentions->Valid()) return absl::DataLossError(absl::StrCat(what, ": missing"));
  if (!mentions->status().ok()) return mentions->status();
  return bytes;
}

absl::StatusOr<std::vector<std::string>> ReadBlocks(const Database& database, absl::string_view tenant,
                                                    absl::string_view model_fingerprint,
                                                    absl::Span<const BlockId> ids) {
  std::vector<std::string> result;
  result.reserve(ids.size());
  for (size_t begin = 0; begin < ids.size(); begin += kBlocksAtOnce) {
    std::vector<std::string> keys, names;
    for (const BlockId& id : ids.subspan(begin, kBlocksAtOnce)) {
      keys.push_back(BlockKey(tenant, model_fingerprint, id));
      names.push_back(BlockName(tenant, id));
    }
    std::vector<absl::StatusOr<std::string>> values = database.MultiGet(Family::kBlocks, keys, names);
    for (size_t i = 0; i < values.size(); ++i) {
      if (absl::IsNotFound(values[i].status())) {
        values[i] = ReadBlock(database, tenant, model_fingerprint, ids[begin + i]);
      }
      if (!values[i].ok()) return values[i].status();
      result.push_back(*std::move(values[i]));
    }
  }
  return result;
}

}  // namespace quicksave::storage
