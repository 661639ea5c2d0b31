// RocksDB as the rest of the store sees it: framed values in column families, scans by prefix, atomic batches, and
// writing that recovers by itself once a full disk has space again.
#ifndef QUICKSAVE_STORAGE_DATABASE_H_
#define QUICKSAVE_STORAGE_DATABASE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "google/protobuf/message_lite.h"
#include "rocksdb/db.h"
#include "rocksdb/write_batch.h"
#include "storage/instance.h"
#include "storage/rocksdb_options.h"
#include "storage/store.h"

namespace quicksave::storage {

class Database;

// Changes that take place together or not at all.
class Batch {
 public:
  explicit Batch(Database* database) : database_(database) {}

  // Puts `payload` in a frame.
  void Put(Family family, absl::string_view key, absl::string_view payload);
  // Puts a message in a frame.
  void PutMessage(Family family, absl::string_view key, const google::protobuf::MessageLite& message);
  // Puts a key that says everything by being there.
  void PutKey(Family family, absl::string_view key);
  void Delete(Family family, absl::string_view key);
  // Every key with the prefix, which is not empty; reads none of them.
  void DeletePrefix(Family family, absl::string_view prefix);
  // Raises the store's format to `version` if it is lower: with this batch comes what programs of lower ones would
  // misread or leave behind.
  void NeedFormat(uint32_t version);

 private:
  friend class Database;
  Database* const database_;
  uint32_t format_version_ = 0;
  rocksdb::WriteBatch batch_;
};

// Keys with a common prefix, as they were when the scan was made. Not thread-safe.
class Scan {
 public:
  bool Valid() const { return iterator_->Valid(); }
  void Next() { iterator_->Next(); }
  void Prev() { iterator_->Prev(); }
  // To the first key from `key` on, the last up to `key`, the last of all.
  void Seek(absl::string_view key) { iterator_->Seek(rocksdb::Slice(key.data(), key.size())); }
  void SeekForPrev(absl::string_view key) { iterator_->SeekForPrev(rocksdb::Slice(key.data(), key.size())); }
  void SeekToLast() { iterator_->SeekToLast(); }
  absl::string_view key() const { return absl::string_view(iterator_->key().data(), iterator_->key().size()); }
  // What follows the prefix.
  absl::string_view suffix() const { return key().substr(prefix_.size()); }
  // The value out of its frame. DATA_LOSS, naming `what`.
  absl::StatusOr<absl::string_view> value(absl::string_view what) const;
  // Why the scan ended, if not because it was through.
  absl::Status status() const;

 private:
  friend class Database;
  std::shared_ptr<const Instance> instance_;
  std::string prefix_;
  std::string begin_;
  std::string end_;
  rocksdb::Slice begin_slice_;
  rocksdb::Slice end_slice_;
  std::unique_ptr<rocksdb::Iterator> iterator_;
};

// Thread-safe.
class Database {
 public:
  // Opens or creates; checks the format. Errors as of Store::Open.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const StoreOptions& options);

  // The payload under `key`. NOT_FOUND; DATA_LOSS. `what` names it in messages. As of `snapshot` if there is one.
  absl::StatusOr<std::string> Get(Family family, absl::string_view key, absl::string_view what,
                                  const Snapshot* snapshot = nullptr) const;
  // Like Get, for a message. DATA_LOSS also if the payload is no such message.
  absl::Status GetMessage(Family family, absl::string_view key, absl::string_view what,
                          google::protobuf::MessageLite* message, const Snapshot* snapshot = nullptr) const;
  // Payloads in the order of the keys, each with an error of its own. what[i] names key i.
  std::vector<absl::StatusOr<std::string>> MultiGet(Family family, absl::Span<const std::string> keys,
                                                    absl::Span<const std::string> what,
                                                    const Snapshot* snapshot = nullptr) const;
  // Is there such a key? For families with small values only: reads the value.
  absl::StatusOr<bool> Has(Family family, absl::string_view key, const Snapshot* snapshot = nullptr) const;

  // All keys with the prefix; stands on the first one.
  std::unique_ptr<Scan> NewScan(Family family, absl::string_view prefix, const Snapshot* snapshot = nullptr) const;

  // The same, without the keys before `begin` and from `end` on. Where values are big, what is left out is not read.
  std::unique_ptr<Scan> NewScanBetween(Family family, absl::string_view prefix, absl::string_view begin,
                                       absl::string_view end, const Snapshot* snapshot = nullptr) const;

  // What is read with it is of one moment.
  std::unique_ptr<Snapshot> NewSnapshot() const { return std::make_unique<Snapshot>(instance()); }

  // A batch that needs room is refused when the disk is nearly full; one that makes room is tried in any case.
  enum class Room { kNeeds, kMakes };
  // Carries out the batch: durable as the store's options say. RESOURCE_EXHAUSTED; UNAVAILABLE. The caller holds no
  // scan and no snapshot, for which it might wait.
  absl::Status Write(Batch* batch, Room room);
  // To be called before what a batch depends on is read: where a batch was refused because the disk was full, goes on
  // if there is space again. True when it did: then the refused batch may have been applied after all. One writer at a
  // time.
  bool Recover();

  // Compacts every family and takes all garbage out of the blob files.
  absl::Status Compact();

  absl::StatusOr<uint64_t> FreeBytes() const;
  uint64_t UsedBytes() const;
  // Of what is on disk.
  uint32_t format_version() const { return format_version_; }
  // The error of the last write, if it failed.
  absl::Status write_error() const;

  // What is open now; waits while it is opened anew.
  std::shared_ptr<const Instance> instance() const;

 private:
  explicit Database(const StoreOptions& options);

  // Refuses a newer format before anything is changed.
  absl::Status CheckFormatOnDisk() const;
  // The same with the lock held.
  absl::Status ReadFormatOnDisk() const;
  absl::Status InitializeFormat();
  absl::Status CreateFormat(const Instance& instance);
  absl::Status CheckFreeSpace() const;
  bool refused() const;
  // Closes what is open, in which RocksDB refuses to write since the disk was full, and opens it anew. Waits for those
  // who read; false when they take too long, or when there is no space to write out what is in memory.
  bool Reopen();
  std::shared_ptr<const Instance> OpenAgain() const;
  bool CanFlush(const Instance& instance) const;

  const StoreOptions options_;
  rocksdb::Env* const env_;
  rocksdb::WriteOptions write_options_;
  std::atomic<uint32_t> format_version_ = 0;

  mutable absl::Mutex mutex_;
  std::shared_ptr<const Instance> instance_ ABSL_GUARDED_BY(mutex_);  // null while it is opened anew
  absl::Status write_error_ ABSL_GUARDED_BY(mutex_);
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;  // a batch, since the instance was opened
  absl::Time reopen_after_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_DATABASE_H_
