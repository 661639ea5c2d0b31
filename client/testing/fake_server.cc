#include "client/testing/fake_server.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "quicksave/v1/admin_service.grpc.pb.h"
#include "quicksave/v1/graph_service.grpc.pb.h"
#include "quicksave/v1/snapshot_service.grpc.pb.h"

namespace quicksave::client {
namespace {

using grpc::ServerContext;
using grpc::Status;

class FakeSnapshotService : public v1::SnapshotService::Service {
 public:
  explicit FakeSnapshotService(FakeServer* server) : server_(server) {}

  Status Generate(ServerContext* context, const v1::GenerateRequest* request,
                  grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    return server_->AnswerStream(context, *request, writer);
  }
  Status Snapshot(ServerContext* context, const v1::SnapshotRequest* request, v1::SnapshotResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status Restore(ServerContext* context, const v1::RestoreRequest* request, v1::RestoreResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status Branch(ServerContext* context, const v1::BranchRequest* request, v1::BranchResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status Score(ServerContext* context, const v1::ScoreRequest* request, v1::ScoreResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status GetSession(ServerContext* context, const v1::GetSessionRequest* request,
                    v1::GetSessionResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status ListSessions(ServerContext* context, const v1::ListSessionsRequest* request,
                      v1::ListSessionsResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status DeleteSession(ServerContext* context, const v1::DeleteSessionRequest* request,
                       v1::DeleteSessionResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }

 private:
  FakeServer* const server_;
};

class FakeGraphService : public v1::GraphService::Service {
 public:
  explicit FakeGraphService(FakeServer* server) : server_(server) {}

  Status GetNode(ServerContext* context, const v1::GetNodeRequest* request, v1::GetNodeResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status ListNodes(ServerContext* context, const v1::ListNodesRequest* request,
                   v1::ListNodesResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status UpdateNode(ServerContext* context, const v1::UpdateNodeRequest* request,
                    v1::UpdateNodeResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status DeleteNode(ServerContext* context, const v1::DeleteNodeRequest* request,
                    v1::DeleteNodeResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status Traverse(ServerContext* context, const v1::TraverseRequest* request, v1::TraverseResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status VerifyNode(ServerContext* context, const v1::VerifyNodeRequest* request,
                    v1::VerifyNodeResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status EncodeNode(ServerContext* context, const v1::EncodeNodeRequest* request,
                    v1::EncodeNodeResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status DropEncoding(ServerContext* context, const v1::DropEncodingRequest* request,
                      v1::DropEncodingResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }

 private:
  FakeServer* const server_;
};

class FakeAdminService : public v1::AdminService::Service {
 public:
  explicit FakeAdminService(FakeServer* server) : server_(server) {}

  Status GetStatus(ServerContext* context, const v1::GetStatusRequest* request,
                   v1::GetStatusResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status CollectGarbage(ServerContext* context, const v1::CollectGarbageRequest* request,
                        v1::CollectGarbageResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status ListProfiles(ServerContext* context, const v1::ListProfilesRequest* request,
                      v1::ListProfilesResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }
  Status LoadProfile(ServerContext* context, const v1::LoadProfileRequest* request,
                     v1::LoadProfileResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }

 private:
  FakeServer* const server_;
};

class FakeHealthService : public grpc::health::v1::Health::Service {
 public:
  explicit FakeHealthService(FakeServer* server) : server_(server) {}

  Status Check(ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
               grpc::health::v1::HealthCheckResponse* response) override {
    return server_->AnswerUnary(context, *request, response);
  }

 private:
  FakeServer* const server_;
};

}  // namespace

FakeServer::FakeServer(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
  services_.push_back(std::make_unique<FakeSnapshotService>(this));
  services_.push_back(std::make_unique<FakeGraphService>(this));
  services_.push_back(std::make_unique<FakeAdminService>(this));
  services_.push_back(std::make_unique<FakeHealthService>(this));
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", credentials ? credentials : grpc::InsecureServerCredentials(), &port_);
  builder.SetMaxSendMessageSize(-1);
  for (const auto& service : services_) builder.RegisterService(service.get());
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

ClientOptions FakeServer::Options() const {
  ClientOptions options;
  options.endpoint = absl::StrCat("127.0.0.1:", port_);
  options.retry.initial_backoff = absl::Milliseconds(1);
  return options;
}

std::vector<std::string> FakeServer::Requests() const {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

void FakeServer::Note(const google::protobuf::Message& request) {
  absl::MutexLock lock(&mutex_);
  requests_.push_back(request.GetDescriptor()->name());
}

grpc::Status FakeServer::AnswerUnary(grpc::ServerContext* context, const google::protobuf::Message& request,
                                     google::protobuf::Message* response) {
  Note(request);
  return unary_ ? unary_(*context, request, response) : grpc::Status::OK;
}

grpc::Status FakeServer::AnswerStream(grpc::ServerContext* context, const v1::GenerateRequest& request,
                                      grpc::ServerWriter<v1::GenerateResponse>* writer) {
  Note(request);
  return stream_ ? stream_(*context, request, writer) : grpc::Status::OK;
}

grpc::Status ErrorWithDetails(grpc::StatusCode code, const std::string& reason, int retry_delay_ms) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("quicksave");
  (*info.mutable_metadata())["resource"] = "nodes/abc";
  details.add_details()->PackFrom(info);
  if (retry_delay_ms >= 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(retry_delay_ms / 1000);
    retry.mutable_retry_delay()->set_nanos(retry_delay_ms % 1000 * 1'000'000);
    details.add_details()->PackFrom(retry);
  }
  details.set_code(code);
  details.set_message("made for a test");
  return grpc::Status(code, details.message(), details.SerializeAsString());
}

bool AwaitCancelled(const grpc::ServerContext& context) {
  const absl::Time end = absl::Now() + absl::Seconds(30);
  while (!context.IsCancelled() && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
  return context.IsCancelled();
}

}  // namespace quicksave::client
