// One opening of RocksDB.
#ifndef QUICKSAVE_STORAGE_INSTANCE_H_
#define QUICKSAVE_STORAGE_INSTANCE_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "rocksdb/db.h"
#include "storage/rocksdb_options.h"
#include "storage/store.h"

namespace quicksave::storage {

// RocksDB and its column families, open until the last owner lets go. Thread-safe.
class Instance {
 public:
  // Opens or creates. FAILED_PRECONDITION: somebody has it open; RESOURCE_EXHAUSTED; UNAVAILABLE; DATA_LOSS.
  static absl::StatusOr<std::shared_ptr<const Instance>> Open(const StoreOptions& options);
  ~Instance();

  rocksdb::DB* db() const { return db_.get(); }
  const std::vector<rocksdb::ColumnFamilyHandle*>& handles() const { return handles_; }
  rocksdb::ColumnFamilyHandle* handle(Family family) const { return handles_[static_cast<size_t>(family)]; }

 private:
  Instance() = default;

  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
};

// What is read with it is of one moment.
class Snapshot {
 public:
  explicit Snapshot(std::shared_ptr<const Instance> instance)
      : instance_(std::move(instance)), snapshot_(instance_->db()->GetSnapshot()) {}
  ~Snapshot() { instance_->db()->ReleaseSnapshot(snapshot_); }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  const std::shared_ptr<const Instance>& instance() const { return instance_; }
  const rocksdb::Snapshot* get() const { return snapshot_; }

 private:
  const std::shared_ptr<const Instance> instance_;
  const rocksdb::Snapshot* const snapshot_;
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_INSTANCE_H_
