#ifndef QUICKSAVE_SERVER_SCHEDULER_SESSION_TABLE_H_
#define QUICKSAVE_SERVER_SCHEDULER_SESSION_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/scheduler/generate_job.h"
#include "server/scheduler/scheduler.h"
#include "server/scheduler/session_state.h"

namespace quicksave::server {

// What is known of a session without looking into its state.
struct SessionInfo {
  std::string id;  // without "sessions/"
  int token_count = 0;
  int pages = 0;
  std::string node_id;  // empty without one
  int node_tokens = 0;  // tokens in common with it
  engine::SamplingParameters sampling;
  absl::Time create_time;
  absl::Time expire_time;
};

// All live sessions. A session is idle, its state here, or running, its state with one GenerateJob. Thread-safe.
class SessionTable {
 public:
  struct Options {
    int max_sessions = 64;
    absl::Duration default_lease = absl::Minutes(10);
    absl::Duration max_lease = absl::Hours(24);
  };
  SessionTable(const Options& options, Scheduler* scheduler) : options_(options), scheduler_(scheduler) {}

  // The lease to use for what a caller asked for; the default when that is zero. INVALID_ARGUMENT, naming max_lease,
  // when it is negative or too long.
  absl::StatusOr<absl::Duration> CheckLease(absl::Duration lease) const;

  // Adds idle sessions, all or none. RESOURCE_EXHAUSTED, naming max_sessions, when there are too many.
  absl::StatusOr<std::vector<SessionInfo>> Add(std::vector<SessionState> states, absl::Duration lease);

  // NOT_FOUND when there is no such session, here and below.
  absl::StatusOr<SessionInfo> Info(const std::string& id);
  // Sessions made after `after` (0: all), oldest first, at most `limit`; `last` becomes the number to go on after, 0 at
  // the end.
  std::vector<SessionInfo> List(uint64_t after, size_t limit, uint64_t& last);

  // A copy of the state, O(1); of a running session as of a step boundary. Renews the lease. Not on the engine thread.
  absl::StatusOr<SessionState> Capture(const std::string& id);

  // Takes the state of an idle session for a job. Renews the lease, which becomes `lease` when that is set.
  // FAILED_PRECONDITION when it is running.
  absl::StatusOr<SessionState> Take(const std::string& id, std::optional<absl::Duration> lease = std::nullopt);
  // Names the job that has the state, so that it can be captured and cancelled.
  void SetJob(const std::string& id, std::shared_ptr<GenerateJob> job);
  // Gives the state back; it is dropped when the session was deleted meanwhile.
  void GiveBack(const std::string& id, SessionState state);

  // Notes that the session's first `tokens` tokens are now stored as a node.
  void SetOrigin(const std::string& id, std::shared_ptr<const Origin> origin, int tokens);

  // Removes a session and cancels its job, whose caller is told why.
  absl::Status Delete(const std::string& id);
  // Removes idle sessions whose lease has ended; returns how many.
  int RemoveExpired(absl::Time now);

  int size() const;
  const Options& options() const { return options_; }

 private:
  struct Entry {
    uint64_t number = 0;  // in order of creation
    SessionState state;   // without sequence and text while running
    bool running = false;
    std::shared_ptr<GenerateJob> job;  // null while idle, or until SetJob
    absl::Duration lease;
    absl::Time create_time;
    absl::Time expire_time;
  };

  absl::StatusOr<Entry*> Find(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static SessionInfo Describe(const std::string& id, const Entry& entry);
  static void Renew(Entry& entry);

  const Options options_;
  Scheduler* const scheduler_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::string> by_number_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_SESSION_TABLE_H_
