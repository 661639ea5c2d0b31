// Which blocks deletes must spare because a commit in the making counts on them.
#ifndef QUICKSAVE_STORAGE_BLOCK_PINS_H_
#define QUICKSAVE_STORAGE_BLOCK_PINS_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

namespace quicksave::storage {

// Counts pins by block key. Thread-safe.
class BlockPinTable {
 public:
  void Add(absl::Span<const std::string> keys);
  // Takes back what Add added.
  void Remove(absl::Span<const std::string> keys);
  bool Contains(absl::string_view key) const;

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, int> counts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_BLOCK_PINS_H_
