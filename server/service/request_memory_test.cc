#include "server/service/request_memory.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::server {
namespace {

constexpr char kId[] = "123e4567-e89b-42d3-a456-426614174000";
constexpr char kOtherId[] = "123E4567-E89B-42D3-A456-426614174001";

v1::DeleteSessionRequest Request(const std::string& name) {
  v1::DeleteSessionRequest request;
  request.set_name(name);
  return request;
}

v1::Session Answer(const std::string& name) {
  v1::Session answer;
  answer.set_name(name);
  return answer;
}

class RequestMemoryTest : public testing::Test {
 protected:
  RequestMemoryTest() { Open(); }

  // As a new process would.
  void Open() {
    memory_ = nullptr;
    store_ = nullptr;
    storage::StoreOptions options;
    options.path = folder_.path() + "/store";
    options.durability = storage::Durability::kProcess;
    options.min_free_disk_bytes = 0;
    store_ = storage::Store::Open(options).value();
    memory_ = std::make_unique<RequestMemory>();
    memory_->Attach(store_.get(), "tenant");
  }

  // Runs a mutation of sessions that answers `answer`.
  absl::Status Run(const std::string& id, const std::string& request, const std::string& answer, v1::Session* response,
                   const std::string& method = "Method") {
    return memory_->RunOnSessions(method, id, Request(request), response, [&] {
      ++actions_;
      *response = Answer(answer);
      return absl::OkStatus();
    });
  }

  // Runs a mutation of nodes that commits one with `answer`, serialized.
  absl::Status RunOnNodes(const std::string& request, const std::string& answer, v1::Session* response) {
    return memory_->RunOnNodes("Method", kId, Request(request), response, [&](const auto& identity) {
      ++actions_;
      storage::NodeCommit commit;
      commit.record.set_tenant("tenant");
      commit.record.set_node_id("node");
      commit.record.set_model_fingerprint("model");
      commit.record.set_token_count(0);
      commit.request = {*identity, [&](const storage::NodeRecord&) { return answer; }};
      return store_->CommitNode(commit).status();
    });
  }

  const engine::TestFolder folder_;
  std::unique_ptr<storage::Store> store_;
  std::unique_ptr<RequestMemory> memory_;
  int actions_ = 0;
};

TEST_F(RequestMemoryTest, ARepeatGetsTheFirstAnswerAndChangesNothing) {
  v1::Session response;
  ASSERT_TRUE(Run(kId, "a", "first", &response).ok());
  v1::Session again;
  ASSERT_TRUE(Run(kId, "a", "second", &again).ok());
  EXPECT_EQ(again.name(), "first");
  EXPECT_EQ(actions_, 1);
}

TEST_F(RequestMemoryTest, AnswersAboutNodesSurviveARestart) {
  v1::Session response;
  ASSERT_TRUE(RunOnNodes("a", Answer("first").SerializeAsString(), &response).ok());
  Open();
  v1::Session again;
  ASSERT_TRUE(RunOnNodes("a", Answer("second").SerializeAsString(), &again).ok());
  EXPECT_EQ(again.name(), "first");
  EXPECT_EQ(actions_, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(RunOnNodes("b", "", &again)));
}

TEST_F(RequestMemoryTest, AnswersAboutSessionsDieWithTheSessions) {
  v1::Session response;
  ASSERT_TRUE(Run(kId, "a", "first", &response).ok());
  Open();
  ASSERT_TRUE(Run(kId, "a", "second", &response).ok());
  EXPECT_EQ(response.name(), "second");
}

TEST_F(RequestMemoryTest, TheOldestAnswersAboutSessionsAreForgottenFirst) {
  const std::string big(6 << 20, 'a');
  v1::Session response;
  for (const char* const method : {"1", "2", "3"}) ASSERT_TRUE(Run(kId, "a", big, &response, method).ok());
  ASSERT_TRUE(Run(kId, "a", "again", &response, "3").ok());
  EXPECT_EQ(response.name(), big);
  ASSERT_TRUE(Run(kId, "a", "again", &response, "1").ok());
  EXPECT_EQ(response.name(), "again");
}

TEST_F(RequestMemoryTest, AnIdForAnotherRequestIsRefused) {
  v1::Session response;
  ASSERT_TRUE(Run(kId, "a", "first", &response).ok());
  const absl::Status status = Run(kId, "b", "second", &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(kId));
  EXPECT_EQ(actions_, 1);
  // Another id, or the same one for another method, is another request.
  EXPECT_TRUE(Run(kOtherId, "b", "second", &response).ok());
  EXPECT_TRUE(Run(kId, "b", "third", &response, "OtherMethod").ok());
  EXPECT_EQ(actions_, 3);
}

TEST_F(RequestMemoryTest, WithoutAnIdNothingIsRemembered) {
  v1::Session response;
  ASSERT_TRUE(Run("", "a", "first", &response).ok());
  ASSERT_TRUE(Run("", "a", "second", &response).ok());
  EXPECT_EQ(response.name(), "second");
  EXPECT_EQ(actions_, 2);
}

TEST_F(RequestMemoryTest, RefusesWhatIsNoUuid) {
  v1::Session response;
  for (const std::string bad : {"x", "123e4567-e89b-42d3-a456-42661417400", "123e4567-e89b-42d3-a456-4266141740000",
                                "123e4567ae89b-42d3-a456-426614174000", "123e4567-e89b-42d3-a456-42661417400g",
                                "{23e4567-e89b-42d3-a456-42661417400}", "123e4567-e89b-42d3-a456-4266141740\xc3\xa9"}) {
    EXPECT_EQ(Run(bad, "a", "first", &response).code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(actions_, 0);
}

TEST_F(RequestMemoryTest, AFailedCallMayBeRepeated) {
  v1::Session response;
  const auto fail = [] { return absl::UnavailableError("not now"); };
  EXPECT_TRUE(absl::IsUnavailable(memory_->RunOnSessions("Method", kId, Request("a"), &response, fail)));
  EXPECT_TRUE(Run(kId, "a", "first", &response).ok());
  EXPECT_EQ(response.name(), "first");
}

TEST_F(RequestMemoryTest, ASecondCallIsRefusedWhileTheFirstIsInProgress) {
  v1::Session response;
  const absl::Status outer = memory_->RunOnSessions("Method", kId, Request("a"), &response, [&] {
    v1::Session inner;
    EXPECT_EQ(Run(kId, "a", "second", &inner).code(), absl::StatusCode::kAborted);
    EXPECT_TRUE(Run(kOtherId, "a", "other", &inner).ok());
    response = Answer("first");
    return absl::OkStatus();
  });
  EXPECT_TRUE(outer.ok());
  EXPECT_TRUE(Run(kId, "a", "third", &response).ok());
  EXPECT_EQ(response.name(), "first");
}

TEST_F(RequestMemoryTest, AnAttemptLetsGoWhereverItWasMovedTo) {
  std::vector<RequestMemory::Attempt> attempts;
  {
    absl::StatusOr<RequestMemory::Attempt> attempt = memory_->Begin("Method", kId, Request("a"));
    ASSERT_TRUE(attempt.ok());
    ASSERT_TRUE(attempt->request.has_value());
    EXPECT_FALSE(attempt->answer.has_value());
    EXPECT_EQ(attempt->request->request_id, kId);
    attempts.push_back(*std::move(attempt));
  }
  EXPECT_EQ(memory_->Begin("Method", kId, Request("a")).status().code(), absl::StatusCode::kAborted);
  attempts.clear();
  EXPECT_TRUE(memory_->Begin("Method", kId, Request("a")).ok());
  EXPECT_TRUE(memory_->Begin("Method", kId, Request("a")).ok());
}

TEST_F(RequestMemoryTest, ADamagedAnswerIsDataLoss) {
  v1::Session response;
  ASSERT_TRUE(RunOnNodes("a", "\xff\xff no message", &response).ok());
  EXPECT_EQ(RunOnNodes("a", "", &response).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(actions_, 1);
}

TEST_F(RequestMemoryTest, OfManyCallsAtOnceOneDoesTheWork) {
  std::atomic<int> done{0};
  std::atomic<int> answered{0};
  const auto call = [&] {
    for (int i = 0; i < 50; ++i) {
      v1::Session response;
      const absl::Status status = memory_->RunOnSessions("Method", kId, Request("a"), &response, [&] {
        done.fetch_add(1);
        response = Answer("only");
        return absl::OkStatus();
      });
      if (status.ok()) {
        EXPECT_EQ(response.name(), "only");
        answered.fetch_add(1);
      } else {
        EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(call);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done.load(), 1);
  EXPECT_GT(answered.load(), 0);
}

}  // namespace
}  // namespace quicksave::server
