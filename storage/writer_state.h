// What all writers of a store share: its database, the lock that puts them in order, and what must change in step with
// the database.
#ifndef QUICKSAVE_STORAGE_WRITER_STATE_H_
#define QUICKSAVE_STORAGE_WRITER_STATE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "quicksave/storage/v1/entries.pb.h"
#include "storage/block_pins.h"
#include "storage/damaged_blocks.h"
#include "storage/database.h"

namespace quicksave::storage {

// Takes a block out of the totals, which end at 0: what damage made unreadable may have been counted otherwise.
void SubtractBlock(const v1::BlockEntry& entry, v1::UsageEntry* usage);

struct WriterState {
  WriterState(Database* db, std::function<absl::Time()> time_source);

  // To be called first by everyone who writes, and once when the store is opened: goes on after a full disk, and reads
  // the totals if they may be other ones.
  absl::Status Begin() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  // The totals as of now.
  v1::UsageEntry Totals() ABSL_LOCKS_EXCLUDED(mutex);

  // Microseconds since the Unix epoch; later than every time it has given before.
  int64_t NextTimeUs() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  // Adds the new totals to the batch, writes it, and takes the totals over if that succeeded.
  absl::Status Write(Batch* batch, const v1::UsageEntry& new_usage, Database::Room room)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  Database* const database;
  const std::function<absl::Time()> clock;
  const std::shared_ptr<BlockPinTable> pins = std::make_shared<BlockPinTable>();
  DamagedBlocks damaged;

  absl::Mutex mutex;
  v1::UsageEntry usage ABSL_GUARDED_BY(mutex);
  bool usage_is_known ABSL_GUARDED_BY(mutex) = false;
  int64_t last_time_us ABSL_GUARDED_BY(mutex) = 0;
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_WRITER_STATE_H_
