#include "storage/writer_state.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace quicksave::storage {
namespace {

constexpr absl::string_view kUsageKey = "usage";

uint64_t Without(uint64_t total, uint64_t part) { return total - std::min(total, part); }

}  // namespace

void SubtractBlock(const v1::BlockEntry& entry, v1::UsageEntry* usage) {
  usage->set_blocks(Without(usage->blocks(), 1));
  usage->set_block_raw_bytes(Without(usage->block_raw_bytes(), entry.raw_bytes()));
  usage->set_block_stored_bytes(Without(usage->block_stored_bytes(), entry.stored_bytes()));
}

WriterState::WriterState(Database* db, std::function<absl::Time()> time_source)
    : database(db), clock(time_source ? std::move(time_source) : absl::Now) {}

absl::Status WriterState::Begin() {
  if (database->Recover()) usage_is_known = false;
  if (usage_is_known) return absl::OkStatus();
  v1::UsageEntry read;
  absl::Status status = database->GetMessage(Family::kDefault, kUsageKey, "totals of the store", &read);
  if (!status.ok() && !absl::IsNotFound(status)) return status;
  usage = std::move(read);
  usage_is_known = true;
  return absl::OkStatus();
}

v1::UsageEntry WriterState::Totals() {
  absl::MutexLock lock(&mutex);
  return usage;
}

int64_t WriterState::NextTimeUs() {
  last_time_us = std::max(last_time_us + 1, absl::ToUnixMicros(clock()));
  return last_time_us;
}

absl::Status WriterState::Write(Batch* batch, const v1::UsageEntry& new_usage, Database::Room room) {
  batch->PutMessage(Family::kDefault, kUsageKey, new_usage);
  absl::Status status = database->Write(batch, room);
  if (status.ok()) usage = new_usage;
  return status;
}

}  // namespace quicksave::storage
