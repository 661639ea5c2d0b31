#ifndef QUICKSAVE_SERVER_SERVICE_GENERATE_REACTOR_H_
#define QUICKSAVE_SERVER_SERVICE_GENERATE_REACTOR_H_

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "server/service/call_runner.h"
#include "server/service/event_queue.h"
#include "server/service/generation.h"

namespace quicksave::server {

// Carries one Generation's events to its caller. Deletes itself when gRPC is done with it.
class GenerateReactor final : public grpc::ServerWriteReactor<v1::GenerateResponse>, public GenerateSink {
 public:
  GenerateReactor(CallRunner* runner, grpc::CallbackServerContext* context, const v1::GenerateRequest& request);

  bool Full() const override;
  void Write(v1::GenerateResponse event) override;
  void Finish(const absl::Status& status) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Sends the next event, or the status when there is none left and it is known. One send at a time.
  void Send();
  absl::Status FinalStatus() const;

  const absl::Time start_;
  const CallRunner::Ticket ticket_;
  std::shared_ptr<Generation> generation_;
  mutable absl::Mutex mutex_;
  EventQueue waiting_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateResponse sending_;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> finished_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_GENERATE_REACTOR_H_
