#include "server/scheduler/session_table.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quicksave::server {
namespace {

// A session that could not be parked, mostly because the disk is full, is left alone for so long.
constexpr absl::Duration kParkAgain = absl::Seconds(5);
constexpr char kDeleted[] = "the session was deleted";

// What others may begin with: K and V that are a pure function of the token ids.
bool MayBeShared(const engine::Sequence& sequence) {
  return sequence.length() >= engine::cpu::kPageTokens && sequence.lossy_tokens() == 0;
}

std::string NewId() {
  constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789";
  thread_local absl::BitGen random;
  std::string id;
  for (int i = 0; i < 12; ++i) id += kAlphabet[absl::Uniform(random, 0u, sizeof(kAlphabet) - 1)];
  return id;
}

}  // namespace

absl::StatusOr<absl::Duration> SessionTable::CheckLease(absl::Duration lease) const {
  if (lease == absl::ZeroDuration()) return options_.default_lease;
  if (lease < absl::ZeroDuration() || lease > options_.max_lease) {
    return absl::InvalidArgumentError(absl::StrCat("lease is ", absl::FormatDuration(lease),
                                                   "; it must be positive and at most max_lease, ",
                                                   absl::FormatDuration(options_.max_lease)));
  }
  return lease;
}

absl::StatusOr<std::vector<SessionInfo>> SessionTable::Add(std::vector<SessionState> states, absl::Duration lease) {
  return AddAll(std::move(states), lease, /*running=*/false);
}

absl::StatusOr<std::vector<SessionInfo>> SessionTable::AddAll(std::vector<SessionState> states, absl::Duration lease,
                                                              bool running) {
  const absl::Time now = absl::Now();
  std::vector<SessionInfo> added;
  absl::MutexLock lock(&mutex_);
  if (entries_.size() + states.size() > static_cast<size_t>(options_.max_sessions)) {
    return absl::ResourceExhaustedError(absl::StrCat("max_sessions: ", entries_.size(), " of ", options_.max_sessions,
                                                     " sessions are live and ", states.size(),
                                                     " more were asked for; delete some or let their leases end"));
  }
  for (SessionState& state : states) {
    std::string id = NewId();
    Entry entry{
        .number = ++last_number_, .state = std::move(state), .running = running, .lease = lease, .create_time = now};
    Renew(entry);
    by_number_[entry.number] = id;
    added.push_back(Describe(id, entry));
    entries_.emplace(std::move(id), std::move(entry));
  }
  return added;
}

absl::StatusOr<SessionInfo> SessionTable::Info(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<Entry*> entry = Find(id);
  if (!entry.ok()) return entry.status();
  return Describe(id, **entry);
}

std::vector<SessionInfo> SessionTable::List(uint64_t after, size_t limit, uint64_t& last) {
  std::vector<SessionInfo> sessions;
  absl::MutexLock lock(&mutex_);
  auto it = by_number_.upper_bound(after);
  for (; it != by_number_.end() && sessions.size() < limit; ++it) {
    sessions.push_back(Describe(it->second, entries_.at(it->second)));
    last = it->first;
  }
  if (it == by_number_.end()) last = 0;
  return sessions;
}

absl::StatusOr<SessionInfo> SessionTable::AddTaken(const SessionState& state, absl::Duration lease) {
  SessionState rest = {.sampling = state.sampling,
                       .taps = state.taps.WithoutValues(),
                       .origin = state.origin,
                       .origin_tokens = state.origin_tokens};
  std::vector<SessionState> states = {std::move(rest)};
  absl::StatusOr<std::vector<SessionInfo>> added = AddAll(std::move(states), lease, /*running=*/true);
  if (!added.ok()) return added.status();
  return std::move(added->front());
}

absl::StatusOr<TakenSession> SessionTable::Capture(const std::string& id, const CallContext& call, Growth growth) {
  TakenSession taken;
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<Entry*> entry = FindInMemory(id, call, growth, taken.pages);
    if (!entry.ok()) return entry.status();
    Renew(**entry);
    taken.state = (*entry)->state;
    if (!(*entry)->running) return taken;
  }
  absl::Status status;
  scheduler_->AtStepBoundary([&] {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<Entry*> entry = Find(id);
    if (!entry.ok()) {
      status = entry.status();
    } else if (!(*entry)->running && (*entry)->parked_as.empty()) {
      taken.state = (*entry)->state;
    } else if ((*entry)->job == nullptr) {
      status = absl::UnavailableError(absl::StrCat("sessions/", id, " is just starting or ending; try again"));
    } else {
      taken.state = (*entry)->job->Capture();
      taken.state.origin = (*entry)->state.origin;
      taken.state.origin_tokens = (*entry)->state.origin_tokens;
    }
  });
  if (!status.ok()) return status;
  return taken;
}

absl::StatusOr<TakenSession> SessionTable::Take(const std::string& id, std::optional<absl::Duration> lease,
                                                const CallContext& call, Growth growth) {
  TakenSession taken;
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<Entry*> found = Find(id);
  // Looked at before and after the wait for memory.
  if (found.ok() && !(*found)->running) found = FindInMemory(id, call, growth, taken.pages);
  if (!found.ok()) return found.status();
  Entry& entry = **found;
  if (entry.running) {
    return absl::FailedPreconditionError(absl::StrCat(
        "sessions/", id, " is generating for another call; wait for that call, cancel it, or branch the session"));
  }
  entry.lease = lease.value_or(entry.lease);
  Renew(entry);
  entry.running = true;
  taken.state = std::move(entry.state);
  entry.state = {.sampling = taken.state.sampling,
                 .taps = taken.state.taps.WithoutValues(),
                 .origin = taken.state.origin,
                 .origin_tokens = taken.state.origin_tokens};
  return taken;
}

absl::StatusOr<SessionTable::Entry*> SessionTable::FindInMemory(const std::string& id, const CallContext& call,
                                                                Growth growth, engine::PageReservation& pages) {
  for (;;) {
    absl::StatusOr<Entry*> found = FindAtRest(id);
    if (!found.ok()) return found;
    Entry& entry = **found;
    const bool parked = !entry.parked_as.empty();
    const int length = parked ? entry.parked_tokens : Describe(id, entry).token_count;
    const int needed = (parked ? engine::PagesFor(length) : 0) + growth(length);
    if (needed <= pages.pages()) {
      if (!parked) return found;
      if (absl::Status status = Unpark(id, entry, pages); !status.ok()) return status;
      continue;
    }
    // Nobody waits for memory while holding some.
    ++entry.wanted;
    const uint64_t number = entry.number;
    mutex_.Unlock();
    pages = {};
    absl::StatusOr<engine::PageReservation> reservation = broker_->Reserve(needed, call);
    mutex_.Lock();
    found = Find(id);
    if (found.ok() && (*found)->number == number) --(*found)->wanted;
    if (!reservation.ok()) return reservation.status();
    pages = *std::move(reservation);
  }
}

absl::Status SessionTable::Unpark(const std::string& id, Entry& entry, engine::PageReservation& pages) {
  entry.moving = true;
  const std::string name = entry.parked_as;
  mutex_.Unlock();
  absl::StatusOr<ParkedState> parked = parker_->Unpark(name, pages);
  mutex_.Lock();
  const absl::StatusOr<Entry*> found = Find(id);
  // Delete has dropped what was parked.
  if (!found.ok()) return found.status();
  (*found)->moving = false;
  if (!parked.ok()) return parked.status();
  (*found)->state.sequence = std::move(parked->sequence);
  (*found)->state.taps = std::move(parked->taps);
  (*found)->parked_as.clear();
  --counters_.parked;
  ++counters_.unparkings;
  mutex_.Unlock();
  parker_->Drop(name);
  mutex_.Lock();
  return absl::OkStatus();
}

const std::string* SessionTable::Victim() const {
  const auto idle_since = [](const Entry& entry) { return entry.expire_time - entry.lease; };
  const absl::Time now = absl::Now();
  const std::string* victim = nullptr;
  const Entry* best = nullptr;
  for (const auto& [id, entry] : entries_) {
    const bool can_be = !entry.running && !entry.moving && entry.parked_as.empty() && entry.park_after <= now &&
                        entry.state.sequence.length() > 0 && entry.state.sequence.next_logits() != nullptr;
    if (!can_be) continue;
    const auto rank = [&](const Entry& some) { return std::pair(some.wanted > 0, idle_since(some)); };
    if (best != nullptr && rank(entry) >= rank(*best)) continue;
    victim = &id;
    best = &entry;
  }
  return victim;
}

bool SessionTable::MakeRoom() {
  {
    engine::Sequence dropped;  // destroyed outside of the lock
    absl::MutexLock lock(&mutex_);
    if (!ended_.empty()) {
      dropped = std::move(ended_.front());
      ended_.pop_front();
      return true;
    }
  }
  return parker_ != nullptr && ParkOne();
}

bool SessionTable::ParkOne() {
  SessionState state;  // destroyed outside of the lock, and before this returns
  absl::MutexLock lock(&mutex_);
  const std::string* const victim = Victim();
  if (victim == nullptr) return false;
  const std::string id = *victim;
  Entry& entry = entries_.at(id);
  entry.moving = true;
  state = entry.state;
  mutex_.Unlock();
  absl::StatusOr<std::string> name = parker_->Park(state);
  mutex_.Lock();
  const absl::StatusOr<Entry*> found = Find(id);
  if (!found.ok()) {
    mutex_.Unlock();
    if (name.ok()) parker_->Drop(*name);
    mutex_.Lock();
    return true;
  }
  (*found)->moving = false;
  if (!name.ok()) {
    (*found)->park_after = absl::Now() + kParkAgain;
    return false;
  }
  (*found)->parked_as = *std::move(name);
  (*found)->parked_tokens = state.sequence.length();
  (*found)->parked_taps = state.taps.extent();
  (*found)->state.sequence = engine::Sequence();
  (*found)->state.taps = engine::Taps();
  ++counters_.parked;
  ++counters_.parkings;
  return true;
}

void SessionTable::SetJob(const std::string& id, std::shared_ptr<GenerateJob> job) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) {
    job->Cancel(kDeleted);
  } else {
    it->second.job = std::move(job);
  }
}

void SessionTable::GiveBack(const std::string& id, SessionState state) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  Entry& entry = it->second;
  state.origin = std::move(entry.state.origin);
  state.origin_tokens = entry.state.origin_tokens;
  entry.state = std::move(state);
  entry.running = false;
  entry.job = nullptr;
  Renew(entry);
}

void SessionTable::SetOrigin(const std::string& id, std::shared_ptr<const Origin> origin, int tokens) {
  absl::MutexLock lock(&mutex_);
  const auto it = entries_.find(id);
  if (it == entries_.end()) return;
  it->second.state.origin = std::move(origin);
  it->second.state.origin_tokens = tokens;
}

absl::Status SessionTable::Delete(const std::string& id) {
  Entry removed;  // destroyed outside of the lock
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<Entry*> entry = Find(id);
    if (!entry.ok()) return entry.status();
    if ((*entry)->job != nullptr) (*entry)->job->Cancel(kDeleted);
    removed = Remove(entries_.find(id));
  }
  if (!removed.parked_as.empty()) parker_->Drop(removed.parked_as);
  return absl::OkStatus();
}

void SessionTable::End(const std::string& id) {
  Entry removed;  // destroyed outside of the lock
  engine::Sequence dropped;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return;
    removed = Remove(it);
  }
  if (!removed.parked_as.empty()) parker_->Drop(removed.parked_as);
  absl::MutexLock lock(&mutex_);
  if (!MayBeShared(removed.state.sequence) || options_.max_ended == 0) return;
  ended_.push_back(std::move(removed.state.sequence));
  if (static_cast<int>(ended_.size()) <= options_.max_ended) return;
  dropped = std::move(ended_.front());
  ended_.pop_front();
}

engine::Sequence SessionTable::SharedPrefix(absl::Span<const int32_t> tokens) {
  engine::Sequence best;
  absl::MutexLock lock(&mutex_);
  if (options_.max_ended == 0) return best;
  size_t longest = engine::cpu::kPageTokens - 1;
  const auto consider = [&](const engine::Sequence& sequence) {
    if (!MayBeShared(sequence)) return false;
    const std::vector<int32_t>& have = sequence.tokens();
    const size_t most = std::min(have.size(), tokens.size());
    if (most <= longest) return false;
    const size_t common = std::mismatch(have.begin(), have.begin() + most, tokens.begin()).first - have.begin();
    if (common <= longest) return false;
    longest = common;
    best = sequence;
    return true;
  };
  for (const auto& [id, entry] : entries_) {
    if (!entry.running && entry.parked_as.empty()) consider(entry.state.sequence);
  }
  auto used = ended_.end();
  for (auto it = ended_.begin(); it != ended_.end(); ++it) {
    if (consider(*it)) used = it;
  }
  if (used != ended_.end()) ended_.splice(ended_.end(), ended_, used);
  if (best.length() > 0) best.Truncate(static_cast<int>(longest));
  return best;
}

int SessionTable::RemoveExpired(absl::Time now) {
  std::vector<Entry> removed;  // destroyed outside of the lock
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = entries_.begin(); it != entries_.end();) {
      const Entry& entry = it->second;
      const auto next = std::next(it);
      if (!entry.running && !entry.moving && entry.wanted == 0 && entry.expire_time <= now) {
        removed.push_back(Remove(it));
      }
      it = next;
    }
  }
  for (const Entry& entry : removed) {
    if (!entry.parked_as.empty()) parker_->Drop(entry.parked_as);
  }
  return static_cast<int>(removed.size());
}

SessionTable::Entry SessionTable::Remove(std::map<std::string, Entry>::iterator it) {
  by_number_.erase(it->second.number);
  if (!it->second.parked_as.empty()) --counters_.parked;
  Entry removed = std::move(it->second);
  entries_.erase(it);
  return removed;
}

SessionTable::Counters SessionTable::counters() const {
  absl::MutexLock lock(&mutex_);
  Counters counters = counters_;
  for (const auto& [id, entry] : entries_) {
    if (entry.parked_as.empty()) counters.tap_bytes += Describe(id, entry).taps.bytes();
  }
  return counters;
}

int SessionTable::size() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(entries_.size());
}

absl::StatusOr<SessionTable::Entry*> SessionTable::Find(const std::string& id) {
  const auto it = entries_.find(id);
  if (it == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat("sessions/", id, " does not exist; it may have ended with its lease or with the server"));
  }
  return &it->second;
}

absl::StatusOr<SessionTable::Entry*> SessionTable::FindAtRest(const std::string& id) {
  const auto at_rest = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto it = entries_.find(id);
    return it == entries_.end() || !it->second.moving;
  };
  mutex_.Await(absl::Condition(&at_rest));
  return Find(id);
}

SessionInfo SessionTable::Describe(const std::string& id, const Entry& entry) {
  SessionInfo info{.id = id,
                   .token_count = entry.state.sequence.length(),
                   .pages = static_cast<int>(entry.state.sequence.pages().size()),
                   .node_tokens = entry.state.origin_tokens,
                   .sampling = entry.state.sampling,
                   .taps = entry.state.taps.extent(),
                   .create_time = entry.create_time,
                   .expire_time = entry.expire_time};
  if (entry.job != nullptr) {
    info.token_count = entry.job->length();
    info.pages = engine::PagesFor(info.token_count);
    info.taps = entry.job->tap_extent();
  }
  if (!entry.parked_as.empty()) {
    info.parked = true;
    info.token_count = entry.parked_tokens;
    info.taps = entry.parked_taps;
  }
  if (entry.state.origin != nullptr) info.node_id = entry.state.origin->node_id;
  return info;
}

void SessionTable::Renew(Entry& entry) { entry.expire_time = absl::Now() + entry.lease; }

}  // namespace quicksave::server
