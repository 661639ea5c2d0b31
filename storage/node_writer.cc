#include "storage/node_writer.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/beginning_index.h"
#include "storage/block_writer.h"
#include "storage/encoding.h"
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
  Commit(const NodeCommit& commit, const WriterState& state, const v1::UsageEntry& usage, Batch* batch)
      : commit_(commit),
        database_(*state.database),
        batch_(*batch),
        usage_(usage),
        head_(commit.record),
        blocks_(head_, commit.blocks, state, batch, &usage_) {
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
  absl::Status AddBlocks(int64_t time_us) {
    BlockSizes kv, taps;
    if (absl::Status added = blocks_.Add(PointersTo(contents_.mutable_blocks()), &kv); !added.ok()) return added;
    std::vector<BlockRef*> tap_refs;
    for (v1::TapBlock& tap : *contents_.mutable_tap_blocks()) tap_refs.push_back(tap.mutable_block());
    if (absl::Status added = blocks_.Add(tap_refs, &taps); !added.ok()) return added;
    for (v1::Encoding& encoding : *contents_.mutable_encodings()) {
      if (absl::Status added = blocks_.Add(time_us, &encoding); !added.ok()) return added;
    }
    Summarize(contents_, &head_);
    head_.set_raw_bytes(kv.raw_bytes);
    head_.set_stored_bytes(kv.stored_bytes);
    head_.set_new_stored_bytes(blocks_.written_bytes());
    if (head_.has_taps()) {
      head_.mutable_taps()->set_raw_bytes(taps.raw_bytes);
      head_.mutable_taps()->set_stored_bytes(taps.stored_bytes);
    }
    if (!contents_.encodings().empty()) batch_.NeedFormat(kEncodingsFormatVersion);
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
    head_.set_beginnings(CountBeginnings(head_, contents_));
    const std::string key = NodeKey(head_.tenant(), head_.node_id());
    batch_.PutMessage(Family::kNodes, key, head_);
    batch_.PutMessage(Family::kContents, key, contents_);
    for (const std::string& index : IndexKeys(head_)) batch_.PutKey(Family::kIndexes, index);
    for (const std::string& index : BeginningKeys(head_, contents_)) batch_.PutKey(Family::kIndexes, index);
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
  const std::vector<std::string>& written() const { return blocks_.written(); }
  NodeRecord TakeHead() { return std::move(head_); }

 private:
  absl::StatusOr<bool> Exists(absl::string_view node_id) const {
    return database_.Has(Family::kNodes, NodeKey(head_.tenant(), node_id));
  }

  const NodeCommit& commit_;
  const Database& database_;
  Batch& batch_;
  v1::UsageEntry usage_;
  NodeRecord head_;
  NodeContents contents_;
  BlockWriter blocks_;
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
  Commit change(commit, *state, state->usage, &batch);
  if (absl::Status possible = change.Check(); !possible.ok()) return possible;
  const int64_t time_us = state->NextTimeUs();
  if (absl::Status added = change.AddBlocks(time_us); !added.ok()) return added;
  change.AddState();
  change.AddRecord(time_us);
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
