#ifndef QUICKSAVE_SERVER_SCHEDULER_SESSION_TABLE_H_
#define QUICKSAVE_SERVER_SCHEDULER_SESSION_TABLE_H_

#include <algorithm>
#include <cstdint>
#include <list>
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
#include "absl/types/span.h"
#include "server/scheduler/call_context.h"
#include "server/scheduler/generate_job.h"
#include "server/scheduler/page_broker.h"
#include "server/scheduler/scheduler.h"
#include "server/scheduler/session_state.h"
#include "server/scheduler/state_parker.h"

namespace quicksave::server {

// What is known of a session without looking into its state.
struct SessionInfo {
  std::string id;  // without "sessions/"
  int token_count = 0;
  int pages = 0;
  bool parked = false;  // its K and V are stored, not in memory
  std::string node_id;  // empty without one
  int node_tokens = 0;  // tokens in common with it
  engine::SamplingParameters sampling;
  engine::TapExtent taps;
  absl::Time create_time;
  absl::Time expire_time;
};

// A session's state, and pages for what is to be appended to it.
struct TakenSession {
  SessionState state;
  engine::PageReservation pages;
};

// Pages that a sequence of `length` tokens needs to become `appended` longer, whatever it shares.
inline int PagesToGrow(int length, int appended) {
  // The last page may have to be copied, and the last token may have to be fed again.
  return engine::PagesFor(length + appended) - std::max(0, length - 1) / engine::cpu::kPageTokens;
}

// All live sessions. A session is idle, its state here; running, its state with one GenerateJob; or parked, its state
// with the parker, because others needed the memory. A parked one comes back by itself when it is asked for.
// Thread-safe.
class SessionTable {
 public:
  struct Options {
    int max_sessions = 1024;
    absl::Duration default_lease = absl::Minutes(10);
    absl::Duration max_lease = absl::Hours(24);
    // Ended sessions whose sequences are kept for the prompts that begin like them; 0: none.
    int max_ended = 256;
  };
  struct Counters {
    int parked = 0;          // sessions that are parked now
    int64_t parkings = 0;    // since the start
    int64_t unparkings = 0;  // since the start
    int64_t tap_bytes = 0;   // of hidden states in memory
  };
  // How many pages to reserve for what is to be done with a sequence of a length.
  using Growth = absl::FunctionRef<int(int length)>;

  // Without a parker, sessions stay in memory. What is given must outlive the table.
  SessionTable(const Options& options, Scheduler* scheduler, PageBroker* broker, StateParker* parker = nullptr)
      : options_(options), scheduler_(scheduler), broker_(broker), parker_(parker) {}

  // The lease to use for what a caller asked for; the default when that is zero. INVALID_ARGUMENT, naming max_lease,
  // when it is negative or too long.
  absl::StatusOr<absl::Duration> CheckLease(absl::Duration lease) const;

  // Adds idle sessions, all or none. RESOURCE_EXHAUSTED, naming max_sessions, when there are too many.
  absl::StatusOr<std::vector<SessionInfo>> Add(std::vector<SessionState> states, absl::Duration lease);
  // Adds a session as if it was added and taken.
  absl::StatusOr<SessionInfo> AddTaken(const SessionState& state, absl::Duration lease);

  // NOT_FOUND when there is no such session, here and below.
  absl::StatusOr<SessionInfo> Info(const std::string& id);
  // Sessions made after `after` (0: all), oldest first, at most `limit`; `last` becomes the number to go on after, 0 at
  // the end.
  std::vector<SessionInfo> List(uint64_t after, size_t limit, uint64_t& last);

  // A copy of the state, O(1) unless it is parked; of a running session as of a step boundary. With pages for `growth`.
  // Renews the lease. Errors of PageBroker::Reserve and of the parker. Not on the engine thread.
  absl::StatusOr<TakenSession> Capture(const std::string& id, const CallContext& call, Growth growth);

  // Takes the state of an idle session for a job, with pages for `growth`. Renews the lease, which becomes `lease` when
  // that is set. FAILED_PRECONDITION when it is running; errors of PageBroker::Reserve and of the parker.
  absl::StatusOr<TakenSession> Take(const std::string& id, std::optional<absl::Duration> lease, const CallContext& call,
                                    Growth growth);
  // Names the job that has the state, so that it can be captured and cancelled.
  void SetJob(const std::string& id, std::shared_ptr<GenerateJob> job);
  // Gives the state back; it is dropped when the session was deleted meanwhile.
  void GiveBack(const std::string& id, SessionState state);

  // Notes that the session's first `tokens` tokens are now stored as a node.
  void SetOrigin(const std::string& id, std::shared_ptr<const Origin> origin, int tokens);

  // Removes a session and cancels its job, whose caller is told why.
  absl::Status Delete(const std::string& id);
  // Ends an idle session that nobody will ask for; its sequence is kept for a while, for SharedPrefix.
  void End(const std::string& id);
  // The longest beginning of `tokens`, of a page at least, that some sequence in memory has in common with them: of an
  // idle session or an ended one, unless it has lossy tokens. Shares its pages; with next-token logits if it ends where
  // that sequence ends. Empty without one.
  engine::Sequence SharedPrefix(absl::Span<const int32_t> tokens);
  // Removes idle sessions whose lease has ended; returns how many.
  int RemoveExpired(absl::Time now);

  // Drops the ended session, or else parks the idle one, that was left alone for longest; for
  // PageBroker::set_make_room. Whether there was one.
  bool MakeRoom();

  int size() const;
  Counters counters() const;
  const Options& options() const { return options_; }

 private:
  struct Entry {
    uint64_t number = 0;  // in order of creation
    SessionState state;   // without sequence and text while running
    bool running = false;
    std::shared_ptr<GenerateJob> job;  // null while idle, or until SetJob
    std::string parked_as;             // the parker's name; empty when in memory
    int parked_tokens = 0;
    engine::TapExtent parked_taps;
    bool moving = false;                           // being parked or brought back
    absl::Time park_after = absl::InfinitePast();  // parking it failed, and is not tried again before
    int wanted = 0;                                // calls that wait for memory to work with it
    absl::Duration lease;
    absl::Time create_time;
    absl::Time expire_time;
  };

  absl::StatusOr<std::vector<SessionInfo>> AddAll(std::vector<SessionState> states, absl::Duration lease, bool running);
  absl::StatusOr<Entry*> Find(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until the session is neither being parked nor brought back.
  absl::StatusOr<Entry*> FindAtRest(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The session, in memory if it is idle, and pages for its growth. Lets go of the lock meanwhile.
  absl::StatusOr<Entry*> FindInMemory(const std::string& id, const CallContext& call, Growth growth,
                                      engine::PageReservation& pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Unpark(const std::string& id, Entry& entry, engine::PageReservation& pages)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes an entry out of the table.
  Entry Remove(std::map<std::string, Entry>::iterator it) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool ParkOne();
  // The idle session to park next.
  const std::string* Victim() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static SessionInfo Describe(const std::string& id, const Entry& entry);
  static void Renew(Entry& entry);

  const Options options_;
  Scheduler* const scheduler_;
  PageBroker* const broker_;
  StateParker* const parker_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::string> by_number_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<engine::Sequence> ended_ ABSL_GUARDED_BY(mutex_);  // the last used is last
  Counters counters_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_SESSION_TABLE_H_
