#include "storage/node_traces.h"

#include <memory>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "storage/keys.h"

namespace quicksave::storage {
namespace {

// Shows every key with the prefix, up to one where the files are damaged.
absl::Status ForEach(const Database& database, Family family, absl::string_view prefix,
                     absl::FunctionRef<void(const Scan&)> visit) {
  const std::unique_ptr<Scan> scan = database.NewScan(family, prefix);
  for (; scan->Valid(); scan->Next()) visit(*scan);
  const absl::Status end = scan->status();
  return absl::IsDataLoss(end) ? absl::OkStatus() : end;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FindBlocks(const Database& database, absl::string_view tenant,
                                                    absl::string_view node_id) {
  std::vector<std::string> blocks;
  std::string prefix;
  AppendEscaped(&prefix, tenant);
  const absl::Status status = ForEach(database, Family::kReferences, prefix, [&](const Scan& scan) {
    const std::optional<ParsedReference> reference = ParseReferenceKey(scan.key());
    if (reference && reference->node_id == node_id) blocks.emplace_back(reference->block_key);
  });
  if (!status.ok()) return status;
  return blocks;
}

absl::StatusOr<std::vector<std::string>> FindIndexKeys(const Database& database, absl::string_view tenant,
                                                       absl::string_view node_id) {
  std::vector<std::string> keys;
  for (const std::string& prefix : IndexPrefixes(tenant)) {
    const absl::Status status = ForEach(database, Family::kIndexes, prefix, [&](const Scan& scan) {
      if (IndexedNode(scan.key()) == node_id) keys.emplace_back(scan.key());
    });
    if (!status.ok()) return status;
  }
  return keys;
}

absl::StatusOr<std::vector<std::string>> FindParentEdges(const Database& database, absl::string_view tenant,
                                                         absl::string_view node_id) {
  std::vector<std::string> keys;
  const std::string prefix = ParentPrefix(tenant, node_id);
  const absl::Status status = ForEach(database, Family::kEdges, prefix, [&](const Scan& scan) {
    keys.emplace_back(scan.key());
    if (scan.suffix().size() <= kParentPositionBytes) return;
    keys.push_back(ChildKey(tenant, scan.suffix().substr(kParentPositionBytes), node_id));
  });
  if (!status.ok()) return status;
  return keys;
}

absl::StatusOr<uint64_t> FindStateBytes(const Database& database, absl::string_view tenant, absl::string_view node_id) {
  uint64_t bytes = 0;
  const std::string prefix = StateKey(tenant, node_id, "");
  const absl::Status status = ForEach(database, Family::kState, prefix, [&](const Scan& scan) {
    const absl::StatusOr<absl::string_view> value = scan.value("a state value");
    if (value.ok()) bytes += value->size();
  });
  if (!status.ok()) return status;
  return bytes;
}

}  // namespace quicksave::storage
