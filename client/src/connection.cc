#include "quicksave/connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/src/convert.h"
#include "client/src/endpoint.h"
#include "client/src/error_details.h"
#include "client/src/retry.h"
#include "client/src/stub.h"
#include "client/src/tap_collector.h"

namespace quicksave::client {
namespace {

// Whether a call may be sent twice.
enum class Repeatable { kNo, kYes };

Repeatable IfNamed(const std::string& request_id) { return request_id.empty() ? Repeatable::kNo : Repeatable::kYes; }

// A generation is repeatable when the server remembers it, or when nothing of it lasts.
Repeatable IsRepeatable(const GenerateRequest& request) {
  const bool lasts =
      request.keep_session || request.save.has_value() || std::holds_alternative<FromSession>(request.start);
  return lasts ? IfNamed(request.request_id) : Repeatable::kYes;
}

class GrpcConnection : public Connection {
 public:
  explicit GrpcConnection(const ClientOptions& options) : options_(options), stub_(options) {}

  absl::StatusOr<GenerateFinished> Generate(const GenerateRequest& request, GenerateCallback callback,
                                            const CallOptions& options) override {
    const v1::GenerateRequest message = ToProto(request);
    const CallLimits limits = Resolve(options, options_.generate_timeout);
    absl::StatusOr<GenerateFinished> finished = absl::UnknownError("no event");
    bool delivered = false;
    absl::Status error;
    const absl::Status last = RunWithRetries(Policy(IsRepeatable(request)), limits, SystemRetryClock(), [&](int) {
      const absl::Status status = stub_.Generate(message, limits, [&](const v1::GenerateResponse& event) {
        delivered = true;
        if (event.has_finished()) finished = FromProto(event.finished());
        return callback(FromProto(event)) || event.has_finished();
      });
      error = status;
      // After an event, another attempt would repeat what the caller has already seen: end the loop.
      return delivered ? absl::OkStatus() : status;
    });
    if (!last.ok()) return Explain(last);
    if (!error.ok()) return Explain(error);
    if (!finished.ok()) return absl::InternalError("the server ended a generation without saying how it ended");
    return finished;
  }

  absl::StatusOr<SavedNode> Snapshot(const SnapshotRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), IfNamed(request.request_id), options));
  }

  absl::StatusOr<RestoreResponse> Restore(const RestoreRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), IfNamed(request.request_id), options));
  }

  absl::StatusOr<BranchResponse> Branch(const BranchRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), IfNamed(request.request_id), options));
  }

  absl::StatusOr<ScoreResponse> Score(const ScoreRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), Repeatable::kYes, options));
  }

  absl::StatusOr<Session> GetSession(const GetSessionRequest& request, const CallOptions& options) override {
    const auto response = Unary(ToProto(request), Repeatable::kYes, options);
    if (!response.ok()) return response.status();
    return FromProto(response->session());
  }

  absl::StatusOr<ListSessionsResponse> ListSessions(const ListSessionsRequest& request,
                                                    const CallOptions& options) override {
    return Converted(Unary(ToProto(request), Repeatable::kYes, options));
  }

  absl::Status DeleteSession(const DeleteSessionRequest& request, const CallOptions& options) override {
    const v1::DeleteSessionRequest message = ToProto(request);
    const CallLimits limits = Resolve(options, options_.timeout);
    return Explain(RunWithRetries(options_.retry, limits, SystemRetryClock(), [&](int attempt) {
      const absl::Status status = stub_.Call(message, limits).status();
      // An attempt whose answer was lost may have deleted it.
      return attempt > 1 && absl::IsNotFound(status) ? absl::OkStatus() : status;
    }));
  }

  absl::StatusOr<HiddenStates> ReadTaps(const ReadTapsRequest& request, const CallOptions& options) override {
    const v1::ReadTapsRequest message = ToProto(request);
    const CallLimits limits = Resolve(options, options_.timeout);
    TapCollector collector;
    const absl::Status last = RunWithRetries(options_.retry, limits, SystemRetryClock(), [&](int) {
      collector = TapCollector();
      return stub_.ReadTaps(message, limits,
                            [&](const v1::ReadTapsResponse& response) { return collector.Add(response); });
    });
    // The call was cancelled because of what the collector found.
    if (!collector.status().ok()) return collector.status();
    if (!last.ok()) return Explain(last);
    return std::move(collector).Finish();
  }

  absl::StatusOr<Node> GetNode(const GetNodeRequest& request, const CallOptions& options) override {
    const auto response = Unary(ToProto(request), Repeatable::kYes, options);
    if (!response.ok()) return response.status();
    return FromProto(response->node());
  }

  absl::StatusOr<ListNodesResponse> ListNodes(const ListNodesRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), Repeatable::kYes, options));
  }

  absl::StatusOr<Node> UpdateNode(const UpdateNodeRequest& request, const CallOptions& options) override {
    const auto response = Unary(ToProto(request), IfNamed(request.request_id), options);
    if (!response.ok()) return response.status();
    return FromProto(response->node());
  }

  absl::StatusOr<DeleteNodeResponse> DeleteNode(const DeleteNodeRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), IfNamed(request.request_id), options));
  }

  absl::StatusOr<TraverseResponse> Traverse(const TraverseRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), Repeatable::kYes, options));
  }

  absl::StatusOr<VerifyNodeResponse> VerifyNode(const VerifyNodeRequest& request, const CallOptions& options) override {
    return Converted(Unary(ToProto(request), Repeatable::kYes, options));
  }

  absl::StatusOr<EncodeNodeResponse> EncodeNode(const EncodeNodeRequest& request, const CallOptions& options) override {
    if (!request.encoding.point.empty() && request.encoding.step) {
      return absl::InvalidArgumentError("encoding: point and step are both set; give one of them");
    }
    CallOptions limited = options;
    if (!limited.timeout) limited.timeout = options_.generate_timeout;
    return Converted(Unary(ToProto(request), IfNamed(request.request_id), limited));
  }

  absl::StatusOr<Node> DropEncoding(const DropEncodingRequest& request, const CallOptions& options) override {
    const auto response = Unary(ToProto(request), IfNamed(request.request_id), options);
    if (!response.ok()) return response.status();
    return FromProto(response->node());
  }

  absl::StatusOr<ServerStatus> GetStatus(const CallOptions& options) override {
    return Converted(Unary(v1::GetStatusRequest(), Repeatable::kYes, options));
  }

  absl::StatusOr<CollectGarbageResponse> CollectGarbage(const CallOptions& options) override {
    return Converted(Unary(v1::CollectGarbageRequest(), Repeatable::kYes, options));
  }

  absl::StatusOr<ListProfilesResponse> ListProfiles(const CallOptions& options) override {
    return Converted(Unary(v1::ListProfilesRequest(), Repeatable::kYes, options));
  }

  absl::StatusOr<Profile> LoadProfile(const LoadProfileRequest& request, const CallOptions& options) override {
    const auto response = Unary(ToProto(request), Repeatable::kYes, options);
    if (!response.ok()) return response.status();
    return FromProto(response->profile());
  }

  absl::StatusOr<Health> CheckHealth(absl::string_view service, const CallOptions& options) override {
    grpc::health::v1::HealthCheckRequest message;
    message.set_service(service.data(), service.size());
    const auto response = Unary(message, Repeatable::kYes, options);
    if (!response.ok()) return response.status();
    switch (response->status()) {
      case grpc::health::v1::HealthCheckResponse::SERVING:
        return Health::kServing;
      case grpc::health::v1::HealthCheckResponse::NOT_SERVING:
        return Health::kNotServing;
      default:
        return Health::kUnknown;
    }
  }

 private:
  template <typename Response>
  static auto Converted(const absl::StatusOr<Response>& response) -> absl::StatusOr<decltype(FromProto(*response))> {
    if (!response.ok()) return response.status();
    return FromProto(*response);
  }

  template <typename Request>
  auto Unary(const Request& message, Repeatable repeatable, const CallOptions& options)
      -> decltype(std::declval<Stub&>().Call(message, CallLimits())) {
    const CallLimits limits = Resolve(options, options_.timeout);
    decltype(stub_.Call(message, limits)) response = absl::UnknownError("not called");
    const absl::Status last = RunWithRetries(Policy(repeatable), limits, SystemRetryClock(), [&](int) {
      response = stub_.Call(message, limits);
      return response.status();
    });
    if (!last.ok()) return Explain(last);
    return response;
  }

  RetryPolicy Policy(Repeatable repeatable) const {
    RetryPolicy policy = options_.retry;
    if (repeatable == Repeatable::kNo) policy.max_attempts = 1;
    return policy;
  }

  static CallLimits Resolve(const CallOptions& options, absl::Duration default_timeout) {
    return {.deadline = absl::Now() + options.timeout.value_or(default_timeout), .cancellation = options.cancellation};
  }

  // Says what gRPC's own errors, which name neither server nor cause well, mean for the caller.
  absl::Status Explain(const absl::Status& status) const {
    if (HasDetails(status)) return status;
    switch (status.code()) {
      case absl::StatusCode::kUnavailable:
        return absl::UnavailableError(absl::StrCat("no answer from ", options_.endpoint, ": ", status.message()));
      case absl::StatusCode::kDeadlineExceeded:
        return absl::DeadlineExceededError(
            absl::StrCat("no complete answer from ", options_.endpoint, " within the time limit of the call"));
      default:
        return status;
    }
  }

  const ClientOptions options_;
  Stub stub_;
};

absl::Status Validate(const ClientOptions& options) {
  const Credentials& credentials = options.credentials;
  if (options.endpoint.empty()) return absl::InvalidArgumentError("endpoint: empty; give host:port");
  if (credentials.tls.client_certificate.empty() != credentials.tls.client_key.empty()) {
    return absl::InvalidArgumentError("credentials: client_certificate and client_key go together; only one is set");
  }
  if (!credentials.bearer_token.empty() && !credentials.use_tls && !credentials.allow_plaintext_token &&
      !IsLocalEndpoint(options.endpoint)) {
    return absl::InvalidArgumentError(absl::StrCat("credentials: the bearer token would travel to ", options.endpoint,
                                                   " in plain text; use TLS, or set allow_plaintext_token"));
  }
  if (options.retry.max_attempts < 1) return absl::InvalidArgumentError("retry: max_attempts is below 1");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<Connection>> MakeConnection(const ClientOptions& options) {
  const absl::Status valid = Validate(options);
  if (!valid.ok()) return valid;
  return std::make_shared<GrpcConnection>(options);
}

}  // namespace quicksave::client
