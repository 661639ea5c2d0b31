#ifndef QUICKSAVE_SERVER_SCHEDULER_SCHEDULER_H_
#define QUICKSAVE_SERVER_SCHEDULER_SCHEDULER_H_

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/model/decoder.h"
#include "server/engine/page_pool.h"
#include "server/scheduler/evaluate_job.h"
#include "server/scheduler/fair_shares.h"
#include "server/scheduler/job.h"

namespace quicksave::server {

// Runs jobs on the engine thread. Each step takes one token of every decoding job and a chunk of those that prefill,
// and puts them through the model in one forward pass (continuous batching: Yu et al., Orca, 2022; chunked prefill:
// Agrawal et al., Sarathi, 2023). Where there is more than a step takes, clients are served evenly; of one client's
// jobs, prefill goes first come, first served, and decode by turns. Thread-safe.
class Scheduler {
 public:
  struct Options {
    int max_jobs = 256;
    // Rows of a forward pass at most: of decode; of prefill when all are prefill, and when decode waits for them.
    int decode_rows = 64;
    int prefill_rows = 128;
    int mixed_prefill_rows = 24;
    // How long a job that needs a page more than was reserved sits out steps until there is one.
    absl::Duration longest_starvation = absl::Seconds(10);
    // Called on the engine thread when a job lacks a page; must not block.
    std::function<void()> on_starvation = [] {};
  };
  struct Counters {
    int64_t steps = 0;
    int64_t decoded_tokens = 0;
    int64_t prefilled_tokens = 0;
    int active_jobs = 0;
    // Time of a row of prefill in the fastest step so far; infinite before the first.
    absl::Duration fastest_row = absl::InfiniteDuration();
  };

  // `decoder` and `pool` must outlive the scheduler; the decoder is used by the engine thread only.
  Scheduler(const Options& options, engine::Decoder* decoder, engine::PagePool* pool);
  // Ends all jobs with UNAVAILABLE.
  ~Scheduler();

  // Starts a job that will append at most `tokens` tokens; pages that its reservation lacks are reserved.
  // RESOURCE_EXHAUSTED, and no Finish, when there are too many jobs or these pages are not free; UNAVAILABLE during
  // shutdown.
  absl::Status Submit(std::shared_ptr<Job> job, int tokens);

  // Submits and waits. Not on the engine thread.
  absl::Status Run(const std::shared_ptr<EvaluateJob>& job, int tokens);

  // Calls `action` on the engine thread between two steps and waits for it. Not on the engine thread.
  void AtStepBoundary(absl::FunctionRef<void()> action);

  // Ends all jobs with UNAVAILABLE and refuses new ones. AtStepBoundary goes on to work.
  void Shutdown();

  Counters counters() const;

 private:
  struct Boundary {
    absl::FunctionRef<void()> action;
    bool done = false;
  };
  struct Fed {
    std::shared_ptr<Job> job;
    Job::Feed feed;
    std::vector<std::byte*> pages;
    int position;
    absl::Span<const int> tap_layers = {};
    std::vector<float*> tap_rows = {};
  };

  void Loop();
  void RunBoundaries();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One forward pass; false when no job had anything to feed.
  bool Step();
  // Ends those that must end, and removes them from `jobs`.
  void EndJobs(std::vector<std::shared_ptr<Job>>& jobs);
  // `rows` are what must be fed before the job's backlog is, with it, at the least, in rows of the whole model.
  absl::Status WhyEnd(const Job& job, int64_t rows) const;
  // The slices of one forward pass; sorts the parts as Decoder::Forward wants them.
  std::vector<engine::Slice> SlicesOf(std::vector<Fed>& fed) const;
  // Layers that a job's tokens go through as a whole.
  int WholeLayers(const Job& job) const { return job.split().value_or(decoder_->config().layers); }
  // What a row of a job takes of the engine's time, at most, in rows of the whole model.
  double RowCost(const Job& job) const;
  // Fills a step with rows of decode, then of prefill. Returns how many are decode.
  int FeedJobs(std::vector<std::shared_ptr<Job>> jobs, std::vector<Fed>& fed);
  // Asks the job for at most `budget` tokens and appends them to its sequence; returns how many. None when the job has
  // ended or lacks memory.
  int FeedJob(const std::shared_ptr<Job>& job, int budget, std::vector<Fed>& fed);
  // Keeps what a job wants to feed until there is a page for it; ends the job when that takes too long.
  void Starve(const std::shared_ptr<Job>& job, const Job::Feed& feed, const absl::Status& why);
  void Remove(const std::shared_ptr<Job>& job, const absl::Status& status);

  const Options options_;
  engine::Decoder* const decoder_;
  engine::PagePool* const pool_;

  // The engine thread's.
  FairShares shares_;
  int64_t step_ = 0;
  // Time of a row of prefill in the fastest step so far; infinite before the first.
  absl::Duration fastest_row_ = absl::InfiniteDuration();

  mutable absl::Mutex mutex_;
  std::list<std::shared_ptr<Job>> jobs_ ABSL_GUARDED_BY(mutex_);
  std::list<Boundary*> boundaries_ ABSL_GUARDED_BY(mutex_);
  bool shutdown_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  Counters counters_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_SCHEDULER_H_
