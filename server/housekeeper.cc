#include "server/housekeeper.h"

#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/service/admin_handlers.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

constexpr absl::Duration kLeaseInterval = absl::Seconds(1);
constexpr absl::Duration kRequestInterval = absl::Hours(1);

void CollectGarbage(storage::Store& store) {
  const absl::StatusOr<storage::GarbageReport> garbage = store.CollectGarbage();
  if (!garbage.ok()) {
    LogEvent(spdlog::level::warn, "cannot collect garbage", {{"error", std::string(garbage.status().message())}});
  } else if (garbage->blocks > 0) {
    LogEvent(
        spdlog::level::info, "garbage collected",
        {{"blocks", static_cast<int64_t>(garbage->blocks)}, {"bytes", static_cast<int64_t>(garbage->stored_bytes)}});
  }
}

void ForgetOldRequests(storage::Store& store) {
  const absl::StatusOr<uint64_t> forgotten = store.ForgetRequests(absl::Now() - kRequestMemory);
  if (!forgotten.ok()) {
    LogEvent(spdlog::level::warn, "cannot forget old request ids",
             {{"error", std::string(forgotten.status().message())}});
  }
}

}  // namespace

void Housekeeper::Run() {
  // Blocks whose pins died with the process before, and what grew old meanwhile.
  CollectGarbage(*core_->store);
  ForgetOldRequests(*core_->store);
  absl::Time last_requests = absl::Now();
  while (!stopping_.WaitForNotificationWithTimeout(kLeaseInterval)) {
    const absl::Time now = absl::Now();
    if (const int expired = core_->sessions->RemoveExpired(now); expired > 0) {
      LogEvent(spdlog::level::info, "sessions expired", {{"count", int64_t{expired}}});
    }
    if (now - last_requests < kRequestInterval) continue;
    ForgetOldRequests(*core_->store);
    last_requests = now;
  }
}

}  // namespace quicksave::server
