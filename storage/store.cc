#include "storage/store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/beginning_index.h"
#include "storage/block_pins.h"
#include "storage/block_reader.h"
#include "storage/database.h"
#include "storage/keys.h"
#include "storage/node_encoder.h"
#include "storage/node_listing.h"
#include "storage/node_reader.h"
#include "storage/node_remover.h"
#include "storage/node_verifier.h"
#include "storage/node_writer.h"
#include "storage/profile_shelf.h"
#include "storage/request_log.h"
#include "storage/validation.h"
#include "storage/writer_state.h"

namespace quicksave::storage {
namespace {

absl::Status ValidateNode(absl::string_view tenant, absl::string_view node_id) {
  absl::Status status = ValidateIdentifier("tenant", tenant);
  return status.ok() ? ValidateNodeId(node_id) : status;
}

absl::Status ValidateBlocks(absl::string_view tenant, absl::string_view model_fingerprint,
                            absl::Span<const BlockId> ids) {
  if (absl::Status status = ValidateIdentifier("tenant", tenant); !status.ok()) return status;
  if (absl::Status status = ValidateIdentifier("model fingerprint", model_fingerprint); !status.ok()) return status;
  for (const BlockId& id : ids) {
    if (absl::Status status = ValidateBlockId(id); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

struct Store::Parts {
  explicit Parts(std::unique_ptr<Database> db, const StoreOptions& options)
      : database(std::move(db)), writers(database.get(), options.clock) {}

  const std::unique_ptr<Database> database;
  WriterState writers;
};

BlockId IdOf(const BlockRef& ref) { return BlockId{ref.id(), ref.codec()}; }

std::string EtagOf(const NodeRecord& record) { return absl::StrCat(record.create_time_us(), "-", record.revision()); }

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const StoreOptions& options) {
  absl::StatusOr<std::unique_ptr<Database>> database = Database::Open(options);
  if (!database.ok()) return database.status();
  auto parts = std::make_unique<Parts>(*std::move(database), options);
  {
    absl::MutexLock lock(&parts->writers.mutex);
    if (absl::Status begun = parts->writers.Begin(); !begun.ok()) return begun;
  }
  return std::unique_ptr<Store>(new Store(std::move(parts)));
}

Store::Store(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Store::~Store() = default;

absl::StatusOr<NodeRecord> Store::CommitNode(const NodeCommit& commit) {
  return storage::CommitNode(commit, &parts_->writers);
}

absl::StatusOr<NodeRecord> Store::GetNode(absl::string_view tenant, absl::string_view node_id) const {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  return storage::GetNode(*parts_->database, tenant, node_id);
}

absl::StatusOr<std::vector<std::optional<NodeRecord>>> Store::GetNodes(absl::string_view tenant,
                                                                       absl::Span<const std::string> node_ids) const {
  for (const std::string& node_id : node_ids) {
    if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  }
  return storage::GetNodes(*parts_->database, tenant, node_ids);
}

absl::StatusOr<NodePage> Store::ListNodes(const ListRequest& request) const {
  return storage::ListNodes(*parts_->database, request);
}

absl::StatusOr<NodeRecord> Store::UpdateNode(absl::string_view tenant, absl::string_view node_id,
                                             const UpdateOptions& options,
                                             absl::FunctionRef<absl::Status(NodeAnnotations&)> mutator) {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  return storage::UpdateNode(tenant, node_id, options, mutator, &parts_->writers);
}

absl::StatusOr<NodeRecord> Store::ChangeEncodings(absl::string_view tenant, absl::string_view node_id,
                                                  const EncodingChange& change) {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  return storage::ChangeEncodings(tenant, node_id, change, &parts_->writers);
}

absl::StatusOr<DeleteReport> Store::DeleteNode(absl::string_view tenant, absl::string_view node_id,
                                               const DeleteOptions& options) {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  return storage::DeleteNode(tenant, node_id, options, &parts_->writers);
}

absl::StatusOr<std::vector<Edge>> Store::Children(absl::string_view tenant, absl::string_view node_id) const {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  return storage::Children(*parts_->database, tenant, node_id);
}

absl::StatusOr<std::vector<Edge>> Store::Parents(absl::string_view tenant, absl::string_view node_id) const {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  return storage::Parents(*parts_->database, tenant, node_id);
}

absl::StatusOr<NodeBeginning> Store::FindBeginning(absl::string_view tenant, absl::string_view model_fingerprint,
                                                   absl::Span<const int32_t> tokens) const {
  if (absl::Status valid = ValidateBlocks(tenant, model_fingerprint, {}); !valid.ok()) return valid;
  return storage::FindBeginning(*parts_->database, tenant, model_fingerprint, tokens);
}

absl::StatusOr<std::string> Store::ReadBlock(absl::string_view tenant, absl::string_view model_fingerprint,
                                             const BlockId& id) const {
  if (absl::Status valid = ValidateBlocks(tenant, model_fingerprint, {id}); !valid.ok()) return valid;
  absl::StatusOr<std::string> bytes = storage::ReadBlock(*parts_->database, tenant, model_fingerprint, id);
  if (absl::IsDataLoss(bytes.status())) parts_->writers.damaged.Add(BlockKey(tenant, model_fingerprint, id));
  return bytes;
}

void Store::ReportDamaged(absl::string_view tenant, absl::string_view model_fingerprint, const BlockId& id) {
  parts_->writers.damaged.Add(BlockKey(tenant, model_fingerprint, id));
}

absl::StatusOr<BlockPin> Store::PinBlocks(absl::string_view tenant, absl::string_view model_fingerprint,
                                          absl::Span<const BlockId> ids) {
  if (absl::Status valid = ValidateBlocks(tenant, model_fingerprint, ids); !valid.ok()) return valid;
  BlockPin pin;
  for (const BlockId& id : ids) pin.keys_.push_back(BlockKey(tenant, model_fingerprint, id));
  // No delete is between its look at the pins and its write.
  absl::MutexLock lock(&parts_->writers.mutex);
  pin.table_ = parts_->writers.pins;
  pin.table_->Add(pin.keys_);
  for (const std::string& key : pin.keys_) {
    absl::StatusOr<bool> present = IsStored(*parts_->database, parts_->writers.damaged, key);
    if (!present.ok()) return present.status();
    pin.present_.push_back(*present);
  }
  return pin;
}

absl::StatusOr<std::string> Store::GetState(absl::string_view tenant, absl::string_view node_id,
                                            absl::string_view name) const {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  if (absl::Status valid = ValidateName("name of a state value", name); !valid.ok()) return valid;
  return storage::GetState(*parts_->database, tenant, node_id, name);
}

absl::Status Store::PutProfile(absl::string_view model_fingerprint, absl::string_view codec, const Profile& profile) {
  return storage::PutProfile(model_fingerprint, codec, profile, &parts_->writers);
}

absl::StatusOr<Profile> Store::GetProfile(absl::string_view model_fingerprint, absl::string_view codec,
                                          absl::string_view id) const {
  return storage::GetProfile(*parts_->database, model_fingerprint, codec, id);
}

absl::StatusOr<std::vector<ProfileInfo>> Store::ListProfiles(absl::string_view model_fingerprint) const {
  return storage::ListProfiles(*parts_->database, model_fingerprint);
}

absl::StatusOr<RememberedRequest> Store::FindRequest(absl::string_view tenant, absl::string_view method,
                                                     absl::string_view request_id) const {
  return storage::FindRequest(*parts_->database, tenant, method, request_id);
}

absl::StatusOr<uint64_t> Store::ForgetRequests(absl::Time time) {
  return storage::ForgetRequests(time, &parts_->writers);
}

absl::StatusOr<GarbageReport> Store::CollectGarbage() {
  absl::StatusOr<GarbageReport> report = storage::CollectGarbage(&parts_->writers);
  if (!report.ok()) return report;
  if (absl::Status removed = RemoveStrayBeginnings(&parts_->writers); !removed.ok()) return removed;
  return report;
}

absl::Status Store::Compact() { return parts_->database->Compact(); }

absl::StatusOr<StoreStats> Store::Stats() const {
  absl::StatusOr<uint64_t> free = parts_->database->FreeBytes();
  if (!free.ok()) return free.status();
  StoreStats stats;
  stats.format_version = parts_->database->format_version();
  stats.disk_free_bytes = *free;
  stats.disk_used_bytes = parts_->database->UsedBytes();
  const absl::Status error = parts_->database->write_error();
  stats.writable = error.ok();
  stats.write_error = std::string(error.message());
  const v1::UsageEntry usage = parts_->writers.Totals();
  stats.nodes = usage.nodes();
  stats.blocks = usage.blocks();
  stats.block_raw_bytes = usage.block_raw_bytes();
  stats.block_stored_bytes = usage.block_stored_bytes();
  stats.state_bytes = usage.state_bytes();
  return stats;
}

absl::StatusOr<VerifyReport> Store::VerifyNode(absl::string_view tenant, absl::string_view node_id) const {
  if (absl::Status valid = ValidateNode(tenant, node_id); !valid.ok()) return valid;
  return storage::VerifyNode(*parts_->database, tenant, node_id);
}

}  // namespace quicksave::storage
