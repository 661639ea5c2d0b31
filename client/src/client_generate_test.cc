// Generate over the real wire: events, cancelling, and what is retried.

#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "client/testing/fake_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quicksave/client.h"

namespace quicksave::client {
namespace {

using ::testing::ElementsAre;
using Writer = grpc::ServerWriter<v1::GenerateResponse>;

void WriteText(Writer* writer, const std::string& text) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_text(text);
  writer->Write(event);
}

void WriteFinished(Writer* writer, int tokens) {
  v1::GenerateResponse event;
  event.mutable_finished()->set_generated_tokens(tokens);
  event.mutable_finished()->set_reason(v1::GenerateFinished::REASON_MAX_TOKENS);
  writer->Write(event);
}

bool Ignore(const GenerateEvent&) { return true; }

class GenerateTest : public ::testing::Test {
 protected:
  Client MakeClient() { return Client::Connect(server_.Options()).value(); }

  // Fails the first attempt before any event.
  void FailOnce() {
    server_.set_stream([this](grpc::ServerContext&, const v1::GenerateRequest& request, Writer* writer) {
      request_ids_.push_back(request.request_id());
      if (++attempts_ == 1) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "starting");
      WriteFinished(writer, 1);
      return grpc::Status::OK;
    });
  }

  std::atomic<int> attempts_{0};
  std::vector<std::string> request_ids_;
  FakeServer server_;
};

TEST_F(GenerateTest, EventsComeInOrderAndTheSummaryIsReturned) {
  server_.set_stream([](grpc::ServerContext&, const v1::GenerateRequest& request, Writer* writer) {
    v1::GenerateResponse event;
    event.mutable_started()->set_session("sessions/s");
    writer->Write(event);
    WriteText(writer, request.prompt());
    event.mutable_saved()->mutable_node()->set_name("nodes/abc");
    writer->Write(event);
    WriteFinished(writer, 2);
    return grpc::Status::OK;
  });
  std::vector<GenerateEvent> events;
  const absl::StatusOr<GenerateFinished> finished =
      MakeClient().Generate({.input = "hello"}, [&events](const GenerateEvent& event) {
        events.push_back(event);
        return true;
      });
  ASSERT_TRUE(finished.ok()) << finished.status();
  EXPECT_EQ(finished->generated_tokens, 2);
  EXPECT_EQ(finished->reason, FinishReason::kMaxTokens);
  SavedNode saved;
  saved.node.name = "nodes/abc";
  EXPECT_THAT(events, ElementsAre(GenerateEvent(GenerateStarted{.session = "sessions/s"}),
                                  GenerateEvent(GenerateDelta{.text = "hello"}), GenerateEvent(saved),
                                  GenerateEvent(*finished)));
}

TEST_F(GenerateTest, CallbackCancelsTheServersWork) {
  absl::Notification noticed;
  server_.set_stream([&noticed](grpc::ServerContext& context, const v1::GenerateRequest&, Writer* writer) {
    WriteText(writer, "one");
    WriteText(writer, "two");
    EXPECT_TRUE(AwaitCancelled(context));
    noticed.Notify();
    return grpc::Status::CANCELLED;
  });
  int calls = 0;
  const absl::Status status = MakeClient()
                                  .Generate({.input = "hello"},
                                            [&calls](const GenerateEvent&) {
                                              ++calls;
                                              return false;
                                            })
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(calls, 1) << "no event comes after the refusal";
  noticed.WaitForNotification();
}

TEST_F(GenerateTest, RefusalOfTheLastEventIsNoCancellation) {
  server_.set_stream([](grpc::ServerContext&, const v1::GenerateRequest&, Writer* writer) {
    WriteFinished(writer, 3);
    return grpc::Status::OK;
  });
  const auto finished = MakeClient().Generate({.input = "hello"}, [](const GenerateEvent&) { return false; });
  ASSERT_TRUE(finished.ok()) << finished.status();
  EXPECT_EQ(finished->generated_tokens, 3);
}

TEST_F(GenerateTest, TokenCancelsBetweenEvents) {
  server_.set_stream([](grpc::ServerContext& context, const v1::GenerateRequest&, Writer* writer) {
    WriteText(writer, "one");
    EXPECT_TRUE(AwaitCancelled(context));
    return grpc::Status::CANCELLED;
  });
  const CancellationToken token;
  absl::Notification first;
  std::thread other([&] {
    first.WaitForNotification();
    token.Cancel();
  });
  const absl::Status status = MakeClient()
                                  .Generate({.input = "hello"},
                                            [&first](const GenerateEvent&) {
                                              first.Notify();
                                              return true;
                                            },
                                            {.cancellation = token})
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  other.join();
}

TEST_F(GenerateTest, DeadlineEndsAStreamThatHangs) {
  server_.set_stream([](grpc::ServerContext& context, const v1::GenerateRequest&, Writer* writer) {
    WriteText(writer, "one");
    EXPECT_TRUE(AwaitCancelled(context));
    return grpc::Status::CANCELLED;
  });
  const absl::Status status =
      MakeClient().Generate({.input = "hello"}, Ignore, {.timeout = absl::Milliseconds(100)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(GenerateTest, AttemptWithoutLastingEffectIsRetried) {
  FailOnce();
  EXPECT_TRUE(MakeClient().Generate({.start = FromNode{.name = "nodes/abc"}}, Ignore).ok());
  EXPECT_EQ(attempts_, 2);
  EXPECT_THAT(request_ids_, ElementsAre("", ""));
}

TEST_F(GenerateTest, SavingAttemptIsRetriedUnderOneRequestId) {
  FailOnce();
  EXPECT_TRUE(MakeClient().Generate({.start = FromSession{.name = "sessions/s"}, .save = SaveOptions()}, Ignore).ok());
  ASSERT_EQ(request_ids_.size(), 2);
  EXPECT_NE(request_ids_[0], "");
  EXPECT_EQ(request_ids_[0], request_ids_[1]);
}

TEST_F(GenerateTest, ExtensionOfASessionWithoutSavingIsNotRetried) {
  FailOnce();
  const auto finished = MakeClient().Generate({.start = FromSession{.name = "sessions/s"}}, Ignore);
  EXPECT_EQ(finished.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(attempts_, 1);
}

TEST_F(GenerateTest, StreamThatBreaksAfterAnEventIsNotRetried) {
  server_.set_stream([this](grpc::ServerContext&, const v1::GenerateRequest&, Writer* writer) {
    ++attempts_;
    WriteText(writer, "one");
    return ErrorWithDetails(grpc::StatusCode::UNAVAILABLE, "DRAINING", 1);
  });
  std::string text;
  const auto finished = MakeClient().Generate({.input = "hello"}, [&text](const GenerateEvent& event) {
    if (const auto* delta = std::get_if<GenerateDelta>(&event)) text += delta->text;
    return true;
  });
  EXPECT_EQ(finished.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(finished.status()), "DRAINING");
  EXPECT_EQ(attempts_, 1);
  EXPECT_EQ(text, "one");
}

TEST_F(GenerateTest, StreamWithoutASummaryIsAnError) {
  EXPECT_EQ(MakeClient().Generate({.input = "hello"}, Ignore).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace quicksave::client
