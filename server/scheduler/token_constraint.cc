#include "server/scheduler/token_constraint.h"

#include <algorithm>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace quicksave::server {

struct TokenConstraint::Work {
  // Of the task while one runs.
  std::unique_ptr<text::Grammar> grammar;
  // Set by the task, read when it is done.
  Allowed allowed;

  absl::Mutex mutex;
  bool done ABSL_GUARDED_BY(mutex) = true;
  // When a worker took it up; until then the step has taken no time.
  absl::Time start ABSL_GUARDED_BY(mutex) = absl::InfiniteFuture();
  bool given_up ABSL_GUARDED_BY(mutex) = false;

  void Run(const std::vector<int32_t>& tokens);
};

void TokenConstraint::Work::Run(const std::vector<int32_t>& tokens) {
  {
    absl::MutexLock lock(&mutex);
    start = absl::Now();
  }
  Allowed found;
  found.status = grammar->Consume(tokens);
  if (found.status.ok()) {
    found.progress = grammar->progress();
    const absl::StatusOr<absl::Span<const uint32_t>> mask = grammar->Mask();
    found.status = mask.status();
    if (mask.ok()) found.mask.assign(mask->begin(), mask->end());
  }
  found.any = std::any_of(found.mask.begin(), found.mask.end(), [](uint32_t word) { return word != 0; });
  allowed = std::move(found);
  absl::MutexLock lock(&mutex);
  done = true;
}

TokenConstraint::TokenConstraint(std::unique_ptr<text::Grammar> grammar, std::vector<int32_t> tokens,
                                 WorkerPool* workers, absl::Duration max_step_time)
    : work_(std::make_shared<Work>()),
      workers_(workers),
      limit_(kFirstStep * max_step_time),
      max_step_time_(max_step_time) {
  work_->grammar = std::move(grammar);
  Begin(std::move(tokens));
}

TokenConstraint::~TokenConstraint() { work_->grammar->Cancel(); }

bool TokenConstraint::Ready() {
  absl::MutexLock lock(&work_->mutex);
  if (!work_->done) {
    if (!work_->given_up && absl::Now() - work_->start > limit_) {
      work_->given_up = true;
      work_->grammar->Cancel();
    }
    return false;
  }
  if (work_->given_up) {
    work_->allowed.status = absl::FailedPreconditionError(absl::StrCat("constraint: what may follow took longer than ",
                                                                       absl::FormatDuration(limit_),
                                                                       " to compute; make the grammar less ambiguous"));
  }
  return true;
}

const TokenConstraint::Allowed& TokenConstraint::allowed() const { return work_->allowed; }

void TokenConstraint::Take(int32_t token) {
  limit_ = max_step_time_;
  Begin({token});
}

void TokenConstraint::Begin(std::vector<int32_t> tokens) {
  {
    absl::MutexLock lock(&work_->mutex);
    work_->done = false;
    work_->start = absl::InfiniteFuture();
  }
  workers_->Schedule([work = work_, tokens = std::move(tokens)] { work->Run(tokens); });
}

}  // namespace quicksave::server
