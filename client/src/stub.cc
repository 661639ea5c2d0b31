#include "client/src/stub.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/src/endpoint.h"
#include "client/src/error_details.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "quicksave/v1/admin_service.grpc.pb.h"
#include "quicksave/v1/graph_service.grpc.pb.h"
#include "quicksave/v1/snapshot_service.grpc.pb.h"
#include "quicksave/version.h"

namespace quicksave::client {
namespace {

std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const Credentials& credentials) {
  if (!credentials.use_tls) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({.pem_root_certs = credentials.tls.root_certificates,
                               .pem_private_key = credentials.tls.client_key,
                               .pem_cert_chain = credentials.tls.client_certificate});
}

std::shared_ptr<grpc::Channel> MakeChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  const std::string own_agent = absl::StrCat("quicksave-cpp/", Version());
  arguments.SetUserAgentPrefix(options.user_agent.empty() ? own_agent
                                                          : absl::StrCat(options.user_agent, " ", own_agent));
  arguments.SetMaxReceiveMessageSize(
      static_cast<int>(std::clamp<int64_t>(options.max_receive_bytes, 0, std::numeric_limits<int>::max())));
  // gRPC's own pause after a failed connect is a second, in which retries would fail without trying.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5000);
  if (IsLocalEndpoint(options.endpoint)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!options.credentials.tls.server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.credentials.tls.server_name);
  }
  return grpc::CreateCustomChannel(options.endpoint, MakeCredentials(options.credentials), arguments);
}

absl::Status FromGrpc(const grpc::Status& status) {
  return MakeStatus(static_cast<absl::StatusCode>(status.error_code()), status.error_message(), status.error_details());
}

// One call in flight: its context, and a queue on which this thread alone waits.
class InFlight {
 public:
  InFlight(const CallLimits& limits, const std::string& bearer_token) : limits_(limits) {
    if (limits.deadline != absl::InfiniteFuture()) context_.set_deadline(absl::ToChronoTime(limits.deadline));
    if (!bearer_token.empty()) context_.AddMetadata("authorization", absl::StrCat("Bearer ", bearer_token));
  }

  ~InFlight() {
    queue_.Shutdown();
    void* tag;
    bool ok;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  grpc::ClientContext* context() { return &context_; }
  grpc::CompletionQueue* queue() { return &queue_; }

  // Waits for the one operation that is outstanding and returns its success. Cancels the call when the caller asks for
  // it; the operation then ends soon.
  bool Await() {
    if (!limits_.cancellation.has_value()) return AwaitForever();
    bool told = false;
    while (true) {
      if (!told && limits_.cancelled()) {
        context_.TryCancel();
        told = true;
      }
      void* tag;
      bool ok = false;
      const auto wake = std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kCancellationPoll);
      if (queue_.AsyncNext(&tag, &ok, wake) == grpc::CompletionQueue::GOT_EVENT) return ok;
    }
  }

 private:
  bool AwaitForever() {
    void* tag;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  const CallLimits& limits_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
};

template <typename ServiceStub, typename Request, typename Response>
using Prepare = std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> (ServiceStub::*)(grpc::ClientContext*,
                                                                                            const Request&,
                                                                                            grpc::CompletionQueue*);

template <typename ServiceStub, typename Request, typename Response>
absl::StatusOr<Response> Unary(ServiceStub& stub, Prepare<ServiceStub, Request, Response> prepare,
                               const Request& request, const CallLimits& limits, const std::string& bearer_token) {
  InFlight call(limits, bearer_token);
  const auto reader = (stub.*prepare)(call.context(), request, call.queue());
  reader->StartCall();
  Response response;
  grpc::Status status;
  reader->Finish(&response, &status, reader.get());
  call.Await();
  if (!status.ok()) return FromGrpc(status);
  return response;
}

template <typename Response>
absl::Status Stream(InFlight& call, const std::unique_ptr<grpc::ClientAsyncReader<Response>>& reader,
                    absl::FunctionRef<bool(const Response&)> on_event) {
  reader->StartCall(reader.get());
  bool more = call.Await();
  bool refused = false;
  while (more && !refused) {
    Response event;
    reader->Read(&event, reader.get());
    more = call.Await();
    if (more && !on_event(event)) {
      call.context()->TryCancel();
      refused = true;
    }
  }
  grpc::Status status;
  reader->Finish(&status, reader.get());
  call.Await();
  return refused ? absl::CancelledError("cancelled by the caller") : FromGrpc(status);
}

}  // namespace

struct Stub::Services {
  explicit Services(const ClientOptions& options)
      : channel(MakeChannel(options)), bearer_token(options.credentials.bearer_token) {}

  const std::shared_ptr<grpc::Channel> channel;
  const std::string bearer_token;
  v1::SnapshotService::Stub snapshot{channel};
  v1::GraphService::Stub graph{channel};
  v1::AdminService::Stub admin{channel};
  grpc::health::v1::Health::Stub health{channel};
};

Stub::Stub(const ClientOptions& options) : services_(std::make_unique<Services>(options)) {}
Stub::~Stub() = default;

absl::Status Stub::Generate(const v1::GenerateRequest& request, const CallLimits& limits,
                            absl::FunctionRef<bool(const v1::GenerateResponse&)> on_event) {
  InFlight call(limits, services_->bearer_token);
  return Stream<v1::GenerateResponse>(
      call, services_->snapshot.PrepareAsyncGenerate(call.context(), request, call.queue()), on_event);
}

absl::Status Stub::ReadTaps(const v1::ReadTapsRequest& request, const CallLimits& limits,
                            absl::FunctionRef<bool(const v1::ReadTapsResponse&)> on_event) {
  InFlight call(limits, services_->bearer_token);
  return Stream<v1::ReadTapsResponse>(
      call, services_->snapshot.PrepareAsyncReadTaps(call.context(), request, call.queue()), on_event);
}

absl::StatusOr<v1::SnapshotResponse> Stub::Call(const v1::SnapshotRequest& request, const CallLimits& limits) {
  return Unary(services_->snapshot, &v1::SnapshotService::Stub::PrepareAsyncSnapshot, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::RestoreResponse> Stub::Call(const v1::RestoreRequest& request, const CallLimits& limits) {
  return Unary(services_->snapshot, &v1::SnapshotService::Stub::PrepareAsyncRestore, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::BranchResponse> Stub::Call(const v1::BranchRequest& request, const CallLimits& limits) {
  return Unary(services_->snapshot, &v1::SnapshotService::Stub::PrepareAsyncBranch, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::ScoreResponse> Stub::Call(const v1::ScoreRequest& request, const CallLimits& limits) {
  return Unary(services_->snapshot, &v1::SnapshotService::Stub::PrepareAsyncScore, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::GetSessionResponse> Stub::Call(const v1::GetSessionRequest& request, const CallLimits& limits) {
  return Unary(services_->snapshot, &v1::SnapshotService::Stub::PrepareAsyncGetSession, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::ListSessionsResponse> Stub::Call(const v1::ListSessionsRequest& request, const CallLimits& limits) {
  return Unary(services_->snapshot, &v1::SnapshotService::Stub::PrepareAsyncListSessions, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::DeleteSessionResponse> Stub::Call(const v1::DeleteSessionRequest& request,
                                                     const CallLimits& limits) {
  return Unary(services_->snapshot, &v1::SnapshotService::Stub::PrepareAsyncDeleteSession, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::GetNodeResponse> Stub::Call(const v1::GetNodeRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncGetNode, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::ListNodesResponse> Stub::Call(const v1::ListNodesRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncListNodes, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::UpdateNodeResponse> Stub::Call(const v1::UpdateNodeRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncUpdateNode, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::DeleteNodeResponse> Stub::Call(const v1::DeleteNodeRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncDeleteNode, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::TraverseResponse> Stub::Call(const v1::TraverseRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncTraverse, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::VerifyNodeResponse> Stub::Call(const v1::VerifyNodeRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncVerifyNode, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::EncodeNodeResponse> Stub::Call(const v1::EncodeNodeRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncEncodeNode, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::DropEncodingResponse> Stub::Call(const v1::DropEncodingRequest& request, const CallLimits& limits) {
  return Unary(services_->graph, &v1::GraphService::Stub::PrepareAsyncDropEncoding, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::GetStatusResponse> Stub::Call(const v1::GetStatusRequest& request, const CallLimits& limits) {
  return Unary(services_->admin, &v1::AdminService::Stub::PrepareAsyncGetStatus, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::CollectGarbageResponse> Stub::Call(const v1::CollectGarbageRequest& request,
                                                      const CallLimits& limits) {
  return Unary(services_->admin, &v1::AdminService::Stub::PrepareAsyncCollectGarbage, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::ListProfilesResponse> Stub::Call(const v1::ListProfilesRequest& request, const CallLimits& limits) {
  return Unary(services_->admin, &v1::AdminService::Stub::PrepareAsyncListProfiles, request, limits,
               services_->bearer_token);
}

absl::StatusOr<v1::LoadProfileResponse> Stub::Call(const v1::LoadProfileRequest& request, const CallLimits& limits) {
  return Unary(services_->admin, &v1::AdminService::Stub::PrepareAsyncLoadProfile, request, limits,
               services_->bearer_token);
}

absl::StatusOr<grpc::health::v1::HealthCheckResponse> Stub::Call(const grpc::health::v1::HealthCheckRequest& request,
                                                                 const CallLimits& limits) {
  return Unary(services_->health, &grpc::health::v1::Health::Stub::PrepareAsyncCheck, request, limits,
               services_->bearer_token);
}

}  // namespace quicksave::client
