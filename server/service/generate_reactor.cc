#include "server/service/generate_reactor.h"

#include <utility>

namespace quicksave::server {
namespace {

// Tokens that may wait for a slow reader before its generation is left out of steps.
constexpr int kMaxWaitingTokens = 64;

}  // namespace

GenerateReactor::GenerateReactor(CallRunner* runner, grpc::CallbackServerContext* context,
                                 const v1::GenerateRequest& request)
    : start_(absl::Now()), ticket_(runner) {
  const absl::StatusOr<Core*>& core = ticket_.core();
  if (!core.ok()) {
    Finish(core.status());
    return;
  }
  generation_ = std::make_shared<Generation>(*core, request, absl::FromChrono(context->deadline()), this);
  (*core)->workers->Schedule([generation = generation_] { generation->Start(); });
}

bool GenerateReactor::Full() const {
  absl::MutexLock lock(&mutex_);
  return !waiting_.empty() && waiting_.back().delta().tokens_size() >= kMaxWaitingTokens;
}

void GenerateReactor::Write(v1::GenerateResponse event) {
  {
    absl::MutexLock lock(&mutex_);
    if (event.has_delta() && !waiting_.empty() && waiting_.back().has_delta()) {
      v1::GenerateDelta* last = waiting_.back().mutable_delta();
      last->mutable_text()->append(event.delta().text());
      last->mutable_tokens()->MergeFrom(event.delta().tokens());
    } else {
      waiting_.push_back(std::move(event));
    }
    if (std::exchange(busy_, true)) return;
  }
  Send();
}

void GenerateReactor::Finish(const absl::Status& status) {
  {
    absl::MutexLock lock(&mutex_);
    finished_ = status;
    if (std::exchange(busy_, true)) return;
  }
  Send();
}

void GenerateReactor::Send() {
  bool last = false;
  {
    absl::MutexLock lock(&mutex_);
    last = waiting_.empty();
    if (last && !finished_) {
      busy_ = false;
      return;
    }
    if (!last) {
      sending_ = std::move(waiting_.front());
      waiting_.pop_front();
    }
  }
  if (!last) {
    StartWrite(&sending_);
    return;
  }
  // Nothing changes the status once it is set, and gRPC may delete this from here on.
  const absl::Status status = FinalStatus();
  CallRunner::Log("Generate", status, start_);
  ServerWriteReactor::Finish(ToGrpc(status));
}

absl::Status GenerateReactor::FinalStatus() const {
  absl::MutexLock lock(&mutex_);
  return *finished_;
}

void GenerateReactor::OnWriteDone(bool ok) {
  if (!ok) {
    // The caller is gone: nothing more can be written.
    generation_->Cancel();
    absl::MutexLock lock(&mutex_);
    waiting_.clear();
  }
  Send();
}

void GenerateReactor::OnCancel() {
  if (generation_ != nullptr) generation_->Cancel();
}

void GenerateReactor::OnDone() { delete this; }

}  // namespace quicksave::server
