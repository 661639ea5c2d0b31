#include "storage/node_verifier.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "storage/beginning_index.h"
#include "storage/block_reader.h"
#include "storage/encoding.h"
#include "storage/keys.h"
#include "storage/node_reader.h"

namespace quicksave::storage {
namespace {

// Collects what is wrong with one node at one moment.
class Verification {
 public:
  Verification(const Database& database, const Snapshot* snapshot, const NodeRecord& head)
      : database_(database), snapshot_(snapshot), head_(head) {}

  // Reads the block, unless it has come before.
  void CheckBlock(const BlockRef& ref) {
    const BlockId id = IdOf(ref);
    if (!checked_.emplace(id, ref.stored_bytes()).second) return;
    const std::string key = BlockKey(head_.tenant(), head_.model_fingerprint(), id);
    const std::string what = BlockName(head_.tenant(), id);
    CheckValue(database_.Get(Family::kBlocks, key, what, snapshot_), ref.stored_bytes(), what);
    CheckKey(Family::kReferences, ReferenceKey(key, head_.node_id()), absl::StrCat("reference to ", what));
    absl::StatusOr<v1::BlockEntry> entry = ReadBlockEntry(database_, key, absl::StrCat("entry of ", what), snapshot_);
    if (!entry.ok()) Report(entry.status());
  }

  // Is what the record says of the contents true?
  void CheckSummary(const NodeContents& contents) {
    NodeRecord expected = head_;
    Summarize(contents, &expected);
    bool same = expected.block_count() == head_.block_count() &&
                expected.no_saved_blocks() == head_.no_saved_blocks() &&
                expected.encodings_size() == head_.encodings_size();
    for (int i = 0; same && i < expected.encodings_size(); ++i) {
      same = expected.encodings(i).SerializeAsString() == head_.encodings(i).SerializeAsString();
    }
    if (!same) report_.problems.emplace_back("the record says other encodings than the contents have");
  }

  void CheckState(const v1::StateRef& ref) {
    const std::string what = absl::StrCat("state value ", ref.name());
    const std::string key = StateKey(head_.tenant(), head_.node_id(), ref.name());
    CheckValue(database_.Get(Family::kState, key, what, snapshot_), ref.size_bytes(), what);
  }

  void CheckEdge(int position) {
    const std::string& parent = head_.parents(position).node_id();
    CheckKey(Family::kNodes, NodeKey(head_.tenant(), parent), NodeName(parent));
    CheckKey(Family::kEdges, ChildKey(head_.tenant(), parent, head_.node_id()), absl::StrCat("edge from ", parent));
    CheckKey(Family::kEdges, ParentKey(head_.tenant(), head_.node_id(), position, parent),
             absl::StrCat("edge to ", parent));
  }

  void CheckIndexes(const NodeContents& contents) {
    for (const std::string& key : IndexKeys(head_)) CheckKey(Family::kIndexes, key, "a key in the indexes");
    for (const std::string& key : BeginningKeys(head_, contents)) {
      CheckKey(Family::kIndexes, key, "a key in the index of beginnings");
    }
  }

  VerifyReport TakeReport() { return std::move(report_); }

 private:
  void Report(const absl::Status& status) { report_.problems.emplace_back(status.message()); }

  void CheckValue(const absl::StatusOr<std::string>& value, uint64_t size, absl::string_view what) {
    if (!value.ok()) return Report(value.status());
    if (value->size() != size) {
      report_.problems.push_back(absl::StrCat(what, " has ", value->size(), " bytes, the record says ", size));
      return;
    }
    ++report_.blocks;
    report_.bytes += value->size();
  }

  void CheckKey(Family family, absl::string_view key, absl::string_view what) {
    absl::StatusOr<bool> there = database_.Has(family, key, snapshot_);
    if (!there.ok()) return Report(there.status());
    if (!*there) report_.problems.push_back(absl::StrCat(what, " is missing"));
  }

  const Database& database_;
  const Snapshot* const snapshot_;
  const NodeRecord& head_;
  VerifyReport report_;
  absl::flat_hash_set<std::pair<BlockId, uint64_t>> checked_;
};

}  // namespace

absl::StatusOr<VerifyReport> VerifyNode(const Database& database, absl::string_view tenant, absl::string_view node_id) {
  const auto snapshot = database.NewSnapshot();
  absl::StatusOr<NodeRecord> head = ReadHead(database, tenant, node_id, snapshot.get());
  if (!head.ok()) return head.status();
  absl::StatusOr<NodeContents> contents = ReadContents(database, tenant, node_id, snapshot.get());
  if (!contents.ok()) return contents.status();
  Verification verification(database, snapshot.get(), *head);
  verification.CheckSummary(*contents);
  ForEachBlock(*contents, [&](const BlockRef& ref) { verification.CheckBlock(ref); });
  for (const v1::StateRef& ref : head->state()) verification.CheckState(ref);
  for (int i = 0; i < head->parents_size(); ++i) verification.CheckEdge(i);
  verification.CheckIndexes(*contents);
  return verification.TakeReport();
}

}  // namespace quicksave::storage
