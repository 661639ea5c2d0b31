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
  void End(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    status_ = std::move(status);
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
  // How it ended. To be called after Pop returned nothing.
  absl::Status status() const {
    absl::MutexLock lock(&mutex_);
    return *status_;
  }

 private:
  bool HasNews() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !events_.empty() || status_.has_value(); }

  mutable absl::Mutex mutex_;
  std::deque<client::GenerateEvent> events_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mutex_);
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

 private:
  void Run(const std::string& session, const client::GenerateRequest& request, EventQueue& queue,
           CommandContext& context) {
    if (failed_) return queue.End(absl::CancelledError("another sample failed"));
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
    if (!finished.ok()) failed_ = true;
    queue.End(finished.status());
  }

  std::deque<EventQueue> queues_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::vector<std::thread> threads_;
};

absl::Status ShowSample(EventQueue& queue, int number, const client::GenerateRequest& request, const Console& console) {
  GenerationPrinter printer(console);
  printer.set_sample(number);
  printer.set_show_pending(!request.keep_session && !request.save);
  printer.set_name_session(request.keep_session);
  while (const std::optional<client::GenerateEvent> event = queue.Pop()) printer(*event);
  printer.End();
  return queue.status();
}

absl::Status GenerateIn(const std::vector<client::Session>& sessions, const std::vector<uint64_t>& seeds,
                        const client::GenerateRequest& request, CommandContext& context) {
  Generations generations(sessions, request, context);
  absl::Status status;
  for (size_t i = 0; i < sessions.size() && status.ok(); ++i) {
    const int number = static_cast<int>(i) + 1;
    if (!context.console.json) context.console.Note(absl::StrCat("sample ", number, ", seed ", seeds[i], ":"));
    status = ShowSample(generations.queue(i), number, request, context.console);
  }
  return status;
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
