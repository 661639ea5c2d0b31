#include "server/service/call_runner.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {

void CallRunner::Open(Core* core) {
  absl::MutexLock lock(&mutex_);
  core_ = core;
}

void CallRunner::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

bool CallRunner::AwaitIdle(absl::Time deadline) {
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return calls_ == 0; };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(&idle), deadline);
}

absl::StatusOr<Core*> CallRunner::core() const {
  absl::MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("the server is shutting down");
  if (core_ == nullptr) {
    return absl::UnavailableError("the model is being loaded; wait until the health check says SERVING");
  }
  return core_;
}

CallRunner::Ticket::Ticket(CallRunner* runner) : runner_(runner), core_(runner->core()) {
  absl::MutexLock lock(&runner_->mutex_);
  const int calls = runner_->calls_++;
  if (!core_.ok()) return;
  const int limit = (*core_)->limits.max_concurrent_calls;
  if (runner_->closed_) {
    core_ = absl::UnavailableError("the server is shutting down");
  } else if (calls >= limit) {
    core_ = absl::ResourceExhaustedError(
        absl::StrCat("max_concurrent_calls: ", limit, " calls are in work already; try again later"));
  }
}

CallRunner::Ticket::~Ticket() {
  absl::MutexLock lock(&runner_->mutex_);
  --runner_->calls_;
}

void CallRunner::Log(const char* method, const absl::Status& status, absl::Time start) {
  const double milliseconds = std::round(absl::ToDoubleMilliseconds(absl::Now() - start) * 10) / 10;
  const std::string code = absl::StatusCodeToString(status.code());
  if (absl::IsInternal(status) || absl::IsDataLoss(status)) {
    LogEvent(spdlog::level::err, "call",
             {{"method", method}, {"code", code}, {"ms", milliseconds}, {"error", std::string(status.message())}});
  } else {
    LogEvent(spdlog::level::info, "call", {{"method", method}, {"code", code}, {"ms", milliseconds}});
  }
}

}  // namespace quicksave::server
