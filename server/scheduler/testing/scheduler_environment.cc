#include "server/scheduler/testing/scheduler_environment.h"

#include <utility>

namespace quicksave::server {

std::vector<int32_t> RecordingListener::Outcome::ids() const {
  std::vector<int32_t> ids;
  for (const GeneratedToken& token : tokens) ids.push_back(token.id);
  return ids;
}

void RecordingListener::OnTokens(std::string text, std::vector<GeneratedToken> tokens) {
  int count;
  {
    absl::MutexLock lock(&mutex_);
    outcome_.text += text;
    for (GeneratedToken& token : tokens) outcome_.tokens.push_back(std::move(token));
    count = static_cast<int>(outcome_.tokens.size());
  }
  if (on_token) on_token(count);
}

void RecordingListener::OnCheckpoint(SessionState state) {
  absl::MutexLock lock(&mutex_);
  outcome_.checkpoints.push_back(std::move(state));
}

void RecordingListener::OnFinish(const absl::Status& status, const GenerateResult& result, SessionState state) {
  absl::MutexLock lock(&mutex_);
  outcome_.status = status;
  outcome_.result = result;
  outcome_.state = std::move(state);
  finished_ = true;
}

int RecordingListener::token_count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(outcome_.tokens.size());
}

bool RecordingListener::finished() const {
  absl::MutexLock lock(&mutex_);
  return finished_;
}

void RecordingListener::AwaitTokens(int count) {
  const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return static_cast<int>(outcome_.tokens.size()) >= count;
  };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&enough));
}

RecordingListener::Outcome RecordingListener::Await() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&finished_));
  return std::move(outcome_);
}

SchedulerEnvironment::SchedulerEnvironment(int pages, const Scheduler::Options& options)
    : decoder(engine::Decoder::Load(Model().dir(), &threads).value()),
      pool(engine::PagePool::Create(
               {.shape = decoder->kv_shape(), .memory_bytes = pages * decoder->kv_shape().page_bytes(), .poison = true})
               .value()),
      broker(std::make_unique<PageBroker>(pool.get(), absl::Milliseconds(50))),
      scheduler(std::make_unique<Scheduler>(options, decoder.get(), pool.get())) {}

SchedulerEnvironment::~SchedulerEnvironment() { scheduler.reset(); }

const engine::TinyModel& SchedulerEnvironment::Model() {
  static const engine::TinyModel kModel({.context_length = 512, .tokenizer = true, .seed = 3});
  return kModel;
}

const text::Tokenizer& SchedulerEnvironment::Tokenizer() {
  static const std::unique_ptr<text::Tokenizer> kTokenizer = text::Tokenizer::Load(Model().dir()).value();
  return *kTokenizer;
}

std::shared_ptr<GenerateJob> SchedulerEnvironment::NewJob(SessionState state, GenerateOptions options,
                                                          const std::shared_ptr<RecordingListener>& listener) {
  std::unique_ptr<TokenConstraint> constraint;
  if (state.constraint.constraint != nullptr) {
    auto grammar = text::Grammar::Create(&Tokenizer(), *state.constraint.constraint).value();
    const std::vector<int32_t>& tokens = state.sequence.tokens();
    constraint = std::make_unique<TokenConstraint>(
        std::move(grammar), std::vector<int32_t>(tokens.end() - state.constraint.tokens, tokens.end()),
        &constraint_workers);
  }
  return GenerateJob::Create(std::move(state), std::move(options), &Tokenizer(), listener, std::move(constraint))
      .value();
}

RecordingListener::Outcome SchedulerEnvironment::Generate(SessionState state, GenerateOptions options) {
  const auto listener = std::make_shared<RecordingListener>();
  const std::shared_ptr<GenerateJob> job = NewJob(std::move(state), std::move(options), listener);
  const absl::Status status = scheduler->Submit(job, job->max_appended());
  if (!status.ok()) return {.status = status, .state = job->Capture()};
  return listener->Await();
}

GenerateOptions Options(std::vector<int32_t> input, int max_tokens) {
  return {.input = std::move(input), .max_tokens = max_tokens, .max_appended = max_tokens, .context_length = 512};
}

std::vector<int32_t> TextTokens(int count, uint64_t seed) {
  std::vector<int32_t> tokens = engine::RandomTokens(count, 95, seed);
  for (int32_t& token : tokens) token += ' ';
  return tokens;
}

EngineHold::EngineHold(Scheduler* scheduler)
    : thread_([this, scheduler] {
        scheduler->AtStepBoundary([this] {
          held_.Notify();
          release_.WaitForNotification();
        });
      }) {
  held_.WaitForNotification();
}

EngineHold::~EngineHold() {
  release_.Notify();
  thread_.join();
}

bool SameSequence(const engine::Sequence& a, const engine::Sequence& b) {
  if (a.tokens() != b.tokens() || engine::KeyValueBits(a) != engine::KeyValueBits(b)) return false;
  if (a.next_logits() == nullptr || b.next_logits() == nullptr) return a.next_logits() == b.next_logits();
  return engine::SameBits(*a.next_logits(), *b.next_logits());
}

}  // namespace quicksave::server
