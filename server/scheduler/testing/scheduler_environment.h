#ifndef QUICKSAVE_SERVER_SCHEDULER_TESTING_SCHEDULER_ENVIRONMENT_H_
#define QUICKSAVE_SERVER_SCHEDULER_TESTING_SCHEDULER_ENVIRONMENT_H_

// A scheduler over a small random model, and a listener that remembers what it heard.

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/tiny_model.h"
#include "server/scheduler/generate_job.h"
#include "server/scheduler/page_broker.h"
#include "server/scheduler/scheduler.h"
#include "server/text/tokenizer.h"

namespace quicksave::server {

// Remembers all that a generation reports. Test and engine thread may use it at once.
class RecordingListener : public GenerateListener {
 public:
  struct Outcome {
    absl::Status status;
    GenerateResult result;
    SessionState state;
    std::string text;
    std::vector<GeneratedToken> tokens;
    std::vector<SessionState> checkpoints;

    std::vector<int32_t> ids() const;
  };

  bool Full() const override { return full_.load(); }
  void OnTokens(std::string text, std::vector<GeneratedToken> tokens) override;
  void OnCheckpoint(SessionState state) override;
  void OnFinish(const absl::Status& status, const GenerateResult& result, SessionState state) override;

  // Whether the job shall be left out of steps.
  void SetFull(bool full) { full_.store(full); }
  // Called on the engine thread with the number of tokens so far. Set before the job is submitted.
  std::function<void(int)> on_token;

  int token_count() const;
  bool finished() const;
  // Waits until so many tokens have come.
  void AwaitTokens(int count);
  // Waits for the end and hands everything out.
  Outcome Await();

 private:
  std::atomic<bool> full_{false};
  mutable absl::Mutex mutex_;
  Outcome outcome_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

// Owns everything from the model to the scheduler. The model has 300 tokens and a context of 512.
class SchedulerEnvironment {
 public:
  explicit SchedulerEnvironment(int pages = 600, const Scheduler::Options& options = {});
  // Ends all jobs; after it, no page may be in use but by states that tests hold.
  ~SchedulerEnvironment();

  static const engine::TinyModel& Model();
  static const text::Tokenizer& Tokenizer();

  // A job that appends the input to `state` and generates, under the state's constraint if it has one.
  std::shared_ptr<GenerateJob> NewJob(SessionState state, GenerateOptions options,
                                      const std::shared_ptr<RecordingListener>& listener);
  // Runs one generation to its end.
  RecordingListener::Outcome Generate(SessionState state, GenerateOptions options);

  engine::ThreadPool threads{2};
  std::unique_ptr<engine::Decoder> decoder;
  std::unique_ptr<engine::PagePool> pool;
  std::unique_ptr<PageBroker> broker;
  WorkerPool constraint_workers{1};
  std::unique_ptr<Scheduler> scheduler;
};

// Options with an input and a number of tokens, in a context of 512.
GenerateOptions Options(std::vector<int32_t> input, int max_tokens);

// `count` tokens of printable text.
std::vector<int32_t> TextTokens(int count, uint64_t seed);

// Keeps the engine thread between two steps while it lives.
class EngineHold {
 public:
  explicit EngineHold(Scheduler* scheduler);
  ~EngineHold();

 private:
  absl::Notification held_;
  absl::Notification release_;
  std::thread thread_;
};

// Whether tokens, K, V and next-token logits of two sequences are the same, bit for bit.
bool SameSequence(const engine::Sequence& a, const engine::Sequence& b);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_TESTING_SCHEDULER_ENVIRONMENT_H_
