#include "server/scheduler/scheduler.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/evaluate_job.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

using engine::LogitsWanted;
using Outcome = RecordingListener::Outcome;

// Feeds fixed tokens, calls hooks, and checks that the scheduler keeps to the protocol of Job.
class ScriptedJob : public Job {
 public:
  explicit ScriptedJob(std::vector<int32_t> tokens, int largest_feed = 1 << 20)
      : tokens_(std::move(tokens)), largest_feed_(largest_feed) {}
  ~ScriptedJob() override { EXPECT_FALSE(in_step_); }

  engine::Sequence& sequence() override { return sequence_; }
  int backlog() const override {
    ExpectLive();
    return std::min(largest_feed_, static_cast<int>(tokens_.size() - fed_));
  }
  bool paused() const override {
    ExpectLive();
    return is_paused.load();
  }
  Feed Next(int budget) override {
    ExpectLive();
    EXPECT_FALSE(in_step_);
    EXPECT_GT(budget, 0);
    budgets.push_back(budget);
    feeding_ =
        std::min<size_t>({static_cast<size_t>(budget), tokens_.size() - fed_, static_cast<size_t>(largest_feed_)});
    in_step_ = feeding_ > 0;
    return {absl::MakeConstSpan(tokens_).subspan(fed_, feeding_), LogitsWanted::kNone};
  }
  void Consume(absl::Span<const float> logits) override {
    ExpectLive();
    EXPECT_TRUE(in_step_);
    EXPECT_TRUE(logits.empty());
    in_step_ = false;
    fed_ += feeding_;
    EXPECT_EQ(sequence_.length(), static_cast<int>(fed_));
    if (on_consume) on_consume(*this);
  }
  void Finish(const absl::Status& status) override {
    ExpectLive();
    in_step_ = false;
    finished_ = true;
    reservation = {};
    result = status;
    done.Notify();
  }

  std::atomic<bool> is_paused{false};
  std::function<void(ScriptedJob&)> on_consume;
  std::vector<int> budgets;
  absl::Status result;
  absl::Notification done;

 private:
  void ExpectLive() const { EXPECT_FALSE(finished_) << "used after Finish"; }

  engine::Sequence sequence_;
  const std::vector<int32_t> tokens_;
  const int largest_feed_;
  size_t fed_ = 0;
  size_t feeding_ = 0;
  bool in_step_ = false;
  bool finished_ = false;
};

GenerateOptions Endless() { return Options(TextTokens(5, 1), 500); }

TEST(SchedulerTest, InterleavedJobsGiveWhatTheyGiveAlone) {
  SchedulerEnvironment environment;
  struct Call {
    std::vector<int32_t> input;
    engine::SamplingParameters sampling;
    int max_tokens;
  };
  std::vector<Call> calls;
  for (int i = 0; i < 8; ++i) {
    const float temperature = i % 2 == 0 ? 0.0F : 0.9F;
    calls.push_back({TextTokens(1 + i * i * 4, i), {.temperature = temperature, .seed = uint64_t(i)}, 5 + i * 7});
  }
  std::vector<Outcome> alone;
  for (const Call& call : calls) {
    alone.push_back(environment.Generate({.sampling = call.sampling}, Options(call.input, call.max_tokens)));
    ASSERT_TRUE(alone.back().status.ok()) << alone.back().status;
  }
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  {
    const EngineHold hold(environment.scheduler.get());
    for (const Call& call : calls) {
      listeners.push_back(std::make_shared<RecordingListener>());
      const auto job =
          environment.NewJob({.sampling = call.sampling}, Options(call.input, call.max_tokens), listeners.back());
      ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
    }
    EXPECT_EQ(environment.scheduler->counters().active_jobs, 8);
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    const Outcome together = listeners[i]->Await();
    EXPECT_EQ(together.ids(), alone[i].ids()) << i;
    EXPECT_EQ(together.text, alone[i].text) << i;
    EXPECT_TRUE(SameSequence(together.state.sequence, alone[i].state.sequence)) << i;
  }
}

TEST(SchedulerTest, CancelEndsADecodingJobBeforeItsNextStep) {
  SchedulerEnvironment environment;
  const auto listener = std::make_shared<RecordingListener>();
  std::shared_ptr<GenerateJob> job = environment.NewJob({}, Endless(), listener);
  listener->on_token = [&](int count) {
    if (count == 5) job->Cancel();
  };
  ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
  Outcome outcome = listener->Await();
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(outcome.tokens.size(), 5u);
  // The step in which it was cancelled is finished, so that the state is whole.
  EXPECT_EQ(outcome.state.sequence.length(), 10);
  EXPECT_NE(outcome.state.sequence.next_logits(), nullptr);
  job = nullptr;
  outcome = {};
  environment.scheduler->AtStepBoundary([] {});
  EXPECT_EQ(environment.pool->used_pages(), 0);
  EXPECT_TRUE(environment.pool->Reserve(environment.pool->total_pages()).ok()) << "pages are still promised";
}

TEST(SchedulerTest, CancelEndsAPrefillWithinOneStep) {
  SchedulerEnvironment environment(600, {.prefill_rows = 16});
  const auto job = std::make_shared<ScriptedJob>(TextTokens(400, 1));
  job->on_consume = [](ScriptedJob& self) {
    if (self.budgets.size() == 3) self.Cancel();
  };
  ASSERT_TRUE(environment.scheduler->Submit(job, 400).ok());
  job->done.WaitForNotification();
  EXPECT_EQ(job->result.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(job->sequence().length(), 48);
}

TEST(SchedulerTest, AJobThatIsCancelledBeforeItsFirstStepIsFinishedUntouched) {
  SchedulerEnvironment environment;
  const auto job = std::make_shared<ScriptedJob>(TextTokens(10, 1));
  job->Cancel("it was not needed");
  ASSERT_TRUE(environment.scheduler->Submit(job, 10).ok());
  job->done.WaitForNotification();
  EXPECT_EQ(job->result, absl::CancelledError("it was not needed"));
  EXPECT_TRUE(job->budgets.empty());
}

TEST(SchedulerTest, CancelReachesAPausedJob) {
  SchedulerEnvironment environment;
  const auto job = std::make_shared<ScriptedJob>(TextTokens(10, 1));
  job->is_paused = true;
  ASSERT_TRUE(environment.scheduler->Submit(job, 10).ok());
  environment.scheduler->AtStepBoundary([] {});
  job->Cancel();
  job->done.WaitForNotification();
  EXPECT_EQ(job->result.code(), absl::StatusCode::kCancelled);
}

TEST(SchedulerTest, DeadlinesEndRunningPausedAndWaitingJobs) {
  SchedulerEnvironment environment;
  const auto late = std::make_shared<ScriptedJob>(TextTokens(10, 1));
  late->deadline = absl::Now() - absl::Seconds(1);
  ASSERT_TRUE(environment.scheduler->Submit(late, 10).ok());
  late->done.WaitForNotification();
  EXPECT_EQ(late->result.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(late->budgets.empty());

  const auto paused = std::make_shared<ScriptedJob>(TextTokens(10, 1));
  paused->is_paused = true;
  paused->deadline = absl::Now() + absl::Milliseconds(20);
  ASSERT_TRUE(environment.scheduler->Submit(paused, 10).ok());
  paused->done.WaitForNotification();
  EXPECT_EQ(paused->result.code(), absl::StatusCode::kDeadlineExceeded);

  // Runs until its deadline: the step after it is not begun.
  const auto listener = std::make_shared<RecordingListener>();
  const std::shared_ptr<GenerateJob> job = environment.NewJob({}, Endless(), listener);
  absl::Time passed = absl::InfiniteFuture();
  job->deadline = absl::Now() + absl::Milliseconds(50);
  listener->on_token = [&](int) {
    EXPECT_EQ(passed, absl::InfiniteFuture()) << "a step began after the deadline";
    if (absl::Now() > job->deadline) passed = absl::Now();
  };
  const int endless = 500;
  ASSERT_TRUE(environment.scheduler->Submit(job, endless + 5).ok());
  const Outcome outcome = listener->Await();
  const bool all = outcome.tokens.size() == size_t{endless};
  EXPECT_EQ(outcome.status.code(), all ? absl::StatusCode::kOk : absl::StatusCode::kDeadlineExceeded);
}

TEST(SchedulerTest, PausedJobsDoNotHoldUpOthers) {
  SchedulerEnvironment environment;
  const auto slow_reader = std::make_shared<RecordingListener>();
  slow_reader->on_token = [&](int count) {
    if (count == 3) slow_reader->SetFull(true);
  };
  const auto slow = environment.NewJob({}, Options(TextTokens(5, 1), 20), slow_reader);
  ASSERT_TRUE(environment.scheduler->Submit(slow, slow->max_appended()).ok());
  slow_reader->AwaitTokens(3);
  // Others come and go meanwhile.
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(environment.Generate({}, Options(TextTokens(30, i), 10)).status.ok());
    environment.scheduler->AtStepBoundary([] {});
  }
  EXPECT_EQ(slow_reader->token_count(), 3);
  EXPECT_FALSE(slow_reader->finished());
  EXPECT_EQ(environment.scheduler->counters().active_jobs, 1);
  slow_reader->SetFull(false);
  const Outcome outcome = slow_reader->Await();
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.ids(), environment.Generate({}, Options(TextTokens(5, 1), 20)).ids());
}

TEST(SchedulerTest, ShutdownEndsJobsAndRefusesNewOnes) {
  SchedulerEnvironment environment;
  const auto running = std::make_shared<RecordingListener>();
  const auto job = environment.NewJob({}, Endless(), running);
  ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
  const auto paused = std::make_shared<ScriptedJob>(TextTokens(10, 1));
  paused->is_paused = true;
  ASSERT_TRUE(environment.scheduler->Submit(paused, 10).ok());
  running->AwaitTokens(2);
  environment.scheduler->Shutdown();
  EXPECT_EQ(running->Await().status.code(), absl::StatusCode::kUnavailable);
  paused->done.WaitForNotification();
  EXPECT_EQ(paused->result.code(), absl::StatusCode::kUnavailable);

  const auto refused = std::make_shared<ScriptedJob>(TextTokens(10, 1));
  EXPECT_EQ(environment.scheduler->Submit(refused, 10).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(refused->done.HasBeenNotified());
  EXPECT_EQ(refused->reservation.pages(), 0);
  bool ran = false;
  environment.scheduler->AtStepBoundary([&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(SchedulerTest, DestructionEndsWhatIsStillRunning) {
  const auto running = std::make_shared<RecordingListener>();
  const auto paused = std::make_shared<ScriptedJob>(TextTokens(10, 1));
  {
    SchedulerEnvironment environment;
    const auto job = environment.NewJob({}, Endless(), running);
    ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
    paused->is_paused = true;
    ASSERT_TRUE(environment.scheduler->Submit(paused, 10).ok());
    running->AwaitTokens(1);
    environment.scheduler.reset();
    EXPECT_TRUE(running->finished());
    EXPECT_EQ(running->Await().status.code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_TRUE(paused->done.HasBeenNotified());
}

TEST(SchedulerTest, RefusesMoreJobsThanItsQueueHolds) {
  SchedulerEnvironment environment(100, {.max_jobs = 2});
  std::vector<std::shared_ptr<ScriptedJob>> jobs;
  for (int i = 0; i < 3; ++i) jobs.push_back(std::make_shared<ScriptedJob>(TextTokens(20, i)));
  {
    const EngineHold hold(environment.scheduler.get());
    ASSERT_TRUE(environment.scheduler->Submit(jobs[0], 20).ok());
    ASSERT_TRUE(environment.scheduler->Submit(jobs[1], 20).ok());
    const absl::Status status = environment.scheduler->Submit(jobs[2], 20);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("max_queued_requests"));
    // What it had reserved is free again, although the job still lives.
    EXPECT_TRUE(environment.pool->Reserve(96).ok());
  }
  jobs[0]->done.WaitForNotification();
  jobs[1]->done.WaitForNotification();
  environment.scheduler->AtStepBoundary([] {});
  ASSERT_TRUE(environment.scheduler->Submit(jobs[2], 20).ok());
  jobs[2]->done.WaitForNotification();
  EXPECT_TRUE(jobs[2]->result.ok());
}

TEST(SchedulerTest, RefusesAJobWhosePagesAreNotFree) {
  SchedulerEnvironment environment(10);
  const auto job = std::make_shared<ScriptedJob>(TextTokens(161, 1));
  const absl::Status status = environment.scheduler->Submit(job, 161);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("kv_memory: "));
  EXPECT_EQ(environment.scheduler->counters().active_jobs, 0);
  const auto fits = std::make_shared<ScriptedJob>(TextTokens(160, 1));
  ASSERT_TRUE(environment.scheduler->Submit(fits, 160).ok());
  fits->done.WaitForNotification();
  EXPECT_TRUE(fits->result.ok());
}

TEST(SchedulerTest, PagesThatWerePromisedSufficeEvenWhenTheLastPageIsShared) {
  SchedulerEnvironment environment(20);
  const Outcome start = environment.Generate({}, Options(TextTokens(18, 1), 2));
  ASSERT_EQ(start.state.sequence.length(), 20);
  // The copy shares the last page, in which 12 tokens have room still.
  const auto listener = std::make_shared<RecordingListener>();
  const auto job = environment.NewJob(start.state, Options({}, 12), listener);
  engine::PageReservation rest;
  {
    const EngineHold hold(environment.scheduler.get());
    ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
    rest = environment.pool->Reserve(17).value();
    ASSERT_FALSE(environment.pool->Reserve(1).ok());
  }
  const Outcome outcome = listener->Await();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.state.sequence.length(), 32);
}

TEST(SchedulerTest, RunningOutOfPagesLeavesAStateThatCanGoOn) {
  SchedulerEnvironment environment(12, {.longest_starvation = absl::Milliseconds(50)});
  const GenerateOptions options = Options(TextTokens(20, 1), 40);
  const Outcome expected = environment.Generate({}, options);
  ASSERT_TRUE(expected.status.ok());
  const std::vector<int32_t> ids = expected.ids();
  const engine::Sequence whole = expected.state.sequence;  // 4 pages

  // Each checkpoint shares the last page, so that the next token takes one more, until none is left.
  GenerateOptions saving = options;
  saving.checkpoint_tokens = 1;
  Outcome outcome = environment.Generate({}, saving);
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kResourceExhausted);
  const int length = outcome.state.sequence.length();
  EXPECT_GT(length, 20);
  EXPECT_LT(length, 60);
  EXPECT_THAT(outcome.state.sequence.tokens(),
              testing::ElementsAreArray(whole.tokens().begin(), whole.tokens().begin() + length));
  EXPECT_THAT(outcome.ids(), testing::ElementsAreArray(whole.tokens().begin() + 20, whole.tokens().begin() + length))
      << "what was given out is what the state has";
  EXPECT_EQ(outcome.result.generated_tokens, length - 20);
  outcome.checkpoints.clear();
  const Outcome rest = environment.Generate(outcome.state, Options({}, 60 - length));
  ASSERT_TRUE(rest.status.ok()) << rest.status;
  EXPECT_TRUE(SameSequence(rest.state.sequence, whole));
}

TEST(SchedulerTest, SavesDoNotUseUpWhatAJobHasReserved) {
  SchedulerEnvironment environment(20);
  const auto listener = std::make_shared<RecordingListener>();
  GenerateOptions options = Options(TextTokens(20, 1), 12);
  options.checkpoint_tokens = 1;
  const auto job = environment.NewJob({}, options, listener);
  ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
  const Outcome outcome = listener->Await();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.checkpoints.size(), 11u);
}

TEST(SchedulerTest, StepBoundariesAreBetweenSteps) {
  SchedulerEnvironment environment;
  std::atomic<bool> in_step{false};
  std::atomic<std::thread::id> engine_thread;
  const auto listener = std::make_shared<RecordingListener>();
  const auto job = environment.NewJob({}, Endless(), listener);
  // OnTokens is called in the middle of a step; the boundary must see whole states only.
  listener->on_token = [&](int) { engine_thread = std::this_thread::get_id(); };
  ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
  listener->AwaitTokens(1);
  const auto caller = [&] {
    for (int i = 0; i < 30; ++i) {
      environment.scheduler->AtStepBoundary([&] {
        EXPECT_FALSE(in_step.exchange(true)) << "two boundaries at once";
        EXPECT_EQ(std::this_thread::get_id(), engine_thread.load());
        const SessionState state = job->Capture();
        if (!listener->finished()) {
          EXPECT_EQ(state.sequence.length(), job->length());
          EXPECT_NE(state.sequence.next_logits(), nullptr);
        }
        in_step = false;
      });
    }
  };
  std::thread one(caller);
  std::thread two(caller);
  one.join();
  two.join();
  job->Cancel();
  listener->Await();
}

TEST(SchedulerTest, DecodingGoesOnWhileALongPromptIsPrefilled) {
  SchedulerEnvironment environment(600, {.prefill_rows = 64, .mixed_prefill_rows = 10});
  const auto decoding = std::make_shared<ScriptedJob>(TextTokens(100, 1), /*largest_feed=*/1);
  const auto prefill = std::make_shared<ScriptedJob>(TextTokens(300, 2));
  int decoded_before_end = 0;
  {
    const EngineHold hold(environment.scheduler.get());
    ASSERT_TRUE(environment.scheduler->Submit(prefill, 300).ok());
    ASSERT_TRUE(environment.scheduler->Submit(decoding, 100).ok());
  }
  prefill->done.WaitForNotification();
  environment.scheduler->AtStepBoundary([&] { decoded_before_end = decoding->sequence().length(); });
  decoding->done.WaitForNotification();
  EXPECT_GE(decoded_before_end, 30);
  // The prefill never got more than its share beside a decoding job; the last call finds nothing left.
  ASSERT_GE(prefill->budgets.size(), 30u);
  for (int i = 0; i < 30; ++i) EXPECT_EQ(prefill->budgets[i], 10);

  const auto alone = std::make_shared<ScriptedJob>(TextTokens(300, 2));
  ASSERT_TRUE(environment.scheduler->Submit(alone, 300).ok());
  alone->done.WaitForNotification();
  EXPECT_EQ(alone->budgets.front(), 64);
}

TEST(SchedulerTest, PrefillsShareAStepFirstComeFirstServed) {
  SchedulerEnvironment environment(600, {.prefill_rows = 64});
  std::vector<std::shared_ptr<ScriptedJob>> jobs;
  {
    const EngineHold hold(environment.scheduler.get());
    for (int i = 0; i < 3; ++i) {
      jobs.push_back(std::make_shared<ScriptedJob>(TextTokens(40, i)));
      ASSERT_TRUE(environment.scheduler->Submit(jobs.back(), 40).ok());
    }
  }
  for (const auto& job : jobs) job->done.WaitForNotification();
  EXPECT_EQ(jobs[0]->budgets.front(), 64);
  EXPECT_EQ(jobs[1]->budgets.front(), 24);
  // In the second step, when the first job's end and the rest of the second one's tokens leave this.
  EXPECT_EQ(jobs[2]->budgets.front(), 48);
}

TEST(SchedulerTest, CountsStepsAndTokens) {
  SchedulerEnvironment environment(600, {.prefill_rows = 32});
  EXPECT_EQ(environment.scheduler->counters().steps, 0);
  ASSERT_TRUE(environment.Generate({}, Options(TextTokens(80, 1), 7)).status.ok());
  environment.scheduler->AtStepBoundary([] {});
  const Scheduler::Counters counters = environment.scheduler->counters();
  EXPECT_EQ(counters.prefilled_tokens, 80);
  EXPECT_EQ(counters.decoded_tokens, 7);
  EXPECT_EQ(counters.steps, 3 + 7);
  EXPECT_EQ(counters.active_jobs, 0);
}

TEST(SchedulerTest, RunWaitsForTheEndAndTellsIt) {
  SchedulerEnvironment environment(600, {.prefill_rows = 10});
  const auto new_job = [](int tokens) {
    return std::make_shared<EvaluateJob>(engine::Sequence(), TextTokens(tokens, 1), LogitsWanted::kNone, nullptr);
  };
  const auto job = new_job(15);
  EXPECT_TRUE(environment.scheduler->Run(job, 15).ok());
  EXPECT_EQ(job->sequence().length(), 15);

  const auto cancelled = new_job(400);
  cancelled->set_cancelled([steps = 0]() mutable { return ++steps > 2; });
  EXPECT_EQ(environment.scheduler->Run(cancelled, 400), absl::CancelledError("the caller cancelled the call"));
  EXPECT_EQ(cancelled->sequence().length(), 20) << "cancelling takes effect before the next step";

  const auto late = new_job(10);
  late->deadline = absl::Now() - absl::Seconds(1);
  EXPECT_EQ(environment.scheduler->Run(late, 10).code(), absl::StatusCode::kDeadlineExceeded);

  EXPECT_EQ(environment.scheduler->Run(new_job(10), 1 << 20).code(), absl::StatusCode::kResourceExhausted);
}

TEST(EvaluateJobTest, HandsOutTheRowsThatWereAskedFor) {
  SchedulerEnvironment environment(600, {.prefill_rows = 32});
  const std::vector<int32_t> tokens = TextTokens(100, 4);
  const size_t vocab = environment.decoder->config().vocab_size;
  engine::Sequence sequence;
  std::vector<float> expected;
  environment.scheduler->AtStepBoundary([&] {
    expected = engine::FeedTokens(*environment.decoder, *environment.pool, sequence, tokens, LogitsWanted::kAll);
  });

  std::vector<float> all;
  auto job = std::make_shared<EvaluateJob>(engine::Sequence(), tokens, LogitsWanted::kAll,
                                           [&](size_t first, absl::Span<const float> rows) {
                                             EXPECT_EQ(first * vocab, all.size());
                                             all.insert(all.end(), rows.begin(), rows.end());
                                           });
  ASSERT_TRUE(environment.scheduler->Run(job, job->count()).ok());
  EXPECT_TRUE(engine::SameBits(all, expected));
  EXPECT_EQ(engine::KeyValueBits(job->sequence()), engine::KeyValueBits(sequence));

  std::vector<float> last;
  job = std::make_shared<EvaluateJob>(engine::Sequence(), tokens, LogitsWanted::kLast,
                                      [&](size_t first, absl::Span<const float> rows) {
                                        EXPECT_EQ(first, 99u);
                                        last.insert(last.end(), rows.begin(), rows.end());
                                      });
  ASSERT_TRUE(environment.scheduler->Run(job, job->count()).ok());
  EXPECT_TRUE(engine::SameBits(last, absl::MakeConstSpan(expected).subspan(99 * vocab)));

  job = std::make_shared<EvaluateJob>(engine::Sequence(), tokens, LogitsWanted::kNone, nullptr);
  ASSERT_TRUE(environment.scheduler->Run(job, job->count()).ok());
  EXPECT_EQ(job->sequence().length(), 100);
  job = std::make_shared<EvaluateJob>(sequence, std::vector<int32_t>(), LogitsWanted::kLast, nullptr);
  ASSERT_TRUE(environment.scheduler->Run(job, job->count()).ok());
  EXPECT_EQ(job->sequence().length(), 100);
}

}  // namespace
}  // namespace quicksave::server
