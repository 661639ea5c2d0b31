#include "server/service/tap_reactor.h"

#include <utility>

namespace quicksave::server {
namespace {

absl::Status CallerLeft() { return absl::CancelledError("the caller cancelled the call"); }

}  // namespace

TapReactor::TapReactor(CallRunner* runner, grpc::CallbackServerContext* context, const v1::ReadTapsRequest& request)
    : start_(absl::Now()), ticket_(runner), context_(context) {
  if (!ticket_.core().ok()) {
    End(ticket_.core().status());
    return;
  }
  Core* const core = *ticket_.core();
  core->waiters->Schedule([this, core, request] {
    const CallContext call{.deadline = absl::FromChrono(context_->deadline()),
                           .cancelled = [this] { return context_->IsCancelled(); }};
    absl::StatusOr<std::unique_ptr<TapReader>> reader = TapReader::Open(*core, call, request);
    if (!reader.ok()) return End(reader.status());
    reader_ = *std::move(reader);
    SendNext();
  });
}

void TapReactor::SendNext() {
  if (context_->IsCancelled()) return End(CallerLeft());
  const absl::StatusOr<bool> more = reader_->Next(sending_);
  if (!more.ok()) return End(more.status());
  if (!*more) return End(absl::OkStatus());
  StartWrite(&sending_);
}

void TapReactor::OnWriteDone(bool ok) {
  if (!ok) return End(CallerLeft());
  (*ticket_.core())->callers->Schedule([this] { SendNext(); });
}

void TapReactor::End(const absl::Status& status) {
  CallRunner::Log("ReadTaps", status, start_);
  Finish(ToGrpc(status));
}

}  // namespace quicksave::server
