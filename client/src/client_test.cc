// The client over the real wire, against a server that answers as each test says. See client_generate_test.cc for
// streams.

#include "quicksave/client.h"

#include <atomic>
#include <cstdlib>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/testing/fake_server.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.pb.h"
#include "gtest/gtest.h"
#include "quicksave/v1/graph_service.pb.h"

namespace quicksave::client {
namespace {

using google::protobuf::Message;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

class ClientTest : public ::testing::Test {
 protected:
  Client MakeClient() { return MakeClient(server_.Options()); }
  static Client MakeClient(const ClientOptions& options) { return Client::Connect(options).value(); }

  // Answers the first `failures` calls with `status`, then with empty messages.
  void FailFirst(int failures, const grpc::Status& status) {
    server_.set_unary([this, failures, status](grpc::ServerContext&, const Message&, Message*) {
      return ++attempts_ <= failures ? status : grpc::Status::OK;
    });
  }

  std::atomic<int> attempts_{0};
  FakeServer server_;
};

TEST_F(ClientTest, EachMethodCallsItsOwnRemoteMethod) {
  const Client client = MakeClient();
  EXPECT_TRUE(client.Snapshot({}).ok());
  EXPECT_TRUE(client.Restore({}).ok());
  EXPECT_TRUE(client.Branch({}).ok());
  EXPECT_TRUE(client.Score({}).ok());
  EXPECT_TRUE(client.GetSession({}).ok());
  EXPECT_TRUE(client.ListSessions().ok());
  EXPECT_TRUE(client.DeleteSession({}).ok());
  EXPECT_TRUE(client.GetNode({}).ok());
  EXPECT_TRUE(client.ListNodes().ok());
  EXPECT_TRUE(client.UpdateNode({}).ok());
  EXPECT_TRUE(client.DeleteNode({}).ok());
  EXPECT_TRUE(client.Traverse({}).ok());
  EXPECT_TRUE(client.VerifyNode({}).ok());
  EXPECT_TRUE(client.EncodeNode({}).ok());
  EXPECT_TRUE(client.DropEncoding({}).ok());
  EXPECT_TRUE(client.GetStatus().ok());
  EXPECT_TRUE(client.CollectGarbage().ok());
  EXPECT_TRUE(client.ListProfiles().ok());
  EXPECT_TRUE(client.LoadProfile({}).ok());
  EXPECT_TRUE(client.CheckHealth().ok());
  EXPECT_THAT(server_.Requests(),
              ElementsAre("SnapshotRequest", "RestoreRequest", "BranchRequest", "ScoreRequest", "GetSessionRequest",
                          "ListSessionsRequest", "DeleteSessionRequest", "GetNodeRequest", "ListNodesRequest",
                          "UpdateNodeRequest", "DeleteNodeRequest", "TraverseRequest", "VerifyNodeRequest",
                          "EncodeNodeRequest", "DropEncodingRequest", "GetStatusRequest", "CollectGarbageRequest",
                          "ListProfilesRequest", "LoadProfileRequest", "HealthCheckRequest"));
}

TEST_F(ClientTest, AnswerIsReturned) {
  server_.set_unary([](grpc::ServerContext&, const Message& request, Message* response) {
    const auto& get = dynamic_cast<const v1::GetNodeRequest&>(request);
    v1::Node* node = dynamic_cast<v1::GetNodeResponse*>(response)->mutable_node();
    node->set_name(get.name());
    node->set_token_count(get.view() == v1::NODE_VIEW_FULL ? 7 : 0);
    return grpc::Status::OK;
  });
  const absl::StatusOr<Node> node = MakeClient().GetNode({.name = "nodes/abc", .view = View::kFull});
  ASSERT_TRUE(node.ok()) << node.status();
  EXPECT_EQ(node->name, "nodes/abc");
  EXPECT_EQ(node->token_count, 7);
}

TEST_F(ClientTest, ReadIsRetriedUntilItSucceeds) {
  FailFirst(2, grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining"));
  EXPECT_TRUE(MakeClient().GetNode({.name = "nodes/abc"}).ok());
  EXPECT_EQ(attempts_, 3);
}

TEST_F(ClientTest, ReadIsGivenUpAfterMaxAttempts) {
  FailFirst(100, grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining"));
  const absl::Status status = MakeClient().GetNode({.name = "nodes/abc"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("draining"));
  EXPECT_EQ(attempts_, server_.Options().retry.max_attempts);
}

TEST_F(ClientTest, ChangeIsRetriedWithTheSameGeneratedRequestId) {
  std::vector<std::string> ids;
  server_.set_unary([&ids](grpc::ServerContext&, const Message& request, Message*) {
    ids.push_back(dynamic_cast<const v1::SnapshotRequest&>(request).request_id());
    return ids.size() < 3 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining") : grpc::Status::OK;
  });
  const Client client = MakeClient();
  EXPECT_TRUE(client.Snapshot({.session = "sessions/s"}).ok());
  ASSERT_EQ(ids.size(), 3);
  EXPECT_THAT(ids[0], MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(ids[0], ids[2]);
  EXPECT_TRUE(client.Snapshot({.session = "sessions/s"}).ok());
  EXPECT_NE(ids[3], ids[0]) << "another call is another request";
}

TEST_F(ClientTest, CallersRequestIdIsKept) {
  std::string id;
  server_.set_unary([&id](grpc::ServerContext&, const Message& request, Message*) {
    id = dynamic_cast<const v1::DeleteNodeRequest&>(request).request_id();
    return grpc::Status::OK;
  });
  EXPECT_TRUE(MakeClient().DeleteNode({.name = "nodes/abc", .request_id = "mine"}).ok());
  EXPECT_EQ(id, "mine");
}

TEST_F(ClientTest, ChangeWithoutRequestIdIsNotRetried) {
  FailFirst(100, grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining"));
  const auto connection = MakeConnection(server_.Options()).value();
  EXPECT_EQ(connection->Restore({.node = "nodes/abc"}, {}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(attempts_, 1);
}

TEST_F(ClientTest, ChangesOfEncodingsAreRetriedWithTheirRequestId) {
  std::vector<std::string> ids;
  server_.set_unary([&ids](grpc::ServerContext&, const Message& request, Message*) {
    const auto* encode = dynamic_cast<const v1::EncodeNodeRequest*>(&request);
    ids.push_back(encode != nullptr ? encode->request_id()
                                    : dynamic_cast<const v1::DropEncodingRequest&>(request).request_id());
    return ids.size() % 2 == 1 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining") : grpc::Status::OK;
  });
  const Client client = MakeClient();
  EXPECT_TRUE(client.EncodeNode({.name = "nodes/abc", .drop_saved = true, .etag = "1-1"}).ok());
  EXPECT_TRUE(client.DropEncoding({.name = "nodes/abc", .what = DropSaved(), .request_id = "mine"}).ok());
  ASSERT_EQ(ids.size(), 4);
  EXPECT_NE(ids[0], "");
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(ids[2], "mine");
  EXPECT_EQ(ids[3], "mine");
}

TEST_F(ClientTest, ChangesOfEncodingsWithoutRequestIdAreNotRetried) {
  FailFirst(100, grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining"));
  const auto connection = MakeConnection(server_.Options()).value();
  EXPECT_EQ(connection->EncodeNode({.name = "nodes/abc"}, {}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(attempts_, 1);
  EXPECT_EQ(connection->DropEncoding({.name = "nodes/abc", .what = DropSaved()}, {}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(attempts_, 2);
}

TEST_F(ClientTest, EncodingWithTwoDialsIsRefused) {
  const absl::Status status = MakeClient().EncodeNode({.encoding = {.point = "fine", .step = 0.5f}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(server_.Requests(), IsEmpty());
}

TEST_F(ClientTest, EncodingHasTheTimeOfAGeneration) {
  server_.set_unary([](grpc::ServerContext& context, const Message&, Message*) {
    EXPECT_TRUE(AwaitCancelled(context));
    return grpc::Status::OK;
  });
  ClientOptions options = server_.Options();
  options.generate_timeout = absl::Milliseconds(50);
  const Client client = MakeClient(options);
  EXPECT_EQ(client.EncodeNode({.name = "nodes/abc"}).status().code(), absl::StatusCode::kDeadlineExceeded);
  options.generate_timeout = absl::Hours(1);
  EXPECT_EQ(MakeClient(options).EncodeNode({}, {.timeout = absl::Milliseconds(50)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, FullServerIsTriedAgainWhenItSaysWhen) {
  FailFirst(1, ErrorWithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", 30));
  const absl::Time start = absl::Now();
  EXPECT_TRUE(MakeClient().Score({}).ok());
  EXPECT_EQ(attempts_, 2);
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(30));
}

TEST_F(ClientTest, FullServerIsNotTriedAgainWhenItDoesNotSayWhen) {
  FailFirst(1, ErrorWithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, "KV_MEMORY"));
  EXPECT_EQ(ErrorReason(MakeClient().Score({}).status()), "KV_MEMORY");
  EXPECT_EQ(attempts_, 1);
}

TEST_F(ClientTest, RetryThatWouldEndAfterTheDeadlineIsNotWaitedFor) {
  FailFirst(1, ErrorWithDetails(grpc::StatusCode::RESOURCE_EXHAUSTED, "QUEUE_FULL", 3'600'000));
  const absl::Status status = MakeClient().Score({}, {.timeout = absl::Seconds(30)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorRetryDelay(status), absl::Hours(1));
  EXPECT_EQ(attempts_, 1);
}

TEST_F(ClientTest, ErrorCarriesCodeMessageReasonAndMetadata) {
  FailFirst(100, ErrorWithDetails(grpc::StatusCode::NOT_FOUND, "NODE_NOT_FOUND"));
  const absl::Status status = MakeClient().GetNode({.name = "nodes/abc"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(), "made for a test");
  EXPECT_EQ(ErrorReason(status), "NODE_NOT_FOUND");
  EXPECT_THAT(ErrorMetadata(status), ElementsAre(std::pair("resource", "nodes/abc")));
  EXPECT_EQ(ErrorRetryDelay(status), std::nullopt);
  EXPECT_EQ(attempts_, 1) << "only transient errors are retried";
}

TEST_F(ClientTest, SessionThatIsGoneOnARetryCountsAsDeleted) {
  server_.set_unary([this](grpc::ServerContext&, const Message&, Message*) {
    return ++attempts_ == 1 ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "lost")
                            : grpc::Status(grpc::StatusCode::NOT_FOUND, "no such session");
  });
  const Client client = MakeClient();
  EXPECT_TRUE(client.DeleteSession({.name = "sessions/s"}).ok());
  EXPECT_EQ(client.DeleteSession({.name = "sessions/s"}).code(), absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, DeadlineEndsACallThatHangs) {
  server_.set_unary([](grpc::ServerContext& context, const Message&, Message*) {
    EXPECT_TRUE(AwaitCancelled(context));
    return grpc::Status::OK;
  });
  const Client client = MakeClient();
  const absl::Status status = client.GetNode({.name = "nodes/abc"}, {.timeout = absl::Milliseconds(50)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr(server_.Options().endpoint));
  ClientOptions options = server_.Options();
  options.timeout = absl::Milliseconds(50);
  EXPECT_EQ(MakeClient(options).GetStatus().status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, CancellationFromAnotherThreadEndsTheCallAndTheServersWork) {
  absl::Notification entered, left;
  server_.set_unary([&](grpc::ServerContext& context, const Message&, Message*) {
    entered.Notify();
    EXPECT_TRUE(AwaitCancelled(context));
    left.Notify();
    return grpc::Status::OK;
  });
  const CancellationToken token;
  std::thread other([&] {
    entered.WaitForNotification();
    token.Cancel();
  });
  const absl::Status status = MakeClient().GetNode({.name = "nodes/abc"}, {.cancellation = token}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  left.WaitForNotification();
  other.join();
}

TEST_F(ClientTest, CancellationEndsTheWaitBetweenAttempts) {
  const CancellationToken token;
  server_.set_unary([&token, this](grpc::ServerContext&, const Message&, Message*) {
    ++attempts_;
    token.Cancel();
    return ErrorWithDetails(grpc::StatusCode::UNAVAILABLE, "STARTING", 20'000);
  });
  const absl::Time start = absl::Now();
  const absl::Status status = MakeClient().GetStatus({.cancellation = token}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_LT(absl::Now() - start, absl::Seconds(15));
  EXPECT_EQ(attempts_, 1);
}

TEST_F(ClientTest, ServerThatIsNotThereIsNamed) {
  ClientOptions options;
  {
    const FakeServer gone;
    options = gone.Options();
  }
  const absl::Status status = MakeClient(options).GetStatus().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), StartsWith(absl::StrCat("no answer from ", options.endpoint)));
}

TEST_F(ClientTest, TokenAndUserAgentAreSent) {
  std::string authorization, user_agent;
  server_.set_unary([&](grpc::ServerContext& context, const Message&, Message*) {
    for (const auto& [key, value] : context.client_metadata()) {
      if (key == "authorization") authorization.assign(value.data(), value.size());
      if (key == "user-agent") user_agent.assign(value.data(), value.size());
    }
    return grpc::Status::OK;
  });
  ClientOptions options = server_.Options();
  options.credentials.bearer_token = "secret";
  options.user_agent = "my-program/1.0";
  EXPECT_TRUE(MakeClient(options).GetStatus().ok());
  EXPECT_EQ(authorization, "Bearer secret");
  EXPECT_THAT(user_agent, AllOf(StartsWith("my-program/1.0 quicksave-cpp/"), HasSubstr("grpc-c++/")));
}

TEST_F(ClientTest, AnswerOfManyMegabytesIsAccepted) {
  server_.set_unary([](grpc::ServerContext&, const Message&, Message* response) {
    dynamic_cast<v1::GetNodeResponse*>(response)->mutable_node()->set_text(std::string(40 << 20, 'x'));
    return grpc::Status::OK;
  });
  const absl::StatusOr<Node> node = MakeClient().GetNode({.name = "nodes/abc"});
  ASSERT_TRUE(node.ok()) << node.status();
  EXPECT_EQ(node->text.size(), 40 << 20);
  ClientOptions options = server_.Options();
  options.max_receive_bytes = 1 << 20;
  EXPECT_EQ(MakeClient(options).GetNode({.name = "nodes/abc"}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(ClientTest, HealthIsTranslated) {
  auto health = grpc::health::v1::HealthCheckResponse::SERVING;
  server_.set_unary([&health](grpc::ServerContext&, const Message& request, Message* response) {
    if (dynamic_cast<const grpc::health::v1::HealthCheckRequest&>(request).service() == "no.such.Service") {
      return grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown service");
    }
    dynamic_cast<grpc::health::v1::HealthCheckResponse*>(response)->set_status(health);
    return grpc::Status::OK;
  });
  const Client client = MakeClient();
  EXPECT_EQ(client.CheckHealth().value(), Health::kServing);
  health = grpc::health::v1::HealthCheckResponse::NOT_SERVING;
  EXPECT_EQ(client.CheckHealth().value(), Health::kNotServing);
  EXPECT_EQ(client.CheckHealth("no.such.Service").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ClientTest, ManyThreadsShareOneClient) {
  server_.set_unary([](grpc::ServerContext&, const Message& request, Message* response) {
    dynamic_cast<v1::GetNodeResponse*>(response)->mutable_node()->set_name(
        dynamic_cast<const v1::GetNodeRequest&>(request).name());
    return grpc::Status::OK;
  });
  const Client client = MakeClient();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&client, thread] {
      for (int call = 0; call < 50; ++call) {
        const std::string name = absl::StrCat("nodes/", thread, "-", call);
        EXPECT_EQ(client.GetNode({.name = name}).value().name, name);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(ClientOptionsTest, ContradictoryOptionsAreRefused) {
  const auto refusal = [](const ClientOptions& options) { return Client::Connect(options).status(); };
  ClientOptions token;
  token.endpoint = "models.example.com:443";
  token.credentials.bearer_token = "secret";
  EXPECT_THAT(std::string(refusal(token).message()), HasSubstr("plain text"));
  token.credentials.allow_plaintext_token = true;
  EXPECT_TRUE(refusal(token).ok());
  token.credentials.allow_plaintext_token = false;
  token.credentials.use_tls = true;
  EXPECT_TRUE(refusal(token).ok());

  ClientOptions half;
  half.credentials.tls.client_key = "key";
  EXPECT_EQ(refusal(half).code(), absl::StatusCode::kInvalidArgument);
  ClientOptions nowhere;
  nowhere.endpoint = "";
  EXPECT_EQ(refusal(nowhere).code(), absl::StatusCode::kInvalidArgument);
  ClientOptions never;
  never.retry.max_attempts = 0;
  EXPECT_EQ(refusal(never).code(), absl::StatusCode::kInvalidArgument);
}

TEST(ClientOptionsTest, EndpointComesFromTheEnvironment) {
  ASSERT_EQ(setenv("QUICKSAVE_ENDPOINT", "elsewhere:1", 1), 0);
  EXPECT_EQ(ClientOptions().endpoint, "elsewhere:1");
  ASSERT_EQ(unsetenv("QUICKSAVE_ENDPOINT"), 0);
  EXPECT_EQ(ClientOptions().endpoint, "127.0.0.1:50333");
}

}  // namespace
}  // namespace quicksave::client
