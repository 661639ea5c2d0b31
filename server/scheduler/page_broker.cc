#include "server/scheduler/page_broker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quicksave::server {
namespace {

constexpr int kMostHeadroom = 8;
// Pages are freed by many; who waits for them looks again after this.
constexpr absl::Duration kLook = absl::Milliseconds(5);

// OK while the caller waits.
absl::Status WhyNotWait(const CallContext& call) {
  if (call.cancelled()) return absl::CancelledError("the caller cancelled the call");
  if (absl::Now() <= call.deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("the call's deadline passed while it waited for KV memory");
}

}  // namespace

PageBroker::PageBroker(engine::PagePool* pool, absl::Duration longest_wait)
    : pool_(pool), longest_wait_(longest_wait), headroom_(std::min(kMostHeadroom, pool->total_pages() / 16)) {}

absl::StatusOr<engine::PageReservation> PageBroker::Reserve(int pages, const CallContext& call) {
  absl::MutexLock lock(&mutex_);
  if (pages > most_pages()) {
    ++counters_.refused;
    return absl::ResourceExhaustedError(
        absl::StrCat("kv_memory: ", pages, " pages of ", engine::cpu::kPageTokens, " tokens are needed, there are ",
                     most_pages(), " in all; ask for fewer tokens, or start the server with a larger --kv-memory"));
  }
  const uint64_t ticket = ++last_ticket_;
  line_.push_back(ticket);
  const auto is_first = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return line_.front() == ticket; };
  const absl::Time end = absl::Now() + longest_wait_;
  bool waited = false;
  absl::StatusOr<engine::PageReservation> reservation =
      absl::ResourceExhaustedError("kv_memory: other calls wait for it, too; try again later");
  while (!mutex_.AwaitWithTimeout(absl::Condition(&is_first), kLook)) {
    waited = true;
    absl::Status status = WhyNotWait(call);
    if (status.ok() && absl::Now() < end) continue;
    if (!status.ok()) reservation = std::move(status);
    break;
  }
  if (line_.front() == ticket) {
    mutex_.Unlock();
    reservation = Insist(pages, headroom_, call, end, waited);
    mutex_.Lock();
  }
  line_.erase(std::find(line_.begin(), line_.end(), ticket));
  if (waited) ++counters_.waited;
  if (absl::IsResourceExhausted(reservation.status())) ++counters_.refused;
  return reservation;
}

absl::StatusOr<engine::PageReservation> PageBroker::ReserveFew(int pages, const CallContext& call) {
  bool waited = false;
  return Insist(pages, 0, call, absl::Now() + longest_wait_, waited);
}

absl::StatusOr<engine::PageReservation> PageBroker::Insist(int pages, int spare, const CallContext& call,
                                                           absl::Time end, bool& waited) {
  for (;;) {
    absl::StatusOr<engine::PageReservation> reservation = TryReserve(pages, spare);
    if (reservation.ok()) return reservation;
    waited = true;
    if (absl::Status status = WhyNotWait(call); !status.ok()) return status;
    if (make_room_(pages + spare)) continue;
    if (absl::Now() >= end) return reservation;
    absl::SleepFor(kLook);
  }
}

absl::StatusOr<engine::PageReservation> PageBroker::TryReserve(int pages, int spare) {
  absl::StatusOr<engine::PageReservation> all = pool_->Reserve(pages + spare);
  if (!all.ok()) return all.status();
  // What must stay free goes back at once.
  return all->Split(pages);
}

PageBroker::Counters PageBroker::counters() const {
  absl::MutexLock lock(&mutex_);
  return counters_;
}

}  // namespace quicksave::server
