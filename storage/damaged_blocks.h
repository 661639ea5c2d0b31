// Which stored blocks were found to be damaged, so that the next commit that brings their bytes writes them anew.
#ifndef QUICKSAVE_STORAGE_DAMAGED_BLOCKS_H_
#define QUICKSAVE_STORAGE_DAMAGED_BLOCKS_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace quicksave::storage {

// Block keys, in memory only: after a restart damage is found again by the next read. Thread-safe.
class DamagedBlocks {
 public:
  void Add(absl::string_view key) {
    absl::MutexLock lock(&mutex_);
    keys_.emplace(key);
  }
  void Remove(absl::string_view key) {
    absl::MutexLock lock(&mutex_);
    keys_.erase(key);
  }
  bool Contains(absl::string_view key) const {
    absl::MutexLock lock(&mutex_);
    return keys_.contains(key);
  }

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_set<std::string> keys_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_DAMAGED_BLOCKS_H_
