#include "storage/node_remover.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "storage/block_reader.h"
#include "storage/keys.h"
#include "storage/node_reader.h"
#include "storage/node_writer.h"

namespace quicksave::storage {
namespace {

constexpr size_t kNodesAtOnce = 256;
constexpr size_t kReferencesAtOnce = 20000;
constexpr size_t kChildrenNamed = 10;

// Deletes of one batch, with the totals that follow from them.
class Removal {
 public:
  Removal(Database* database, const v1::UsageEntry& usage) : database_(*database), usage_(usage), batch_(database) {}

  // Deletes the node, leaving its blocks.
  absl::Status RemoveNode(absl::string_view tenant, absl::string_view node_id) {
    absl::StatusOr<NodeRecord> head = ReadHead(database_, tenant, node_id);
    if (!head.ok()) return head.status();
    absl::StatusOr<NodeContents> contents = ReadContents(database_, tenant, node_id);
    if (!contents.ok()) return contents.status();
    RemoveRecord(*head);
    for (const BlockRef& ref : contents->blocks()) {
      const BlockId id = IdOf(ref);
      const std::string key = BlockKey(tenant, head->model_fingerprint(), id);
      batch_.Delete(Family::kReferences, ReferenceKey(key, node_id));
      Block& block = blocks_[key];
      block.name = BlockName(tenant, id);
      block.released_by.insert(std::string(node_id));
    }
    return absl::OkStatus();
  }

  // Deletes the blocks of the removed nodes to which no other node refers, unless they are pinned.
  absl::Status RemoveFreedBlocks(const BlockPinTable& pins) {
    const std::unique_ptr<Scan> scan = database_.NewScan(Family::kReferences, "");
    for (const auto& [key, block] : blocks_) {
      absl::StatusOr<bool> referenced = IsReferenced(key, block, scan.get());
      if (!referenced.ok()) return referenced.status();
      if (*referenced || pins.Contains(key)) continue;
      if (absl::Status removed = RemoveBlock(key, block.name); !removed.ok()) return removed;
    }
    return absl::OkStatus();
  }

  absl::Status RemoveBlock(absl::string_view key, absl::string_view name) {
    absl::StatusOr<v1::BlockEntry> entry = ReadBlockEntry(database_, key, name);
    if (!entry.ok()) return entry.status();
    batch_.Delete(Family::kBlocks, key);
    batch_.Delete(Family::kReferences, key);
    usage_.set_blocks(usage_.blocks() - 1);
    usage_.set_block_raw_bytes(usage_.block_raw_bytes() - entry->raw_bytes());
    usage_.set_block_stored_bytes(usage_.block_stored_bytes() - entry->stored_bytes());
    return absl::OkStatus();
  }

  Batch* batch() { return &batch_; }
  const v1::UsageEntry& usage() const { return usage_; }

 private:
  struct Block {
    std::string name;
    absl::flat_hash_set<std::string> released_by;
  };

  void RemoveRecord(const NodeRecord& head) {
    const std::string key = NodeKey(head.tenant(), head.node_id());
    batch_.Delete(Family::kNodes, key);
    batch_.Delete(Family::kContents, key);
    for (const std::string& index : IndexKeys(head)) batch_.Delete(Family::kIndexes, index);
    for (int i = 0; i < head.parents_size(); ++i) {
      const std::string& parent = head.parents(i).node_id();
      batch_.Delete(Family::kEdges, ChildKey(head.tenant(), parent, head.node_id()));
      batch_.Delete(Family::kEdges, ParentKey(head.tenant(), head.node_id(), i, parent));
    }
    for (const v1::StateRef& ref : head.state()) {
      batch_.Delete(Family::kState, StateKey(head.tenant(), head.node_id(), ref.name()));
      usage_.set_state_bytes(usage_.state_bytes() - ref.size_bytes());
    }
    usage_.set_nodes(usage_.nodes() - 1);
  }

  static absl::StatusOr<bool> IsReferenced(absl::string_view key, const Block& block, Scan* scan) {
    for (scan->Seek(key); scan->Valid(); scan->Next()) {
      const std::optional<ParsedReference> reference = ParseReferenceKey(scan->key());
      if (!reference || reference->block_key != key) return false;
      if (!reference->node_id.empty() && !block.released_by.contains(reference->node_id)) return true;
    }
    if (!scan->status().ok()) return scan->status();
    return false;
  }

  const Database& database_;
  v1::UsageEntry usage_;
  Batch batch_;
  absl::btree_map<std::string, Block> blocks_;
};

// Node ids of the subtree, children before their parents.
absl::StatusOr<std::vector<std::string>> PostOrder(const Database& database, absl::string_view tenant,
                                                   absl::string_view root) {
  struct Visit {
    std::string node_id;
    std::vector<Edge> children;
  };
  std::vector<std::string> order;
  absl::flat_hash_set<std::string> seen = {std::string(root)};
  absl::StatusOr<std::vector<Edge>> children = Children(database, tenant, root);
  if (!children.ok()) return children.status();
  std::vector<Visit> path = {{std::string(root), *std::move(children)}};
  while (!path.empty()) {
    if (path.back().children.empty()) {
      order.push_back(std::move(path.back().node_id));
      path.pop_back();
      continue;
    }
    std::string next = std::move(path.back().children.back().node_id);
    path.back().children.pop_back();
    if (!seen.insert(next).second) continue;
    children = Children(database, tenant, next);
    if (!children.ok()) return children.status();
    path.push_back({std::move(next), *std::move(children)});
  }
  return order;
}

absl::Status CheckNoChildren(const std::vector<Edge>& children, absl::string_view tenant, absl::string_view node_id) {
  if (children.empty()) return absl::OkStatus();
  const size_t named = std::min(children.size(), kChildrenNamed);
  const std::string list = absl::StrJoin(children.begin(), children.begin() + named, ", ",
                                         [](std::string* out, const Edge& edge) { out->append(edge.node_id); });
  return absl::FailedPreconditionError(absl::StrCat(NodeName(node_id), " has ", children.size(), " children (", list,
                                                    named < children.size() ? ", ..." : "",
                                                    "); delete them first, or force"));
}

// What goes with the node, children first. Errors as of Store::DeleteNode.
absl::StatusOr<std::vector<std::string>> Doomed(const Database& database, absl::string_view tenant,
                                                absl::string_view node_id, const DeleteOptions& options) {
  absl::StatusOr<NodeRecord> head = ReadHead(database, tenant, node_id);
  if (!head.ok()) return head.status();
  if (absl::Status current = CheckEtag(*head, options.etag); !current.ok()) return current;
  if (options.force) return PostOrder(database, tenant, node_id);
  absl::StatusOr<std::vector<Edge>> children = Children(database, tenant, node_id);
  if (!children.ok()) return children.status();
  if (absl::Status none = CheckNoChildren(*children, tenant, node_id); !none.ok()) return none;
  return std::vector<std::string>{std::string(node_id)};
}

// Deletes these nodes in one batch and says so in the report.
absl::Status RemoveNodes(absl::string_view tenant, absl::Span<const std::string> node_ids, WriterState* state,
                         DeleteReport* report) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state->mutex) {
  const v1::UsageEntry before = state->usage;
  Removal removal(state->database, before);
  for (const std::string& node_id : node_ids) {
    if (absl::Status removed = removal.RemoveNode(tenant, node_id); !removed.ok()) return removed;
  }
  if (absl::Status removed = removal.RemoveFreedBlocks(*state->pins); !removed.ok()) return removed;
  absl::Status written = state->Write(removal.batch(), removal.usage(), Database::Room::kMakes);
  if (!written.ok()) return written;
  report->node_ids.insert(report->node_ids.end(), node_ids.begin(), node_ids.end());
  report->blocks += before.blocks() - state->usage.blocks();
  report->stored_bytes += before.block_stored_bytes() - state->usage.block_stored_bytes();
  return absl::OkStatus();
}

// The blocks without references among the next entries from `*cursor` on, which moves on; empty at the end.
absl::StatusOr<std::vector<std::string>> FindGarbage(const Database& database, std::string* cursor) {
  std::vector<std::string> garbage;
  const std::unique_ptr<Scan> scan = database.NewScan(Family::kReferences, "");
  std::string candidate;
  size_t looked_at = 0;
  for (scan->Seek(*cursor); scan->Valid(); scan->Next()) {
    const std::optional<ParsedReference> reference = ParseReferenceKey(scan->key());
    if (!reference) return absl::DataLossError("references: a key has the wrong form");
    const bool begins_block = reference->node_id.empty();
    if (begins_block && !candidate.empty()) garbage.push_back(std::move(candidate));
    if (begins_block && ++looked_at > kReferencesAtOnce) {
      *cursor = std::string(scan->key());
      return garbage;
    }
    candidate = begins_block ? std::string(reference->block_key) : "";
  }
  if (!scan->status().ok()) return scan->status();
  if (!candidate.empty()) garbage.push_back(std::move(candidate));
  cursor->clear();
  return garbage;
}

absl::Status CollectSome(std::string* cursor, WriterState* state, GarbageReport* report)
    ABSL_LOCKS_EXCLUDED(state->mutex) {
  absl::MutexLock lock(&state->mutex);
  absl::StatusOr<std::vector<std::string>> garbage = FindGarbage(*state->database, cursor);
  if (!garbage.ok()) return garbage.status();
  const v1::UsageEntry before = state->usage;
  Removal removal(state->database, before);
  for (const std::string& key : *garbage) {
    if (state->pins->Contains(key)) continue;
    if (absl::Status removed = removal.RemoveBlock(key, "block without references"); !removed.ok()) return removed;
  }
  if (removal.usage().blocks() == before.blocks()) return absl::OkStatus();
  absl::Status written = state->Write(removal.batch(), removal.usage(), Database::Room::kMakes);
  if (!written.ok()) return written;
  report->blocks += before.blocks() - state->usage.blocks();
  report->stored_bytes += before.block_stored_bytes() - state->usage.block_stored_bytes();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DeleteReport> DeleteNode(absl::string_view tenant, absl::string_view node_id,
                                        const DeleteOptions& options, WriterState* state) {
  absl::MutexLock lock(&state->mutex);
  absl::StatusOr<std::vector<std::string>> doomed = Doomed(*state->database, tenant, node_id, options);
  if (!doomed.ok()) return doomed.status();
  DeleteReport report;
  const absl::Span<const std::string> all(*doomed);
  for (size_t begin = 0; begin < all.size(); begin += kNodesAtOnce) {
    absl::Status removed = RemoveNodes(tenant, all.subspan(begin, kNodesAtOnce), state, &report);
    if (!removed.ok()) return removed;
  }
  return report;
}

absl::StatusOr<GarbageReport> CollectGarbage(WriterState* state) {
  GarbageReport report;
  std::string cursor;
  do {
    if (absl::Status done = CollectSome(&cursor, state, &report); !done.ok()) return done;
  } while (!cursor.empty());
  return report;
}

}  // namespace quicksave::storage
