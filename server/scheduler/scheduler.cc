#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quicksave::server {

Scheduler::Scheduler(const Options& options, engine::Decoder* decoder, engine::PagePool* pool)
    : options_(options), decoder_(decoder), pool_(pool), thread_([this] { Loop(); }) {}

Scheduler::~Scheduler() {
  Shutdown();
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status Scheduler::Submit(std::shared_ptr<Job> job, int tokens) {
  // Declared first, so that what a refused job had reserved goes back outside of the lock.
  const int missing = job->sequence().PagesToAppend(tokens) - job->reservation.pages();
  absl::StatusOr<engine::PageReservation> reservation = pool_->Reserve(std::max(0, missing));
  if (!reservation.ok()) return reservation.status();
  absl::MutexLock lock(&mutex_);
  if (shutdown_) return absl::UnavailableError("the server is shutting down");
  if (static_cast<int>(jobs_.size()) >= options_.max_jobs) {
    return absl::ResourceExhaustedError(
        absl::StrCat("max_queued_requests: ", jobs_.size(), " calls compute or wait already; try again later"));
  }
  job->reservation.Add(*std::move(reservation));
  jobs_.push_back(std::move(job));
  return absl::OkStatus();
}

absl::Status Scheduler::Run(const std::shared_ptr<EvaluateJob>& job, int tokens) {
  if (absl::Status status = Submit(job, tokens); !status.ok()) return status;
  return job->Await();
}

void Scheduler::AtStepBoundary(absl::FunctionRef<void()> action) {
  Boundary boundary{action};
  absl::MutexLock lock(&mutex_);
  boundaries_.push_back(&boundary);
  mutex_.Await(absl::Condition(&boundary.done));
}

void Scheduler::Shutdown() {
  absl::MutexLock lock(&mutex_);
  shutdown_ = true;
}

Scheduler::Counters Scheduler::counters() const {
  absl::MutexLock lock(&mutex_);
  Counters counters = counters_;
  counters.active_jobs = static_cast<int>(jobs_.size());
  return counters;
}

bool Scheduler::HasWork() const { return stopping_ || !boundaries_.empty() || !jobs_.empty(); }

void Scheduler::Loop() {
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Scheduler::HasWork));
      if (stopping_ && jobs_.empty() && boundaries_.empty()) return;
    }
    RunBoundaries();
    if (!Step()) {
      // All jobs are paused: their readers are looked at again soon.
      absl::MutexLock lock(&mutex_);
      const auto boundary_or_stop = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !boundaries_.empty();
      };
      if (!jobs_.empty()) mutex_.AwaitWithTimeout(absl::Condition(&boundary_or_stop), absl::Milliseconds(2));
    }
  }
}

void Scheduler::RunBoundaries() {
  for (;;) {
    Boundary* boundary;
    {
      absl::MutexLock lock(&mutex_);
      if (boundaries_.empty()) return;
      boundary = boundaries_.front();
      boundaries_.pop_front();
    }
    boundary->action();
    absl::MutexLock lock(&mutex_);
    boundary->done = true;
  }
}

bool Scheduler::Step() {
  std::vector<std::shared_ptr<Job>> jobs;
  {
    absl::MutexLock lock(&mutex_);
    jobs.assign(jobs_.begin(), jobs_.end());
  }
  EndJobs(jobs);
  // A job that has ended is not looked at again: its listener may be gone.
  std::erase_if(jobs, [](const auto& job) { return job->paused(); });
  // Decoding jobs first; prefill takes what is left of the step, first come first served.
  std::stable_partition(jobs.begin(), jobs.end(), [](const auto& job) { return job->backlog() <= 1; });
  std::vector<Fed> fed;
  fed.reserve(jobs.size());
  int rows = 0;
  int decode_rows = 0;
  for (const std::shared_ptr<Job>& job : jobs) {
    const bool decoding = job->backlog() <= 1;
    const int limit = decode_rows == 0 ? options_.prefill_rows : decode_rows + options_.mixed_prefill_rows;
    const int budget = decoding ? 1 : limit - rows;
    if (budget <= 0) break;
    if (!FeedJob(job, budget, fed)) continue;
    rows += static_cast<int>(fed.back().feed.tokens.size());
    if (decoding) ++decode_rows;
  }
  if (fed.empty()) return false;

  std::vector<engine::Slice> slices;
  for (const Fed& part : fed) {
    slices.push_back({.tokens = part.feed.tokens,
                      .first_position = part.position,
                      .pages = part.pages,
                      .logits = part.feed.logits,
                      .taps = {part.tap_layers, part.tap_rows}});
  }
  absl::Span<const float> logits = decoder_->Forward(slices);
  const size_t vocabulary = decoder_->config().vocab_size;
  for (const Fed& part : fed) {
    const size_t wanted = part.feed.logits == engine::LogitsWanted::kAll    ? part.feed.tokens.size()
                          : part.feed.logits == engine::LogitsWanted::kLast ? 1
                                                                            : 0;
    part.job->Consume(logits.subspan(0, wanted * vocabulary));
    logits.remove_prefix(wanted * vocabulary);
  }
  absl::MutexLock lock(&mutex_);
  ++counters_.steps;
  counters_.decoded_tokens += decode_rows;
  counters_.prefilled_tokens += rows - decode_rows;
  return true;
}

void Scheduler::EndJobs(std::vector<std::shared_ptr<Job>>& jobs) {
  std::erase_if(jobs, [this](const std::shared_ptr<Job>& job) {
    const absl::Status status = WhyEnd(*job);
    if (!status.ok()) Remove(job, status);
    return !status.ok();
  });
}

absl::Status Scheduler::WhyEnd(const Job& job) const {
  if (job.cancelled()) return absl::CancelledError(job.why_cancelled());
  if (job.deadline < absl::Now()) return absl::DeadlineExceededError("the call's deadline passed");
  absl::MutexLock lock(&mutex_);
  if (shutdown_) return absl::UnavailableError("the server is shutting down");
  return absl::OkStatus();
}

bool Scheduler::Starve(const std::shared_ptr<Job>& job, const Job::Feed& feed, const absl::Status& why) {
  const absl::Time now = absl::Now();
  job->starved_since = std::min(job->starved_since, now);
  if (now - job->starved_since > options_.longest_starvation) {
    Remove(job, why);
  } else {
    job->starved_feed = feed;
    options_.on_starvation();
  }
  return false;
}

bool Scheduler::FeedJob(const std::shared_ptr<Job>& job, int budget, std::vector<Fed>& fed) {
  const Job::Feed feed = job->starved_feed ? *std::exchange(job->starved_feed, std::nullopt) : job->Next(budget);
  if (feed.tokens.empty()) {
    Remove(job, absl::OkStatus());
    return false;
  }
  engine::Sequence& sequence = job->sequence();
  // A save in flight shares the last page, which then takes a page more than was reserved.
  const int missing = sequence.PagesToAppendNow(static_cast<int>(feed.tokens.size())) - job->reservation.pages();
  if (missing > 0) {
    absl::StatusOr<engine::PageReservation> more = pool_->Reserve(missing);
    if (!more.ok()) return Starve(job, feed, more.status());
    job->reservation.Add(*std::move(more));
  }
  job->starved_since = absl::InfiniteFuture();
  Fed part{job, feed, {}, sequence.length()};
  sequence.Append(feed.tokens, job->reservation);
  for (const engine::PageRef& page : sequence.pages()) part.pages.push_back(page.data());
  if (engine::Taps* const taps = job->taps(); taps != nullptr) {
    part.tap_rows = taps->Append(part.position, static_cast<int>(feed.tokens.size()));
    part.tap_layers = taps->layers();
  }
  fed.push_back(std::move(part));
  return true;
}

void Scheduler::Remove(const std::shared_ptr<Job>& job, const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    jobs_.remove(job);
  }
  job->reservation = {};
  job->Finish(status);
}

}  // namespace quicksave::server
