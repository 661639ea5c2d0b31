#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quicksave::server {
namespace {

// A token of decode costs about as much as four of prefill, whose rows share the reading of the weights.
constexpr double kDecodeCost = 4;
// Steps of fewer rows do not tell how fast prefill can be.
constexpr int kRowsToTime = 32;

}  // namespace

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
  ++step_;
  EndJobs(jobs);
  // A job that has ended is not looked at again: its listener may be gone.
  std::erase_if(jobs, [](const auto& job) { return job->paused(); });
  std::vector<Fed> fed;
  fed.reserve(jobs.size());
  const int decode_rows = FeedJobs(std::move(jobs), fed);
  if (fed.empty()) return false;

  const std::vector<engine::Slice> slices = SlicesOf(fed);
  const absl::Time start = absl::Now();
  absl::Span<const float> logits = decoder_->Forward(slices);
  int rows = 0;
  for (const Fed& part : fed) rows += static_cast<int>(part.feed.tokens.size());
  const bool whole = !slices.back().split;
  if (whole && rows >= kRowsToTime) fastest_row_ = std::min(fastest_row_, (absl::Now() - start) / rows);
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
  counters_.fastest_row = fastest_row_;
  return true;
}

std::vector<engine::Slice> Scheduler::SlicesOf(std::vector<Fed>& fed) const {
  std::stable_sort(fed.begin(), fed.end(),
                   [this](const Fed& a, const Fed& b) { return WholeLayers(*a.job) > WholeLayers(*b.job); });
  std::vector<engine::Slice> slices;
  for (const Fed& part : fed) {
    slices.push_back({.tokens = part.feed.tokens,
                      .first_position = part.position,
                      .pages = part.pages,
                      .logits = part.feed.logits,
                      .taps = {part.tap_layers, part.tap_rows},
                      .split = part.job->split()});
  }
  return slices;
}

double Scheduler::RowCost(const Job& job) const {
  const int layers = decoder_->config().layers;
  return double(std::min(WholeLayers(job) + 1, layers)) / layers;
}

int Scheduler::FeedJobs(std::vector<std::shared_ptr<Job>> jobs, std::vector<Fed>& fed) {
  const auto prefill =
      std::stable_partition(jobs.begin(), jobs.end(), [](const auto& job) { return job->backlog() <= 1; });
  const std::vector<std::shared_ptr<Job>> prefilling(std::make_move_iterator(prefill),
                                                     std::make_move_iterator(jobs.end()));
  jobs.erase(prefill, jobs.end());
  // Jobs with nothing left to feed come first: they only end.
  std::stable_sort(jobs.begin(), jobs.end(), [](const auto& a, const auto& b) {
    return std::pair(a->backlog(), a->last_step) < std::pair(b->backlog(), b->last_step);
  });
  int decode_rows = 0;
  shares_.Serve(jobs, [&](const std::shared_ptr<Job>& job) -> std::optional<double> {
    // What has nothing left to feed ends, and takes no room.
    if (decode_rows == options_.decode_rows && job->backlog() > 0) return std::nullopt;
    const double cost = kDecodeCost * RowCost(*job);
    const int taken = FeedJob(job, 1, fed);
    decode_rows += taken;
    return cost * taken;
  });
  int rows_left = decode_rows == 0 ? options_.prefill_rows : options_.mixed_prefill_rows;
  shares_.Serve(prefilling, [&](const std::shared_ptr<Job>& job) -> std::optional<double> {
    // What starved in a step with more room takes more than is left.
    if (rows_left <= 0) return std::nullopt;
    const double cost = RowCost(*job);
    const int taken = FeedJob(job, rows_left, fed);
    rows_left -= taken;
    return cost * taken;
  });
  return decode_rows;
}

void Scheduler::EndJobs(std::vector<std::shared_ptr<Job>>& jobs) {
  absl::flat_hash_map<std::string, int64_t> rows_of_client;
  std::erase_if(jobs, [&](const std::shared_ptr<Job>& job) {
    if (job->last_step == 0) {
      job->last_step = step_;
      shares_.Join(job->client);
    }
    int64_t& rows = rows_of_client[job->client];
    const int64_t backlog = job->backlog();
    const int64_t own_rows = backlog * WholeLayers(*job) / decoder_->config().layers;
    const absl::Status status = WhyEnd(*job, rows + own_rows);
    if (!status.ok()) {
      Remove(job, status);
    } else if (backlog > 1 && !job->paused() && !job->starved_feed) {
      rows += own_rows;
    }
    return !status.ok();
  });
}

absl::Status Scheduler::WhyEnd(const Job& job, int64_t rows) const {
  const absl::Time now = absl::Now();
  if (job.cancelled()) return absl::CancelledError(job.why_cancelled());
  if (job.deadline < now) return absl::DeadlineExceededError("the call's deadline passed");
  if (job.backlog() > 1 && fastest_row_ != absl::InfiniteDuration() && now + rows * fastest_row_ > job.deadline) {
    return absl::DeadlineExceededError(absl::StrCat(
        "the call cannot be answered in time: ", rows, " tokens must be computed first, which takes at least ",
        absl::FormatDuration(absl::Trunc(rows * fastest_row_, absl::Milliseconds(1))), ", and ",
        absl::FormatDuration(absl::Trunc(job.deadline - now, absl::Milliseconds(1))),
        " are left; allow more time or give less input"));
  }
  absl::MutexLock lock(&mutex_);
  if (shutdown_) return absl::UnavailableError("the server is shutting down");
  return absl::OkStatus();
}

void Scheduler::Starve(const std::shared_ptr<Job>& job, const Job::Feed& feed, const absl::Status& why) {
  const absl::Time now = absl::Now();
  job->starved_since = std::min(job->starved_since, now);
  if (now - job->starved_since > options_.longest_starvation) {
    Remove(job, why);
  } else {
    job->starved_feed = feed;
    options_.on_starvation();
  }
}

int Scheduler::FeedJob(const std::shared_ptr<Job>& job, int budget, std::vector<Fed>& fed) {
  const Job::Feed feed = job->starved_feed ? *std::exchange(job->starved_feed, std::nullopt) : job->Next(budget);
  if (feed.tokens.empty()) {
    Remove(job, absl::OkStatus());
    return 0;
  }
  engine::Sequence& sequence = job->sequence();
  const int count = static_cast<int>(feed.tokens.size());
  const int needed = sequence.PagesToAppendNow(count);
  // A last page that is shared, with a save in flight, takes one more page than the tokens do. Many saves would use up
  // what is reserved, so that page comes from elsewhere if it can.
  const int copied = engine::PagesFor(sequence.length()) + needed - engine::PagesFor(sequence.length() + count);
  const int missing = std::max(copied, needed - job->reservation.pages());
  if (missing > 0) {
    absl::StatusOr<engine::PageReservation> more = pool_->Reserve(missing);
    if (!more.ok() && job->reservation.pages() < needed) {
      Starve(job, feed, more.status());
      return 0;
    }
    if (more.ok()) job->reservation.Add(*std::move(more));
  }
  job->starved_since = absl::InfiniteFuture();
  job->OnFed();
  Fed part{job, feed, {}, sequence.length()};
  sequence.Append(feed.tokens, job->reservation);
  for (const engine::PageRef& page : sequence.pages()) part.pages.push_back(page.data());
  if (engine::Taps* const taps = job->taps(); taps != nullptr) {
    part.tap_rows = taps->Append(part.position, static_cast<int>(feed.tokens.size()));
    part.tap_layers = taps->layers();
  }
  fed.push_back(std::move(part));
  job->last_step = step_;
  return count;
}

void Scheduler::Remove(const std::shared_ptr<Job>& job, const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    jobs_.remove(job);
  }
  shares_.Leave(job->client);
  job->Finish(status);
}

}  // namespace quicksave::server
