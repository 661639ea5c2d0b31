#ifndef QUICKSAVE_SERVER_SERVICE_TAP_REACTOR_H_
#define QUICKSAVE_SERVER_SERVICE_TAP_REACTOR_H_

#include <memory>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/service/call_runner.h"
#include "server/service/tap_reader.h"

namespace quicksave::server {

// Carries one ReadTaps to its caller. The next message is made when the one before has gone, so a slow reader keeps
// neither a thread nor memory. Deletes itself when gRPC is done with it.
class TapReactor final : public grpc::ServerWriteReactor<v1::ReadTapsResponse> {
 public:
  TapReactor(CallRunner* runner, grpc::CallbackServerContext* context, const v1::ReadTapsRequest& request);

  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  // On a thread of the callers.
  void SendNext();
  void End(const absl::Status& status);

  const absl::Time start_;
  const CallRunner::Ticket ticket_;
  grpc::CallbackServerContext* const context_;
  std::unique_ptr<TapReader> reader_;
  v1::ReadTapsResponse sending_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_TAP_REACTOR_H_
