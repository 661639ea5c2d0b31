// A Quicksave server without a model, for tests of the client over the real wire: a test says what it answers.

#ifndef QUICKSAVE_CLIENT_TESTING_FAKE_SERVER_H_
#define QUICKSAVE_CLIENT_TESTING_FAKE_SERVER_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/sync_stream.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/message.h"
#include "quicksave/options.h"
#include "quicksave/v1/snapshot_service.pb.h"

namespace quicksave::client {

// Listens on a free loopback port from construction to destruction. Thread-safe once its handlers are set.
class FakeServer {
 public:
  // Answers a call that is not a stream. `request` and `response` are the messages of the method that was called.
  using Unary = std::function<grpc::Status(grpc::ServerContext&, const google::protobuf::Message& request,
                                           google::protobuf::Message* response)>;
  using Stream = std::function<grpc::Status(grpc::ServerContext&, const v1::GenerateRequest& request,
                                            grpc::ServerWriter<v1::GenerateResponse>* writer)>;

  // Without handlers every call is answered with an empty message. `credentials` null is plain text.
  explicit FakeServer(const std::shared_ptr<grpc::ServerCredentials>& credentials = nullptr);
  ~FakeServer();

  // Set before the first call.
  void set_unary(Unary unary) { unary_ = std::move(unary); }
  void set_stream(Stream stream) { stream_ = std::move(stream); }

  int port() const { return port_; }
  // Options of a client of this server, with a retry policy that waits a millisecond.
  ClientOptions Options() const;
  // Names of the requests that have come, in order, for example `GetNodeRequest`.
  std::vector<std::string> Requests() const;

  // For the services: notes the request and asks the handler.
  grpc::Status AnswerUnary(grpc::ServerContext* context, const google::protobuf::Message& request,
                           google::protobuf::Message* response);
  grpc::Status AnswerStream(grpc::ServerContext* context, const v1::GenerateRequest& request,
                            grpc::ServerWriter<v1::GenerateResponse>* writer);

 private:
  void Note(const google::protobuf::Message& request);

  Unary unary_;
  Stream stream_;
  mutable absl::Mutex mutex_;
  std::vector<std::string> requests_ ABSL_GUARDED_BY(mutex_);
  int port_ = 0;
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::unique_ptr<grpc::Server> server_;
};

// Returns an error as the server makes them: with ErrorInfo and, unless `retry_delay_ms` is negative, RetryInfo.
grpc::Status ErrorWithDetails(grpc::StatusCode code, const std::string& reason, int retry_delay_ms = -1);

// Returns once the client has given the call up; false if it has not after 30 seconds.
bool AwaitCancelled(const grpc::ServerContext& context);

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_TESTING_FAKE_SERVER_H_
