#include "storage/node_remover.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "storage/beginning_index.h"
#include "storage/block_remover.h"
#include "storage/error_reason.h"
#include "storage/keys.h"
#include "storage/node_reader.h"
#include "storage/node_traces.h"
#include "storage/node_writer.h"
#include "storage/request_log.h"

namespace quicksave::storage {
namespace {

constexpr size_t kNodesAtOnce = 256;
constexpr size_t kReferencesAtOnce = 20000;
constexpr size_t kChildrenNamed = 10;

// Deletes of one batch, with the totals that follow from them.
class Removal {
 public:
  Removal(Database* database, const v1::UsageEntry& usage)
      : database_(*database), usage_(usage), batch_(database), blocks_(*database, &batch_, &usage_) {}

  // Deletes the node, whatever of it is readable, leaving its blocks.
  absl::Status RemoveNode(absl::string_view tenant, absl::string_view node_id) {
    absl::StatusOr<NodeRecord> head = ReadHead(database_, tenant, node_id);
    const bool counted = !absl::IsNotFound(head.status());
    if (!head.ok() && counted && !absl::IsDataLoss(head.status())) return head.status();
    const absl::StatusOr<NodeContents> contents = head.ok() ? ReadContents(database_, tenant, node_id) : head.status();
    if (head.ok() && !contents.ok() && !absl::IsDataLoss(contents.status())) return contents.status();
    absl::StatusOr<std::vector<std::string>> blocks =
        contents.ok() ? BlockKeys(*head, *contents) : FindBlocks(database_, tenant, node_id);
    if (!blocks.ok()) return blocks.status();
    absl::StatusOr<std::vector<std::string>> indexes =
        contents.ok() ? AllIndexKeys(*head, *contents) : FindIndexKeys(database_, tenant, node_id);
    if (!indexes.ok()) return indexes.status();
    for (const std::string& index : *indexes) batch_.Delete(Family::kIndexes, index);
    if (head.ok()) {
      RemoveRecord(*head);
    } else if (absl::Status removed = RemoveTraces(tenant, node_id); !removed.ok()) {
      return removed;
    }
    const std::string key = NodeKey(tenant, node_id);
    batch_.Delete(Family::kNodes, key);
    batch_.Delete(Family::kContents, key);
    if (counted) usage_.set_nodes(usage_.nodes() - 1);
    for (const std::string& block : *blocks) blocks_.Release(block, node_id);
    return absl::OkStatus();
  }

  BlockRemover& blocks() { return blocks_; }
  Batch* batch() { return &batch_; }
  const v1::UsageEntry& usage() const { return usage_; }

 private:
  // Keys of the blocks to which the node refers.
  static std::vector<std::string> BlockKeys(const NodeRecord& head, const NodeContents& contents) {
    std::vector<std::string> keys;
    ForEachBlock(contents, [&](const BlockRef& ref) {
      keys.push_back(BlockKey(head.tenant(), head.model_fingerprint(), IdOf(ref)));
    });
    return keys;
  }

  static std::vector<std::string> AllIndexKeys(const NodeRecord& head, const NodeContents& contents) {
    std::vector<std::string> keys = IndexKeys(head);
    for (std::string& key : BeginningKeys(head, contents)) keys.push_back(std::move(key));
    return keys;
  }

  // Edges and state.
  void RemoveRecord(const NodeRecord& head) {
    for (int i = 0; i < head.parents_size(); ++i) {
      const std::string& parent = head.parents(i).node_id();
      batch_.Delete(Family::kEdges, ChildKey(head.tenant(), parent, head.node_id()));
      batch_.Delete(Family::kEdges, ParentKey(head.tenant(), head.node_id(), i, parent));
    }
    for (const v1::StateRef& ref : head.state()) {
      batch_.Delete(Family::kState, StateKey(head.tenant(), head.node_id(), ref.name()));
      usage_.set_state_bytes(usage_.state_bytes() - ref.size_bytes());
    }
  }

  // As RemoveRecord, for a node without a readable one.
  absl::Status RemoveTraces(absl::string_view tenant, absl::string_view node_id) {
    absl::StatusOr<std::vector<std::string>> edges = FindParentEdges(database_, tenant, node_id);
    if (!edges.ok()) return edges.status();
    absl::StatusOr<uint64_t> state_bytes = FindStateBytes(database_, tenant, node_id);
    if (!state_bytes.ok()) return state_bytes.status();
    for (const std::string& key : *edges) batch_.Delete(Family::kEdges, key);
    batch_.DeletePrefix(Family::kState, StateKey(tenant, node_id, ""));
    usage_.set_state_bytes(usage_.state_bytes() - *state_bytes);
    return absl::OkStatus();
  }

  const Database& database_;
  v1::UsageEntry usage_;
  Batch batch_;
  BlockRemover blocks_;
};

// Ids of the node's children. Their records may be missing or damaged.
absl::StatusOr<std::vector<std::string>> ChildIds(const Database& database, absl::string_view tenant,
                                                  absl::string_view node_id) {
  std::vector<std::string> ids;
  const std::unique_ptr<Scan> scan = database.NewScan(Family::kEdges, ChildPrefix(tenant, node_id));
  for (; scan->Valid(); scan->Next()) ids.emplace_back(scan->suffix());
  if (!scan->status().ok()) return scan->status();
  return ids;
}

// Node ids of the subtree, children before their parents.
absl::StatusOr<std::vector<std::string>> PostOrder(const Database& database, absl::string_view tenant,
                                                   absl::string_view root) {
  struct Visit {
    std::string node_id;
    std::vector<std::string> children;
  };
  std::vector<std::string> order;
  absl::flat_hash_set<std::string> seen = {std::string(root)};
  absl::StatusOr<std::vector<std::string>> children = ChildIds(database, tenant, root);
  if (!children.ok()) return children.status();
  std::vector<Visit> path = {{std::string(root), *std::move(children)}};
  while (!path.empty()) {
    if (path.back().children.empty()) {
      order.push_back(std::move(path.back().node_id));
      path.pop_back();
      continue;
    }
    std::string next = std::move(path.back().children.back());
    path.back().children.pop_back();
    if (!seen.insert(next).second) continue;
    children = ChildIds(database, tenant, next);
    if (!children.ok()) return children.status();
    path.push_back({std::move(next), *std::move(children)});
  }
  return order;
}

absl::Status CheckNoChildren(const std::vector<std::string>& children, absl::string_view node_id) {
  if (children.empty()) return absl::OkStatus();
  const size_t named = std::min(children.size(), kChildrenNamed);
  const std::string list = absl::StrJoin(children.begin(), children.begin() + named, ", ");
  return WithReason("NODE_HAS_CHILDREN",
                    absl::FailedPreconditionError(
                        absl::StrCat(NodeName(node_id), " has ", children.size(), " children (", list,
                                     named < children.size() ? ", ..." : "", "); delete them first, or force")));
}

// What goes with the node, children first. Errors as of Store::DeleteNode.
absl::StatusOr<std::vector<std::string>> Doomed(const Database& database, absl::string_view tenant,
                                                absl::string_view node_id, const DeleteOptions& options) {
  absl::StatusOr<NodeRecord> head = ReadHead(database, tenant, node_id);
  if (!head.ok() && !absl::IsDataLoss(head.status())) return head.status();
  const RequestIdentity* const request = options.request ? &options.request->identity : nullptr;
  if (absl::Status status = CheckUnanswered(database, tenant, request); !status.ok()) return status;
  if (!head.ok() && (!options.force || !options.etag.empty())) {
    return absl::DataLossError(
        absl::StrCat(head.status().message(), "; it can be deleted with force and without an etag"));
  }
  if (absl::Status current = head.ok() ? CheckEtag(*head, options.etag) : absl::OkStatus(); !current.ok()) {
    return current;
  }
  if (options.force) return PostOrder(database, tenant, node_id);
  absl::StatusOr<std::vector<std::string>> children = ChildIds(database, tenant, node_id);
  if (!children.ok()) return children.status();
  if (absl::Status none = CheckNoChildren(*children, node_id); !none.ok()) return none;
  return std::vector<std::string>{std::string(node_id)};
}

// Deletes these nodes in one batch, with the answer if there is a request, and says so in the report.
absl::Status RemoveNodes(absl::string_view tenant, absl::Span<const std::string> node_ids,
                         const std::optional<AnsweredRequest<DeleteReport>>& request, WriterState* state,
                         DeleteReport* report) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state->mutex) {
  Removal removal(state->database, state->usage);
  for (const std::string& node_id : node_ids) {
    if (absl::Status removed = removal.RemoveNode(tenant, node_id); !removed.ok()) return removed;
  }
  if (absl::Status removed = removal.blocks().RemoveFreed(*state->pins); !removed.ok()) return removed;
  report->node_ids.insert(report->node_ids.end(), node_ids.begin(), node_ids.end());
  report->blocks += removal.blocks().removed().blocks;
  report->stored_bytes += removal.blocks().removed().stored_bytes;
  if (absl::Status put = PutAnswer(tenant, request, *report, state->NextTimeUs(), removal.batch()); !put.ok())
    return put;
  return state->Write(removal.batch(), removal.usage(), Database::Room::kMakes);
}

// Adds the blocks without references among the next entries from `*cursor` on, which moves on; empty at the end. Where
// the files are damaged, what comes before is added.
absl::Status FindGarbage(const Database& database, std::string* cursor, std::vector<std::string>* garbage) {
  const std::unique_ptr<Scan> scan = database.NewScan(Family::kReferences, "");
  std::string candidate;
  size_t looked_at = 0;
  for (scan->Seek(*cursor); scan->Valid(); scan->Next()) {
    const std::optional<ParsedReference> reference = ParseReferenceKey(scan->key());
    if (!reference) continue;
    const bool begins_block = reference->node_id.empty();
    if (begins_block && !candidate.empty()) garbage->push_back(std::move(candidate));
    if (begins_block && ++looked_at > kReferencesAtOnce) {
      *cursor = std::string(scan->key());
      return absl::OkStatus();
    }
    candidate = begins_block ? std::string(reference->block_key) : "";
  }
  if (!scan->status().ok()) return scan->status();
  if (!candidate.empty()) garbage->push_back(std::move(candidate));
  cursor->clear();
  return absl::OkStatus();
}

absl::Status CollectSome(std::string* cursor, WriterState* state, GarbageReport* report)
    ABSL_LOCKS_EXCLUDED(state->mutex) {
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  std::vector<std::string> garbage;
  absl::Status found = FindGarbage(*state->database, cursor, &garbage);
  Removal removal(state->database, state->usage);
  for (const std::string& key : garbage) {
    if (state->pins->Contains(key)) continue;
    if (absl::Status removed = removal.blocks().Remove(key); !removed.ok()) return removed;
  }
  if (removal.blocks().removed().blocks == 0) return found;
  absl::Status written = state->Write(removal.batch(), removal.usage(), Database::Room::kMakes);
  if (!written.ok()) return written;
  report->blocks += removal.blocks().removed().blocks;
  report->stored_bytes += removal.blocks().removed().stored_bytes;
  return found;
}

}  // namespace

absl::StatusOr<DeleteReport> DeleteNode(absl::string_view tenant, absl::string_view node_id,
                                        const DeleteOptions& options, WriterState* state) {
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  absl::StatusOr<std::vector<std::string>> doomed = Doomed(*state->database, tenant, node_id, options);
  if (!doomed.ok()) return doomed.status();
  DeleteReport report;
  const absl::Span<const std::string> all(*doomed);
  for (size_t begin = 0; begin < all.size(); begin += kNodesAtOnce) {
    const absl::Span<const std::string> some = all.subspan(begin, kNodesAtOnce);
    const bool last = begin + some.size() == all.size();
    absl::Status removed = RemoveNodes(tenant, some, last ? options.request : std::nullopt, state, &report);
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
