#include "storage/database.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "rocksdb/env.h"
#include "storage/error_reason.h"
#include "storage/frame.h"
#include "storage/keys.h"
#include "storage/rocksdb_status.h"

namespace quicksave::storage {
namespace {

constexpr absl::string_view kFormatKey = "format_version";
// Of a store without anything that needs a later one.
constexpr uint32_t kFirstFormatVersion = 1;
constexpr absl::string_view kCreatedByKey = "created_by";
constexpr absl::string_view kCreatedBy = "quicksave";
// How long opening anew waits for those who read, and how long it tries.
constexpr absl::Duration kLongestRead = absl::Seconds(10);
constexpr absl::Duration kLongestOpening = absl::Seconds(30);

rocksdb::Slice ToSlice(absl::string_view text) { return rocksdb::Slice(text.data(), text.size()); }

class SilentLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {}
};

// The version, if this program reads it.
absl::StatusOr<uint32_t> ParseFormat(absl::string_view stored, absl::string_view path) {
  uint32_t version = 0;
  if (!absl::SimpleAtoi(stored, &version) || version == 0) {
    return absl::DataLossError(absl::StrCat("store ", path, ": its format version is unreadable"));
  }
  if (version > kStoreFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat("store ", path, " has format version ", version,
                                                      ", this program reads up to ", kStoreFormatVersion,
                                                      "; open it with a newer program"));
  }
  return version;
}

}  // namespace

void Batch::Put(Family family, absl::string_view key, absl::string_view payload) {
  const auto header = FrameHeader(key, payload);
  const rocksdb::Slice key_slice = ToSlice(key);
  const rocksdb::Slice parts[] = {rocksdb::Slice(header.data(), header.size()), ToSlice(payload)};
  batch_.Put(database_->instance()->handle(family), rocksdb::SliceParts(&key_slice, 1), rocksdb::SliceParts(parts, 2));
}

void Batch::PutMessage(Family family, absl::string_view key, const google::protobuf::MessageLite& message) {
  Put(family, key, message.SerializeAsString());
}

void Batch::PutKey(Family family, absl::string_view key) {
  batch_.Put(database_->instance()->handle(family), ToSlice(key), rocksdb::Slice());
}

void Batch::Delete(Family family, absl::string_view key) {
  batch_.Delete(database_->instance()->handle(family), ToSlice(key));
}

void Batch::DeletePrefix(Family family, absl::string_view prefix) {
  const std::string end = PrefixEnd(prefix);
  batch_.DeleteRange(database_->instance()->handle(family), ToSlice(prefix), end);
}

void Batch::NeedFormat(uint32_t version) {
  if (version <= std::max(format_version_, database_->format_version())) return;
  format_version_ = version;
  batch_.Put(database_->instance()->handle(Family::kDefault), ToSlice(kFormatKey), absl::StrCat(version));
}

absl::StatusOr<absl::string_view> Scan::value(absl::string_view what) const {
  const rocksdb::Slice value = iterator_->value();
  return OpenFrame(key(), absl::string_view(value.data(), value.size()), what);
}

absl::Status Scan::status() const { return FromRocksDb(iterator_->status(), "scan"); }

Database::Database(const StoreOptions& options)
    : options_(options), env_(options.env != nullptr ? options.env : rocksdb::Env::Default()) {
  write_options_.sync = options.durability == Durability::kSync;
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const StoreOptions& options) {
  auto database = std::unique_ptr<Database>(new Database(options));
  const std::string what = absl::StrCat("store ", options.path);
  if (rocksdb::Status made = database->env_->CreateDirIfMissing(options.path); !made.ok()) {
    if (!made.IsPathNotFound()) return FromRocksDb(made, what);
    return absl::FailedPreconditionError(absl::StrCat(what, ": its parent directory does not exist; make it first"));
  }
  if (absl::Status format = database->CheckFormatOnDisk(); !format.ok()) return format;
  absl::StatusOr<std::shared_ptr<const Instance>> opened = Instance::Open(options);
  if (!opened.ok()) return opened.status();
  {
    absl::MutexLock lock(&database->mutex_);
    database->instance_ = *std::move(opened);
  }
  if (absl::Status initialized = database->InitializeFormat(); !initialized.ok()) return initialized;
  return database;
}

std::shared_ptr<const Instance> Database::instance() const {
  const auto open = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return instance_ != nullptr; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&open));
  return instance_;
}

absl::Status Database::CheckFormatOnDisk() const {
  if (!env_->FileExists(absl::StrCat(options_.path, "/CURRENT")).ok()) return absl::OkStatus();
  const std::string what = absl::StrCat("store ", options_.path);
  // Opening for reading takes no lock, and what another process changes meanwhile would look like damage.
  const std::string lock_path = absl::StrCat(options_.path, "/LOCK");
  rocksdb::FileLock* lock = nullptr;
  if (rocksdb::Status locked = env_->LockFile(lock_path, &lock); !locked.ok()) return FromRocksDb(locked, what);
  absl::Status status = ReadFormatOnDisk();
  const absl::Status unlocked = FromRocksDb(env_->UnlockFile(lock), what);
  return status.ok() ? unlocked : status;
}

absl::Status Database::ReadFormatOnDisk() const {
  const std::string what = absl::StrCat("store ", options_.path);
  rocksdb::DBOptions read_only;
  read_only.track_and_verify_wals_in_manifest = true;
  read_only.env = env_;
  read_only.info_log = std::make_shared<SilentLogger>();
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::OpenForReadOnly(
      read_only, options_.path, {{rocksdb::kDefaultColumnFamilyName, rocksdb::ColumnFamilyOptions()}}, &handles,
      &opened);
  if (!status.ok()) return FromRocksDb(status, what);
  const std::unique_ptr<rocksdb::DB> db(opened);
  std::string version;
  const rocksdb::Status found = db->Get(rocksdb::ReadOptions(), handles[0], ToSlice(kFormatKey), &version);
  db->DestroyColumnFamilyHandle(handles[0]).PermitUncheckedError();
  if (found.IsNotFound()) return absl::OkStatus();
  if (!found.ok()) return FromRocksDb(found, what);
  return ParseFormat(version, options_.path).status();
}

absl::Status Database::InitializeFormat() {
  const std::shared_ptr<const Instance> instance = this->instance();
  rocksdb::ColumnFamilyHandle* const family = instance->handle(Family::kDefault);
  std::string version;
  const rocksdb::Status found = instance->db()->Get(rocksdb::ReadOptions(), family, ToSlice(kFormatKey), &version);
  if (found.IsNotFound()) return CreateFormat(*instance);
  if (!found.ok()) return FromRocksDb(found, "store");
  const absl::StatusOr<uint32_t> parsed = ParseFormat(version, options_.path);
  if (!parsed.ok()) return parsed.status();
  format_version_ = *parsed;
  return absl::OkStatus();
}

absl::Status Database::CreateFormat(const Instance& instance) {
  if (NewScan(Family::kNodes, "")->Valid()) {
    return absl::DataLossError(absl::StrCat("store ", options_.path, " has nodes but no format version"));
  }
  rocksdb::ColumnFamilyHandle* const family = instance.handle(Family::kDefault);
  rocksdb::WriteBatch batch;
  batch.Put(family, ToSlice(kFormatKey), absl::StrCat(kFirstFormatVersion));
  batch.Put(family, ToSlice(kCreatedByKey), ToSlice(kCreatedBy));
  rocksdb::WriteOptions sync;
  sync.sync = true;
  if (rocksdb::Status written = instance.db()->Write(sync, &batch); !written.ok()) return FromRocksDb(written, "store");
  format_version_ = kFirstFormatVersion;
  return FromRocksDb(instance.db()->Flush(rocksdb::FlushOptions(), family), "store");
}

absl::StatusOr<std::string> Database::Get(Family family, absl::string_view key, absl::string_view what,
                                          const Snapshot* snapshot) const {
  const std::shared_ptr<const Instance> instance = snapshot != nullptr ? snapshot->instance() : this->instance();
  rocksdb::ReadOptions options;
  if (snapshot != nullptr) options.snapshot = snapshot->get();
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = instance->db()->Get(options, instance->handle(family), ToSlice(key), &value);
  if (!status.ok()) return FromRocksDb(status, what);
  absl::StatusOr<absl::string_view> payload = OpenFrame(key, absl::string_view(value.data(), value.size()), what);
  if (!payload.ok()) return payload.status();
  return std::string(*payload);
}

absl::Status Database::GetMessage(Family family, absl::string_view key, absl::string_view what,
                                  google::protobuf::MessageLite* message, const Snapshot* snapshot) const {
  absl::StatusOr<std::string> payload = Get(family, key, what, snapshot);
  if (!payload.ok()) return payload.status();
  if (!message->ParseFromString(*payload)) {
    return absl::DataLossError(absl::StrCat(what, ": the stored record is not a ", message->GetTypeName()));
  }
  return absl::OkStatus();
}

std::vector<absl::StatusOr<std::string>> Database::MultiGet(Family family, absl::Span<const std::string> keys,
                                                            absl::Span<const std::string> what,
                                                            const Snapshot* snapshot) const {
  const std::shared_ptr<const Instance> instance = snapshot != nullptr ? snapshot->instance() : this->instance();
  rocksdb::ReadOptions options;
  if (snapshot != nullptr) options.snapshot = snapshot->get();
  const std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  instance->db()->MultiGet(options, instance->handle(family), keys.size(), slices.data(), values.data(),
                           statuses.data());
  std::vector<absl::StatusOr<std::string>> result;
  result.reserve(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (!statuses[i].ok()) {
      result.emplace_back(FromRocksDb(statuses[i], what[i]));
      continue;
    }
    auto payload = OpenFrame(keys[i], absl::string_view(values[i].data(), values[i].size()), what[i]);
    if (payload.ok()) {
      result.emplace_back(std::string(*payload));
    } else {
      result.emplace_back(payload.status());
    }
    values[i].Reset();
  }
  return result;
}

absl::StatusOr<bool> Database::Has(Family family, absl::string_view key, const Snapshot* snapshot) const {
  const std::shared_ptr<const Instance> instance = snapshot != nullptr ? snapshot->instance() : this->instance();
  rocksdb::ReadOptions options;
  if (snapshot != nullptr) options.snapshot = snapshot->get();
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = instance->db()->Get(options, instance->handle(family), ToSlice(key), &value);
  if (status.IsNotFound()) return false;
  if (!status.ok()) return FromRocksDb(status, "look-up");
  return true;
}

std::unique_ptr<Scan> Database::NewScan(Family family, absl::string_view prefix, const Snapshot* snapshot) const {
  return NewScanBetween(family, prefix, prefix, PrefixEnd(prefix), snapshot);
}

std::unique_ptr<Scan> Database::NewScanBetween(Family family, absl::string_view prefix, absl::string_view begin,
                                               absl::string_view end, const Snapshot* snapshot) const {
  auto scan = std::make_unique<Scan>();
  scan->prefix_ = std::string(prefix);
  scan->begin_ = std::string(begin);
  scan->end_ = std::string(end);
  scan->begin_slice_ = scan->begin_;
  scan->end_slice_ = scan->end_;
  const std::shared_ptr<const Instance> instance = snapshot != nullptr ? snapshot->instance() : this->instance();
  rocksdb::ReadOptions options;
  if (snapshot != nullptr) options.snapshot = snapshot->get();
  options.iterate_lower_bound = &scan->begin_slice_;
  if (!scan->end_.empty()) options.iterate_upper_bound = &scan->end_slice_;
  scan->iterator_.reset(instance->db()->NewIterator(options, instance->handle(family)));
  scan->instance_ = instance;
  scan->iterator_->SeekToFirst();
  return scan;
}

absl::Status Database::Write(Batch* batch, Room room) {
  if (room == Room::kNeeds) {
    if (absl::Status space = CheckFreeSpace(); !space.ok()) return space;
  }
  std::shared_ptr<const Instance> instance = this->instance();
  absl::Status status = FromRocksDb(instance->db()->Write(write_options_, &batch->batch_), "store");
  instance = nullptr;
  if (absl::IsResourceExhausted(status)) {
    // RocksDB refuses every write after the disk was full. Some of a refused batch may be in its log, so the batch that
    // met this first may be tried again, and later ones may not: they did not know of it.
    if (!refused() && Reopen()) {
      status = FromRocksDb(this->instance()->db()->Write(write_options_, &batch->batch_), "store");
    }
  }
  if (absl::IsUnavailable(status)) {
    status = absl::UnavailableError(absl::StrCat(status.message(), "; restart the server when the disk is well"));
  }
  if (status.ok() && batch->format_version_ != 0) format_version_ = batch->format_version_;
  absl::MutexLock lock(&mutex_);
  write_error_ = status;
  refused_ = refused_ || absl::IsResourceExhausted(status);
  return status;
}

bool Database::Recover() {
  if (!refused() || !Reopen()) return false;
  // A refused batch may have raised the format. If it cannot be read, it is the one known, and raised again when
  // needed.
  InitializeFormat().IgnoreError();
  absl::MutexLock lock(&mutex_);
  refused_ = false;
  return true;
}

bool Database::refused() const {
  absl::MutexLock lock(&mutex_);
  return refused_;
}

absl::Status Database::CheckFreeSpace() const {
  absl::StatusOr<uint64_t> free = FreeBytes();
  if (!free.ok()) return free.status();
  if (*free >= options_.min_free_disk_bytes) return absl::OkStatus();
  return WithReason("DISK_FULL",
                    absl::ResourceExhaustedError(absl::StrCat(
                        "store ", options_.path, ": the disk has ", *free, " bytes left, fewer than the minimum of ",
                        options_.min_free_disk_bytes, "; free some space and try again")));
}

// DB::Resume is there for this, and waits for ever when a flush had been scheduled before the disk was full:
// RocksDB 7.8 then leaves that flush in its queue, and counts one less than there are from then on.
bool Database::Reopen() {
  absl::MutexLock lock(&mutex_);
  if (absl::Now() < reopen_after_ || !CanFlush(*instance_)) return false;
  // One reference is the member's. Others may come until it is taken away, and are short then.
  const auto await_readers = [this](absl::Duration longest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const absl::Time end = absl::Now() + longest;
    while (instance_.use_count() > 1 && absl::Now() < end) {
      mutex_.Unlock();
      absl::SleepFor(absl::Milliseconds(1));
      mutex_.Lock();
    }
  };
  await_readers(kLongestRead);
  // With the lock held nobody takes a new reference.
  if (instance_.use_count() > 1) {
    reopen_after_ = absl::Now() + kLongestRead;
    return false;
  }
  instance_ = nullptr;
  mutex_.Unlock();
  std::shared_ptr<const Instance> opened = OpenAgain();
  mutex_.Lock();
  instance_ = std::move(opened);
  return true;
}

std::shared_ptr<const Instance> Database::OpenAgain() const {
  absl::Time end = absl::Now() + kLongestOpening;
  for (;;) {
    absl::StatusOr<std::shared_ptr<const Instance>> opened = Instance::Open(options_);
    if (opened.ok()) return *std::move(opened);
    // The disk filled up again: there is nothing to do but to wait.
    if (absl::IsResourceExhausted(opened.status())) end = absl::Now() + kLongestOpening;
    if (absl::Now() > end) {
      ABSL_RAW_LOG(FATAL, "cannot open the store again after its disk was full: %s",
                   opened.status().ToString().c_str());
    }
    absl::SleepFor(absl::Milliseconds(100));
  }
}

bool Database::CanFlush(const Instance& instance) const {
  constexpr uint64_t kLogAndManifest = 4 << 20;
  uint64_t needed = kLogAndManifest;
  for (rocksdb::ColumnFamilyHandle* handle : instance.handles()) {
    uint64_t bytes = 0;
    if (instance.db()->GetIntProperty(handle, rocksdb::DB::Properties::kCurSizeAllMemTables, &bytes)) needed += bytes;
  }
  const absl::StatusOr<uint64_t> free = FreeBytes();
  return free.ok() && *free >= needed;
}

absl::Status Database::Compact() {
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
  options.blob_garbage_collection_age_cutoff = 1.0;
  for (size_t family = 0; family < kFamilyCount; ++family) {
    const std::shared_ptr<const Instance> instance = this->instance();
    rocksdb::ColumnFamilyHandle* const handle = instance->handles()[family];
    absl::Status status = FromRocksDb(instance->db()->CompactRange(options, handle, nullptr, nullptr), "compaction");
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Database::FreeBytes() const {
  uint64_t free = 0;
  const rocksdb::Status status = env_->GetFreeSpace(options_.path, &free);
  if (status.IsNotSupported()) return std::numeric_limits<uint64_t>::max();
  if (!status.ok()) return FromRocksDb(status, absl::StrCat("store ", options_.path));
  return free;
}

uint64_t Database::UsedBytes() const {
  uint64_t used = 0;
  const std::shared_ptr<const Instance> instance = this->instance();
  for (rocksdb::ColumnFamilyHandle* handle : instance->handles()) {
    for (const char* property : {"rocksdb.total-sst-files-size", "rocksdb.total-blob-file-size"}) {
      uint64_t bytes = 0;
      if (instance->db()->GetIntProperty(handle, property, &bytes)) used += bytes;
    }
  }
  return used;
}

absl::Status Database::write_error() const {
  absl::MutexLock lock(&mutex_);
  return write_error_;
}

}  // namespace quicksave::storage
