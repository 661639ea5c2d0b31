#include "storage/node_encoder.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/strings/str_cat.h"
#include "storage/beginning_index.h"
#include "storage/block_remover.h"
#include "storage/block_writer.h"
#include "storage/error_reason.h"
#include "storage/keys.h"
#include "storage/node_reader.h"
#include "storage/node_writer.h"
#include "storage/request_log.h"
#include "storage/validation.h"

namespace quicksave::storage {
namespace {

absl::Status Absent(const NodeRecord& head, absl::string_view what) {
  return absl::NotFoundError(absl::StrCat(NodeName(head.node_id()), " has no ", what));
}

// One change on its way into a batch. All methods need the writers' lock.
class Recoding {
 public:
  Recoding(const EncodingChange& change, NodeRecord head, NodeContents contents, WriterState* state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(state->mutex)
      : change_(change),
        state_(*state),
        usage_(state->usage),
        batch_(state->database),
        head_(std::move(head)),
        contents_(std::move(contents)),
        blocks_(head_, change.blocks, *state, &batch_, &usage_) {}

  // Everything but the answer. Errors as of Store::ChangeEncodings.
  absl::Status Apply(int64_t time_us) {
    const absl::btree_set<std::string> before = BlockKeys();
    if (absl::Status removed = Remove(); !removed.ok()) return removed;
    for (const v1::Encoding& encoding : change_.add) {
      if (absl::Status added = Add(encoding, time_us); !added.ok()) return added;
    }
    if (absl::Status possible = CheckWhatIsLeft(); !possible.ok()) return possible;
    if (absl::Status released = Release(before); !released.ok()) return released;
    Summarize(contents_, &head_);
    UpdateBeginnings();
    head_.set_update_time_us(time_us);
    head_.set_revision(head_.revision() + 1);
    const std::string key = NodeKey(head_.tenant(), head_.node_id());
    batch_.PutMessage(Family::kNodes, key, head_);
    batch_.PutMessage(Family::kContents, key, contents_);
    if (!contents_.encodings().empty()) batch_.NeedFormat(kEncodingsFormatVersion);
    return absl::OkStatus();
  }

  absl::Status AddAnswer() {
    return PutAnswer(head_.tenant(), change_.request, head_, head_.update_time_us(), &batch_);
  }

  Batch* batch() { return &batch_; }
  const v1::UsageEntry& usage() const { return usage_; }
  // Keys of the blocks in the batch.
  const std::vector<std::string>& written() const { return blocks_.written(); }
  NodeRecord TakeHead() { return std::move(head_); }

 private:
  absl::btree_set<std::string> BlockKeys() const {
    absl::btree_set<std::string> keys;
    ForEachBlock(contents_, [&](const BlockRef& ref) {
      keys.insert(BlockKey(head_.tenant(), head_.model_fingerprint(), IdOf(ref)));
    });
    return keys;
  }

  absl::Status Remove() {
    for (const EncodingKey& key : change_.remove) {
      const int i = FindEncoding(key, contents_);
      if (i < 0) return Absent(head_, EncodingName(key));
      contents_.mutable_encodings()->DeleteSubrange(i, 1);
    }
    for (const EncodingKey& key : change_.remove_residuals) {
      const int i = FindEncoding(key, contents_);
      if (i < 0 || contents_.encodings(i).residuals().empty()) {
        return Absent(head_, absl::StrCat("residuals of ", EncodingName(key)));
      }
      contents_.mutable_encodings(i)->clear_residuals();
      contents_.mutable_encodings(i)->clear_residual_bytes();
    }
    if (!change_.remove_saved) return absl::OkStatus();
    if (contents_.blocks().empty()) return Absent(head_, "blocks as saved");
    contents_.clear_blocks();
    head_.clear_raw_bytes();
    head_.clear_stored_bytes();
    return absl::OkStatus();
  }

  absl::Status Add(const v1::Encoding& given, int64_t time_us) {
    if (absl::Status valid = ValidateEncoding(given, head_.token_count()); !valid.ok()) return valid;
    const int i = FindEncoding(EncodingKeyOf(given), contents_);
    v1::Encoding& encoding = i < 0 ? *contents_.add_encodings() : *contents_.mutable_encodings(i);
    encoding = given;
    return blocks_.Add(time_us, &encoding);
  }

  absl::Status CheckWhatIsLeft() const {
    const bool removes = change_.remove_saved || !change_.remove.empty();
    if (removes && !CoversTokens(contents_, head_.token_count())) {
      return WithReason("LAST_ENCODING",
                        absl::FailedPreconditionError(absl::StrCat(
                            NodeName(head_.node_id()), " would be left without an encoding of all of its tokens")));
    }
    return ValidateEncodings(head_, contents_);
  }

  // A node that has lost its exact bits does not stand in the index; one that an older program wrote comes to.
  void UpdateBeginnings() {
    for (const std::string& key : BeginningKeys(head_, contents_)) batch_.Delete(Family::kIndexes, key);
    head_.set_beginnings(CountBeginnings(head_, contents_));
    for (const std::string& key : BeginningKeys(head_, contents_)) batch_.PutKey(Family::kIndexes, key);
  }

  // Takes away the references that are no longer there, and the blocks to which they were the last.
  absl::Status Release(const absl::btree_set<std::string>& before) {
    BlockRemover remover(*state_.database, &batch_, &usage_);
    const absl::btree_set<std::string> after = BlockKeys();
    for (const std::string& key : before) {
      if (!after.contains(key)) remover.Release(key, head_.node_id());
    }
    return remover.RemoveFreed(*state_.pins);
  }

  const EncodingChange& change_;
  const WriterState& state_;
  v1::UsageEntry usage_;
  Batch batch_;
  NodeRecord head_;
  NodeContents contents_;
  BlockWriter blocks_;
};

}  // namespace

absl::StatusOr<NodeRecord> ChangeEncodings(absl::string_view tenant, absl::string_view node_id,
                                           const EncodingChange& change, WriterState* state) {
  if (absl::Status valid = ValidateEncodingChange(change); !valid.ok()) return valid;
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  const RequestIdentity* const request = change.request ? &change.request->identity : nullptr;
  if (absl::Status status = CheckUnanswered(*state->database, tenant, request); !status.ok()) return status;
  absl::StatusOr<NodeRecord> head = ReadHead(*state->database, tenant, node_id);
  if (!head.ok()) return head.status();
  if (absl::Status current = CheckEtag(*head, change.etag); !current.ok()) return current;
  absl::StatusOr<NodeContents> contents = ReadContents(*state->database, tenant, node_id);
  if (!contents.ok()) return contents.status();
  Recoding recoding(change, *std::move(head), *std::move(contents), state);
  if (absl::Status applied = recoding.Apply(state->NextTimeUs()); !applied.ok()) return applied;
  if (absl::Status answered = recoding.AddAnswer(); !answered.ok()) return answered;
  const Database::Room room = change.add.empty() ? Database::Room::kMakes : Database::Room::kNeeds;
  if (absl::Status written = state->Write(recoding.batch(), recoding.usage(), room); !written.ok()) return written;
  for (const std::string& key : recoding.written()) state->damaged.Remove(key);
  return recoding.TakeHead();
}

}  // namespace quicksave::storage
