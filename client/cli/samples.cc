#include "client/cli/samples.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/generation_printer.h"

namespace quicksave::cli {
namespace {

// Enough to fill the server's batches; more would only wait there.
constexpr int kSamplesAtATime = 16;

// The events of one generation, from the thread that receives them to the one that shows them. Thread-safe.
class EventQueue {
 public:
  void Push(const client::GenerateEvent& event) {
    absl::MutexLock lock(&mutex_);
    events_.push_back(event);
  }
  void End(bool begun) {
    absl::MutexLock lock(&mutex_);
    begun_ = begun;
    ended_ = true;
  }
  // Waits until there is an event, or the generation has ended; returns whether it was begun.
  bool Begun() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &EventQueue::HasNews));
    return !events_.empty() || begun_;
  }
  // Waits for the next event. Nothing once the generation has ended and all events were taken.
  std::optional<client::GenerateEvent> Pop() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &EventQueue::HasNews));
    if (events_.empty()) return std::nullopt;
    client::GenerateEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !events_.empty() || ended_; }

  absl::Mutex mutex_;
  std::deque<client::GenerateEvent> events_ ABSL_GUARDED_BY(mutex_);
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

// Generates in the sessions; what comes of session i goes to queue i. The threads end with the object.
class Generations {
 public:
  Generations(const std::vector<client::Session>& sessions, const client::GenerateRequest& request,
              CommandContext& context)
      : queues_(sessions.size()) {
    const size_t threads = std::min<size_t>(sessions.size(), kSamplesAtATime);
    for (size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this, &sessions, &request, &context] {
        for (size_t k = next_++; k < sessions.size(); k = next_++) Run(sessions[k].name, request, queues_[k], context);
      });
    }
  }
  ~Generations() {
    for (std::thread& thread : threads_) thread.join();
  }
  Generations(const Generations&) = delete;
  Generations& operator=(const Generations&) = delete;

  EventQueue& queue(size_t i) { return queues_[i]; }
  // Of the sample that failed first; those that had not begun then never do.
  absl::Status first_error() const {
    absl::MutexLock lock(&mutex_);
    return first_error_;
  }

 private:
  void Run(const std::string& session, const client::GenerateRequest& request, EventQueue& queue,
           CommandContext& context) {
    if (!first_error().ok()) return queue.End(/*begun=*/false);
    const auto finished = context.client.Generate(
        {.start = client::FromSession{session},
         .stop = request.stop,
         .top_logprobs = request.top_logprobs,
         .save = request.save,
         .save_every_tokens = request.save_every_tokens},
        [&queue](const client::GenerateEvent& event) {
          queue.Push(event);
          return true;
        },
        context.Call());
    if (!finished.ok()) {
      absl::MutexLock lock(&mutex_);
      first_error_.Update(finished.status());
    }
    queue.End(/*begun=*/true);
  }

  std::deque<EventQueue> queues_;
  std::atomic<size_t> next_ = 0;
  mutable absl::Mutex mutex_;
  absl::Status first_error_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

void ShowSample(EventQueue& queue, int number, const client::GenerateRequest& request, const Console& console) {
  GenerationPrinter printer(console);
  printer.set_sample(number);
  printer.set_show_pending(!request.keep_session && !request.save);
  printer.set_name_session(request.keep_session);
  while (const std::optional<client::GenerateEvent> event = queue.Pop()) printer(*event);
  printer.End();
}

absl::Status GenerateIn(const std::vector<client::Session>& sessions, const std::vector<uint64_t>& seeds,
                        const client::GenerateRequest& request, CommandContext& context) {
  Generations generations(sessions, request, context);
  for (size_t i = 0; i < sessions.size(); ++i) {
    if (!generations.queue(i).Begun()) continue;
    const int number = static_cast<int>(i) + 1;
    if (!context.console.json) context.console.Note(absl::StrCat("sample ", number, ", seed ", seeds[i], ":"));
    ShowSample(generations.queue(i), number, request, context.console);
  }
  return generations.first_error();
}

}  // namespace

absl::Status GenerateSamples(const client::GenerateRequest& request, int32_t samples, CommandContext& context) {
  client::GenerateRequest common = request;
  common.stop.max_tokens = 0;
  common.save = std::nullopt;
  common.save_every_tokens = std::nullopt;
  common.keep_session = true;
  const auto prefilled = context.client.Generate(
      common, [](const client::GenerateEvent&) { return true; }, context.Call());
  if (!prefilled.ok()) return prefilled.status();
  client::BranchRequest branch{.start = client::FromSession{prefilled->session}, .lease = request.lease};
  for (int32_t i = 0; i < samples; ++i) branch.seeds.push_back(request.sampling.seed.value_or(0) + i);
  const auto branched = context.client.Branch(branch, context.Call());
  absl::Status status = branched.status();
  std::vector<std::string> sessions = {prefilled->session};
  if (branched.ok()) {
    status = GenerateIn(branched->sessions, branch.seeds, request, context);
    for (size_t i = 0; !request.keep_session && i < branched->sessions.size(); ++i) {
      sessions.push_back(branched->sessions[i].name);
    }
  }
  for (const std::string& session : sessions) context.client.DeleteSession({.name = session}).IgnoreError();
  return status;
}

}  // namespace quicksave::cli
