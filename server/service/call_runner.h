#ifndef QUICKSAVE_SERVER_SERVICE_CALL_RUNNER_H_
#define QUICKSAVE_SERVER_SERVICE_CALL_RUNNER_H_

#include <atomic>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "server/service/core.h"
#include "server/service/status_mapping.h"

namespace quicksave::server {

// Lets calls in once the model is loaded, and counts them. gRPC's threads only pass calls on; workers do the work.
class CallRunner {
 public:
  // Until Open, calls are refused with UNAVAILABLE.
  void Open(Core* core) { core_.store(core); }

  // The core, or UNAVAILABLE while the model is being loaded.
  absl::StatusOr<Core*> core() const {
    Core* core = core_.load();
    if (core == nullptr)
      return absl::UnavailableError("the model is being loaded; wait until the health check says SERVING");
    return core;
  }

  // Runs handler(core, deadline, request, response) -> absl::Status on a worker and finishes the call with its result.
  template <class Request, class Response, class Handler>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, const char* method, const Request* request,
                                Response* response, Handler handler) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const absl::Time start = absl::Now();
    const absl::StatusOr<Core*> core = this->core();
    if (!core.ok() || calls_.fetch_add(1) >= (*core)->limits.max_concurrent_calls) {
      if (core.ok()) calls_.fetch_sub(1);
      const absl::Status refused = core.ok() ? absl::ResourceExhaustedError(absl::StrCat(
                                                   "max_concurrent_calls: ", (*core)->limits.max_concurrent_calls,
                                                   " calls are in work already; try again later"))
                                             : core.status();
      Log(method, refused, start);
      reactor->Finish(ToGrpc(refused));
      return reactor;
    }
    (*core)->workers->Schedule([this, core = *core, context, method, request, response, handler, reactor, start] {
      const absl::Status status = context->IsCancelled()
                                      ? absl::CancelledError("the caller cancelled the call")
                                      : handler(*core, absl::FromChrono(context->deadline()), *request, *response);
      calls_.fetch_sub(1);
      Log(method, status, start);
      reactor->Finish(ToGrpc(status));
    });
    return reactor;
  }

  // One line for each call that ended: method, code, time. Never what was said.
  static void Log(const char* method, const absl::Status& status, absl::Time start);

 private:
  std::atomic<Core*> core_{nullptr};
  std::atomic<int> calls_{0};
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_CALL_RUNNER_H_
