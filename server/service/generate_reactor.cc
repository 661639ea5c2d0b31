#include "server/service/generate_reactor.h"

#include <utility>

namespace quicksave::server {

GenerateReactor::GenerateReactor(CallRunner* runner, grpc::CallbackServerContext* context,
                                 const v1::GenerateRequest& request)
    : start_(absl::Now()), ticket_(runner) {
  const absl::StatusOr<Core*>& core = ticket_.core();
  if (!core.ok()) {
    Finish(core.status());
    return;
  }
  generation_ =
      std::make_shared<Generation>(*core, request, context->peer(), absl::FromChrono(context->deadline()), this);
  (*core)->waiters->Schedule([generation = generation_] { generation->Start(); });
}

bool GenerateReactor::Full() const {
  absl::MutexLock lock(&mutex_);
  return waiting_.Full();
}

void GenerateReactor::Write(v1::GenerateResponse event) {
  {
    absl::MutexLock lock(&mutex_);
    waiting_.Push(std::move(event));
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
    std::optional<v1::GenerateResponse> next = waiting_.Pop();
    last = !next;
    if (last && !finished_) {
      busy_ = false;
      return;
    }
    if (next) sending_ = *std::move(next);
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
    waiting_.Clear();
  }
  Send();
}

void GenerateReactor::OnCancel() {
  if (generation_ != nullptr) generation_->Cancel();
}

void GenerateReactor::OnDone() { delete this; }

}  // namespace quicksave::server
