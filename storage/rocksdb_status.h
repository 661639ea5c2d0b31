// The one place where a RocksDB status becomes ours.
#ifndef QUICKSAVE_STORAGE_ROCKSDB_STATUS_H_
#define QUICKSAVE_STORAGE_ROCKSDB_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "rocksdb/status.h"

namespace quicksave::storage {

// `what` names the resource and leads the message.
//   NotFound -> NOT_FOUND. Corruption, a missing file -> DATA_LOSS. No space, memory limit -> RESOURCE_EXHAUSTED.
//   The lock is held, permission denied -> FAILED_PRECONDITION. Other I/O errors, shutdown -> UNAVAILABLE. Everything
//   else -> INTERNAL.
absl::Status FromRocksDb(const rocksdb::Status& status, absl::string_view what);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_ROCKSDB_STATUS_H_
