#include "storage/node_writer.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "storage/block_reader.h"
#include "storage/damaged_blocks.h"
#include "storage/error_reason.h"
#include "storage/keys.h"
#include "storage/node_reader.h"
#include "storage/request_log.h"
#include "storage/validation.h"

namespace quicksave::storage {
namespace {

constexpr uint32_t kRecordFormatVersion = 1;

// One commit on its way into a batch.
class Commit {
 public:
  Commit(const NodeCommit& commit, const Database& database, const DamagedBlocks& damaged, const v1::UsageEntry& usage,
         Batch* batch)
      : commit_(commit), database_(database), damaged_(damaged), batch_(*batch), usage_(usage), head_(commit.record) {
    contents_ = std::move(*head_.mutable_contents());
    head_.clear_contents();
    head_.clear_state();
  }

  // Everything that must hold in the store before. Errors as of Store::CommitNode.
  absl::Status Check() const {
    const NodeRecord& record = commit_.record;
    const RequestIdentity* const request = commit_.request ? &commit_.request->identity : nullptr;
    if (absl::Status status = CheckUnanswered(database_, record.tenant(), request); !status.ok()) return status;
    absl::StatusOr<bool> taken = Exists(record.node_id());
    if (!taken.ok()) return taken.status();
    if (*taken) return absl::AlreadyExistsError(absl::StrCat(NodeName(record.node_id()), " exists"));
    for (const ParentEdge& parent : record.parents()) {
      absl::StatusOr<bool> exists = Exists(parent.node_id());
      if (!exists.ok()) return exists.status();
      if (!*exists) {
        return absl::FailedPreconditionError(absl::StrCat("parent ", NodeName(parent.node_id()), " does not exist"));
      }
    }
    return absl::OkStatus();
  }

  // Adds the blocks that are not stored whole, and a reference to each.
  absl::Status AddBlocks() {
    if (absl::Status loaded = LoadStoredBlocks(); !loaded.ok()) return loaded;
    for (const NewBlock& block : commit_.blocks) new_blocks_.try_emplace(block.id, &block);
    Sizes kv, taps;
    for (BlockRef& ref : *contents_.mutable_blocks()) {
      if (absl::Status added = AddReference(ref, kv); !added.ok()) return added;
    }
    for (v1::TapBlock& tap : *contents_.mutable_tap_blocks()) {
      if (absl::Status added = AddReference(*tap.mutable_block(), taps); !added.ok()) return added;
    }
    head_.set_block_count(contents_.blocks_size());
    head_.set_raw_bytes(kv.raw_bytes);
    head_.set_stored_bytes(kv.stored_bytes);
    head_.set_new_stored_bytes(new_stored_bytes_);
    if (head_.has_taps()) {
      head_.mutable_taps()->set_raw_bytes(taps.raw_bytes);
      head_.mutable_taps()->set_stored_bytes(taps.stored_bytes);
    }
    return absl::OkStatus();
  }

  void AddState() {
    for (const StateValue& value : commit_.state) {
      v1::StateRef* ref = head_.add_state();
      ref->set_name(value.name);
      ref->set_size_bytes(value.bytes.size());
      batch_.Put(Family::kState, StateKey(head_.tenant(), head_.node_id(), value.name), value.bytes);
      usage_.set_state_bytes(usage_.state_bytes() + value.bytes.size());
    }
  }

  void AddRecord(int64_t time_us) {
    head_.set_format_version(kRecordFormatVersion);
    head_.set_create_time_us(time_us);
    head_.set_update_time_us(time_us);
    head_.set_revision(1);
    const std::string key = NodeKey(head_.tenant(), head_.node_id());
    batch_.PutMessage(Family::kNodes, key, head_);
    batch_.PutMessage(Family::kContents, key, contents_);
    for (const std::string& index : IndexKeys(head_)) batch_.PutKey(Family::kIndexes, index);
    for (int i = 0; i < head_.parents_size(); ++i) {
      const ParentEdge& parent = head_.parents(i);
      const std::string edge = EncodeEdge(parent);
      batch_.Put(Family::kEdges, ChildKey(head_.tenant(), parent.node_id(), head_.node_id()), edge);
      batch_.Put(Family::kEdges, ParentKey(head_.tenant(), head_.node_id(), i, parent.node_id()), edge);
    }
    usage_.set_nodes(usage_.nodes() + 1);
  }

  absl::Status AddAnswer() {
    return PutAnswer(head_.tenant(), commit_.request, head_, head_.create_time_us(), &batch_);
  }

  const v1::UsageEntry& usage() const { return usage_; }
  // Keys of the blocks in the batch.
  const std::vector<std::string>& written() const { return written_; }
  NodeRecord TakeHead() { return std::move(head_); }

 private:
  struct Sizes {
    uint64_t raw_bytes = 0;
    uint64_t stored_bytes = 0;
  };

  // Adds the block that `ref` names, if need be, tells `ref` its stored size and adds its sizes to `sizes`.
  absl::Status AddReference(BlockRef& ref, Sizes& sizes) {
    absl::StatusOr<v1::BlockEntry> entry = EntryFor(ref);
    if (!entry.ok()) return entry.status();
    ref.set_stored_bytes(entry->stored_bytes());
    sizes.raw_bytes += entry->raw_bytes();
    sizes.stored_bytes += entry->stored_bytes();
    return absl::OkStatus();
  }

  absl::StatusOr<bool> Exists(absl::string_view node_id) const {
    return database_.Has(Family::kNodes, NodeKey(head_.tenant(), node_id));
  }

  std::string KeyOf(const BlockId& id) const { return BlockKey(head_.tenant(), head_.model_fingerprint(), id); }

  // Looks up all blocks at once.
  absl::Status LoadStoredBlocks() {
    std::vector<BlockId> ids;
    std::vector<std::string> keys, names;
    ForEachBlock(contents_, [&](const BlockRef& ref) {
      ids.push_back(IdOf(ref));
      keys.push_back(KeyOf(ids.back()));
      names.push_back(BlockName(head_.tenant(), ids.back()));
    });
    const auto payloads = database_.MultiGet(Family::kReferences, keys, names);
    for (size_t i = 0; i < payloads.size(); ++i) {
      if (absl::IsNotFound(payloads[i].status())) continue;
      if (!payloads[i].ok() && !absl::IsDataLoss(payloads[i].status())) return payloads[i].status();
      v1::BlockEntry entry;
      const bool readable = payloads[i].ok() && entry.ParseFromString(*payloads[i]);
      if (!readable || damaged_.Contains(keys[i])) {
        replaced_.insert_or_assign(ids[i], readable ? std::make_optional(std::move(entry)) : std::nullopt);
        continue;
      }
      entries_.insert_or_assign(ids[i], std::move(entry));
      batch_.PutKey(Family::kReferences, ReferenceKey(keys[i], head_.node_id()));
    }
    return absl::OkStatus();
  }

  // The entry of the block, which is added if need be.
  absl::StatusOr<v1::BlockEntry> EntryFor(const BlockRef& ref) {
    const BlockId id = IdOf(ref);
    if (!entries_.contains(id)) {
      auto given = new_blocks_.find(id);
      if (given == new_blocks_.end()) {
        return absl::FailedPreconditionError(
            absl::StrCat(BlockName(head_.tenant(), id), replaced_.contains(id) ? " is stored with damage and not given"
                                                                               : " is neither stored nor given"));
      }
      AddBlock(*given->second, ref.raw_bytes());
    }
    const v1::BlockEntry& entry = entries_.at(id);
    if (entry.raw_bytes() == ref.raw_bytes()) return entry;
    return absl::InvalidArgumentError(
        absl::StrCat(BlockName(head_.tenant(), id), " has ", entry.raw_bytes(), " raw bytes, not ", ref.raw_bytes()));
  }

  void AddBlock(const NewBlock& block, uint64_t raw_bytes) {
    v1::BlockEntry entry;
    entry.set_raw_bytes(raw_bytes);
    entry.set_stored_bytes(block.bytes.size());
    const std::string key = KeyOf(block.id);
    batch_.Put(Family::kBlocks, key, block.bytes);
    batch_.PutMessage(Family::kReferences, key, entry);
    batch_.PutKey(Family::kReferences, ReferenceKey(key, head_.node_id()));
    // Equal ids mean interchangeable bytes: an entry that cannot be read said what the new one says.
    if (auto old = replaced_.find(block.id); old != replaced_.end())
      SubtractBlock(old->second.value_or(entry), &usage_);
    usage_.set_blocks(usage_.blocks() + 1);
    usage_.set_block_raw_bytes(usage_.block_raw_bytes() + raw_bytes);
    usage_.set_block_stored_bytes(usage_.block_stored_bytes() + block.bytes.size());
    new_stored_bytes_ += block.bytes.size();
    written_.push_back(key);
    entries_.insert_or_assign(block.id, std::move(entry));
  }

  const NodeCommit& commit_;
  const Database& database_;
  const DamagedBlocks& damaged_;
  Batch& batch_;
  v1::UsageEntry usage_;
  uint64_t new_stored_bytes_ = 0;
  NodeRecord head_;
  NodeContents contents_;
  absl::flat_hash_map<BlockId, v1::BlockEntry> entries_;  // Of blocks that are stored whole or in the batch.
  absl::flat_hash_map<BlockId, std::optional<v1::BlockEntry>> replaced_;  // Of damaged ones, where readable.
  std::vector<std::string> written_;
  absl::flat_hash_map<BlockId, const NewBlock*> new_blocks_;
};

void ReplaceLabels(const NodeRecord& before, const NodeRecord& after, Batch* batch) {
  for (const std::string& key : IndexKeys(before)) batch->Delete(Family::kIndexes, key);
  for (const std::string& key : IndexKeys(after)) batch->PutKey(Family::kIndexes, key);
}

}  // namespace

absl::StatusOr<NodeRecord> CommitNode(const NodeCommit& commit, WriterState* state) {
  if (absl::Status valid = ValidateCommit(commit); !valid.ok()) return valid;
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  Batch batch(state->database);
  Commit change(commit, *state->database, state->damaged, state->usage, &batch);
  if (absl::Status possible = change.Check(); !possible.ok()) return possible;
  if (absl::Status added = change.AddBlocks(); !added.ok()) return added;
  change.AddState();
  change.AddRecord(state->NextTimeUs());
  if (absl::Status added = change.AddAnswer(); !added.ok()) return added;
  absl::Status written = state->Write(&batch, change.usage(), Database::Room::kNeeds);
  if (!written.ok()) return written;
  for (const std::string& key : change.written()) state->damaged.Remove(key);
  return change.TakeHead();
}

absl::StatusOr<NodeRecord> UpdateNode(absl::string_view tenant, absl::string_view node_id, const UpdateOptions& options,
                                      absl::FunctionRef<absl::Status(NodeAnnotations&)> mutator, WriterState* state) {
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  const RequestIdentity* const request = options.request ? &options.request->identity : nullptr;
  if (absl::Status status = CheckUnanswered(*state->database, tenant, request); !status.ok()) return status;
  absl::StatusOr<NodeRecord> before = ReadHead(*state->database, tenant, node_id);
  if (!before.ok()) return before.status();
  if (absl::Status current = CheckEtag(*before, options.etag); !current.ok()) return current;
  NodeRecord after = *before;
  if (absl::Status changed = mutator(*after.mutable_annotations()); !changed.ok()) return changed;
  if (absl::Status valid = ValidateAnnotations(after.annotations()); !valid.ok()) return valid;
  after.set_revision(before->revision() + 1);
  after.set_update_time_us(state->NextTimeUs());
  Batch batch(state->database);
  ReplaceLabels(*before, after, &batch);
  batch.PutMessage(Family::kNodes, NodeKey(tenant, node_id), after);
  absl::Status put = PutAnswer(tenant, options.request, after, after.update_time_us(), &batch);
  if (!put.ok()) return put;
  absl::Status written = state->database->Write(&batch, Database::Room::kNeeds);
  if (!written.ok()) return written;
  return after;
}

absl::Status CheckEtag(const NodeRecord& record, absl::string_view etag) {
  if (etag.empty() || etag == EtagOf(record)) return absl::OkStatus();
  return WithReason("ETAG_MISMATCH",
                    absl::AbortedError(absl::StrCat(NodeName(record.node_id()), " has the etag ", EtagOf(record),
                                                    ", not ", etag.substr(0, 80), "; read it again")));
}

}  // namespace quicksave::storage
