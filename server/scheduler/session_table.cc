#include "server/scheduler/session_table.h"

#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quicksave::server {
namespace {

constexpr char kDeleted[] = "the session was deleted";

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
    Entry entry{.number = ++last_number_, .state = std::move(state), .lease = lease, .create_time = now};
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

absl::StatusOr<SessionState> SessionTable::Capture(const std::string& id) {
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<Entry*> entry = Find(id);
    if (!entry.ok()) return entry.status();
    Renew(**entry);
    if (!(*entry)->running) return (*entry)->state;
  }
  absl::StatusOr<SessionState> captured = absl::UnavailableError("");
  scheduler_->AtStepBoundary([&] {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<Entry*> entry = Find(id);
    if (!entry.ok()) {
      captured = entry.status();
      return;
    }
    if (!(*entry)->running) {
      captured = (*entry)->state;
    } else if ((*entry)->job == nullptr) {
      captured = absl::UnavailableError(absl::StrCat("sessions/", id, " is just starting to generate; try again"));
    } else {
      captured = (*entry)->job->Capture();
      captured->origin = (*entry)->state.origin;
      captured->origin_tokens = (*entry)->state.origin_tokens;
    }
  });
  return captured;
}

absl::StatusOr<SessionState> SessionTable::Take(const std::string& id, std::optional<absl::Duration> lease) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<Entry*> found = Find(id);
  if (!found.ok()) return found.status();
  Entry& entry = **found;
  if (entry.running) {
    return absl::FailedPreconditionError(absl::StrCat(
        "sessions/", id, " is generating for another call; wait for that call, cancel it, or branch the session"));
  }
  entry.lease = lease.value_or(entry.lease);
  Renew(entry);
  entry.running = true;
  SessionState state = std::move(entry.state);
  entry.state = {.sampling = state.sampling, .origin = state.origin, .origin_tokens = state.origin_tokens};
  return state;
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
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<Entry*> entry = Find(id);
  if (!entry.ok()) return entry.status();
  if ((*entry)->job != nullptr) (*entry)->job->Cancel(kDeleted);
  by_number_.erase((*entry)->number);
  removed = std::move(**entry);
  entries_.erase(id);
  return absl::OkStatus();
}

int SessionTable::RemoveExpired(absl::Time now) {
  std::vector<Entry> removed;  // destroyed outside of the lock
  absl::MutexLock lock(&mutex_);
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->second.running || it->second.expire_time > now) {
      ++it;
      continue;
    }
    by_number_.erase(it->second.number);
    removed.push_back(std::move(it->second));
    it = entries_.erase(it);
  }
  return static_cast<int>(removed.size());
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

SessionInfo SessionTable::Describe(const std::string& id, const Entry& entry) {
  SessionInfo info{.id = id,
                   .token_count = entry.state.sequence.length(),
                   .pages = static_cast<int>(entry.state.sequence.pages().size()),
                   .node_tokens = entry.state.origin_tokens,
                   .sampling = entry.state.sampling,
                   .create_time = entry.create_time,
                   .expire_time = entry.expire_time};
  if (entry.job != nullptr) {
    info.token_count = entry.job->length();
    info.pages = engine::PagesFor(info.token_count);
  }
  if (entry.state.origin != nullptr) info.node_id = entry.state.origin->node_id;
  return info;
}

void SessionTable::Renew(Entry& entry) { entry.expire_time = absl::Now() + entry.lease; }

}  // namespace quicksave::server
