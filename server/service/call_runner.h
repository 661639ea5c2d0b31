#ifndef QUICKSAVE_SERVER_SERVICE_CALL_RUNNER_H_
#define QUICKSAVE_SERVER_SERVICE_CALL_RUNNER_H_

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "server/scheduler/call_context.h"
#include "server/service/core.h"
#include "server/service/status_mapping.h"

namespace quicksave::server {

// What a call may wait for: the store and the workers at most, or the engine and memory too.
enum class CallKind { kLight, kHeavy };

// Lets calls in once the model is loaded, and counts them until the server stops. gRPC's threads only pass calls on;
// callers do the work. Thread-safe.
class CallRunner {
 public:
  // Until Open, calls are refused with UNAVAILABLE.
  void Open(Core* core);

  // From now on new calls are refused with UNAVAILABLE; those in work go on.
  void Close();

  // Waits until no call is in work, or until the deadline; says whether none is.
  bool AwaitIdle(absl::Time deadline);

  // The core, or UNAVAILABLE while the model is being loaded and after Close.
  absl::StatusOr<Core*> core() const;

  // Counts a call as in work while it lives.
  class Ticket {
   public:
    explicit Ticket(CallRunner* runner);
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    // core(), or RESOURCE_EXHAUSTED when too many calls are in work.
    const absl::StatusOr<Core*>& core() const { return core_; }

   private:
    CallRunner* const runner_;
    absl::StatusOr<Core*> core_;
  };

  // Runs handler(core, call, request, response) -> absl::Status on a thread for its kind and finishes the call with its
  // result.
  template <class Request, class Response, class Handler>
  grpc::ServerUnaryReactor* Run(CallKind kind, grpc::CallbackServerContext* context, const char* method,
                                const Request* request, Response* response, Handler handler) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const absl::Time start = absl::Now();
    auto ticket = std::make_shared<Ticket>(this);
    if (!ticket->core().ok()) {
      Log(method, ticket->core().status(), start);
      reactor->Finish(ToGrpc(ticket->core().status()));
      return reactor;
    }
    Core* core = *ticket->core();
    WorkerPool& threads = kind == CallKind::kLight ? *core->callers : *core->waiters;
    threads.Schedule(
        [core, context, method, request, response, handler, reactor, start, ticket = std::move(ticket)]() mutable {
          const absl::Status status = context->IsCancelled()
                                          ? absl::CancelledError("the caller cancelled the call")
                                          : handler(*core,
                                                    {.client = context->peer(),
                                                     .deadline = absl::FromChrono(context->deadline()),
                                                     .cancelled = [context] { return context->IsCancelled(); }},
                                                    *request, *response);
          ticket.reset();
          Log(method, status, start);
          reactor->Finish(ToGrpc(status));
        });
    return reactor;
  }

  // One line for each call that ended: method, code, time. Never what was said.
  static void Log(const char* method, const absl::Status& status, absl::Time start);

 private:
  mutable absl::Mutex mutex_;
  Core* core_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_CALL_RUNNER_H_
