#include "storage/instance.h"

#include "absl/strings/str_cat.h"
#include "storage/rocksdb_status.h"

namespace quicksave::storage {

absl::StatusOr<std::shared_ptr<const Instance>> Instance::Open(const StoreOptions& options) {
  auto instance = std::shared_ptr<Instance>(new Instance());
  rocksdb::DB* db = nullptr;
  const rocksdb::Status opened =
      rocksdb::DB::Open(DatabaseOptions(options), options.path, FamilyDescriptors(options), &instance->handles_, &db);
  if (!opened.ok()) return FromRocksDb(opened, absl::StrCat("store ", options.path));
  instance->db_.reset(db);
  return instance;
}

Instance::~Instance() {
  if (db_ == nullptr) return;
  // What is flushed need not be replayed. If it fails, the log still has everything.
  db_->Flush(rocksdb::FlushOptions(), handles_).PermitUncheckedError();
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  db_->Close().PermitUncheckedError();
}

}  // namespace quicksave::storage
