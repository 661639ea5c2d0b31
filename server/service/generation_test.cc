#include "server/service/generation.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core_loader.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::server {
namespace {

using testing::HasSubstr;

constexpr char kRequestId[] = "123e4567-e89b-42d3-a456-426614174000";

// Keeps what a generation says.
class RecordingSink : public GenerateSink {
 public:
  bool Full() const override { return full; }
  void Write(v1::GenerateResponse event) override {
    absl::MutexLock lock(&mutex_);
    events.push_back(std::move(event));
  }
  void Finish(const absl::Status& result) override {
    if (on_finish) on_finish();
    status = result;
    finished.Notify();
  }

  std::atomic<bool> full{false};
  std::function<void()> on_finish;
  absl::Notification finished;
  absl::Status status;
  std::vector<v1::GenerateResponse> events;  // read when it has finished

 private:
  absl::Mutex mutex_;
};

// A whole core over a small random model.
class GenerationTest : public testing::Test {
 protected:
  GenerationTest() {
    ServerConfig config;
    config.model_dir = model_.dir();
    config.data_dir = folder_.path() + "/store";
    config.kv_memory_bytes = uint64_t{4} << 20;
    config.threads = 1;
    config.workers = 2;
    config.poison_kv = true;
    config.calibrate = false;
    config.durability = storage::Durability::kProcess;
    config.min_free_disk_bytes = 0;
    core_ = LoadCore(config, [] { return false; }).value();
  }

  std::shared_ptr<Generation> Make(const v1::GenerateRequest& request, RecordingSink& sink) {
    return std::make_shared<Generation>(core_.get(), request, "", absl::InfiniteFuture(), &sink);
  }
  absl::Status Run(const v1::GenerateRequest& request, RecordingSink& sink) {
    Make(request, sink)->Start();
    sink.finished.WaitForNotification();
    return sink.status;
  }
  // A session of a few tokens.
  std::string NewSession() {
    v1::GenerateRequest request = Request(0);
    request.set_prompt("hello");
    request.set_keep_session(true);
    RecordingSink sink;
    EXPECT_TRUE(Run(request, sink).ok()) << sink.status;
    return sink.events.back().finished().session();
  }
  static v1::GenerateRequest Request(int max_tokens) {
    v1::GenerateRequest request;
    request.mutable_stop()->set_max_tokens(max_tokens);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }
  SessionInfo Info(const std::string& session) {
    return core_->sessions->Info(session.substr(std::string("sessions/").size())).value();
  }

  const engine::TinyModel model_{{.layers = 1, .context_length = 512, .tokenizer = true}};
  const engine::TestFolder folder_;
  std::unique_ptr<Core> core_;
};

TEST_F(GenerationTest, ACallThatIsCancelledBeforeItStartsDoesNothing) {
  v1::GenerateRequest request = Request(3);
  request.set_node("nodes/none");
  RecordingSink sink;
  const std::shared_ptr<Generation> generation = Make(request, sink);
  generation->Cancel();
  generation->Start();
  ASSERT_TRUE(sink.finished.HasBeenNotified());
  EXPECT_EQ(sink.status.code(), absl::StatusCode::kCancelled) << sink.status;
}

TEST_F(GenerationTest, TheRequestIdIsFreeWhenTheCallEnds) {
  const auto repeat_in_finish = [&](v1::GenerateRequest request) {
    request.set_request_id(kRequestId);
    request.mutable_save();
    RecordingSink sink;
    absl::Status repeated = absl::UnknownError("");
    sink.on_finish = [&] { repeated = core_->requests.Begin("Generate", kRequestId, request).status(); };
    absl::Status status = Run(request, sink);
    EXPECT_TRUE(repeated.ok()) << repeated;
    return status;
  };
  v1::GenerateRequest request = Request(3);
  EXPECT_FALSE(repeat_in_finish(request).ok()) << "a new session needs input";
  request.set_prompt("hello");
  EXPECT_TRUE(repeat_in_finish(request).ok());
  EXPECT_TRUE(repeat_in_finish(request).ok()) << "the remembered answer";
}

TEST_F(GenerationTest, TheRememberedAnswerHasNoAlternatives) {
  v1::GenerateRequest request = Request(6);
  request.set_prompt("hello");
  request.set_top_logprobs(100);
  request.mutable_save();
  request.set_request_id(kRequestId);
  std::vector<v1::Token> tokens[2];
  std::string text[2];
  for (int i = 0; i < 2; ++i) {
    RecordingSink sink;
    ASSERT_TRUE(Run(request, sink).ok()) << sink.status;
    EXPECT_EQ(sink.events.back().finished().replayed(), i == 1);
    for (const v1::GenerateResponse& event : sink.events) {
      tokens[i].insert(tokens[i].end(), event.delta().tokens().begin(), event.delta().tokens().end());
      text[i] += event.delta().text();
    }
  }
  EXPECT_EQ(text[1], text[0]);
  ASSERT_EQ(tokens[0].size(), 6u);
  ASSERT_EQ(tokens[1].size(), 6u);
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(tokens[0][i].top_size(), 100);
    EXPECT_EQ(tokens[1][i].top_size(), 0);
    EXPECT_EQ(tokens[1][i].id(), tokens[0][i].id());
    EXPECT_TRUE(tokens[1][i].has_logprob());
    EXPECT_EQ(tokens[1][i].logprob(), tokens[0][i].logprob());
  }
}

TEST_F(GenerationTest, BoundsTheNumberOfStopTokens) {
  v1::GenerateRequest request = Request(1);
  request.set_prompt("hello");
  for (int i = 0; i < 64; ++i) request.mutable_stop()->add_token_ids(280);
  RecordingSink most;
  EXPECT_TRUE(Run(request, most).ok()) << most.status;
  request.mutable_stop()->add_token_ids(280);
  RecordingSink more;
  EXPECT_EQ(Run(request, more).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(more.status.message()), HasSubstr("64"));
}

TEST_F(GenerationTest, AnExistingSessionTakesTheLeaseOfTheCall) {
  const std::string session = NewSession();
  const absl::Time before = absl::Now();
  EXPECT_LT(Info(session).expire_time, before + absl::Hours(1));
  v1::GenerateRequest request = Request(1);
  request.set_session(session);
  request.mutable_lease()->set_seconds(7200);
  for (const bool given : {true, false}) {
    if (!given) request.clear_lease();
    RecordingSink sink;
    ASSERT_TRUE(Run(request, sink).ok()) << sink.status;
    EXPECT_GE(Info(session).expire_time, before + absl::Hours(2));
  }
}

TEST_F(GenerationTest, CountsTheTokensThatItStartsFrom) {
  const std::string session = NewSession();
  v1::GenerateRequest request = Request(4);
  request.set_session(session);
  for (const int tokens : {5, 9}) {
    RecordingSink sink;
    ASSERT_TRUE(Run(request, sink).ok()) << sink.status;
    EXPECT_EQ(sink.events.front().started().reused_tokens(), tokens);
  }
}

TEST_F(GenerationTest, ACallWhoseSessionIsDeletedIsToldSo) {
  const std::string session = NewSession();
  v1::GenerateRequest request = Request(400);
  request.set_session(session);
  RecordingSink sink;
  sink.full = true;
  Make(request, sink)->Start();
  ASSERT_TRUE(core_->sessions->Delete(session.substr(std::string("sessions/").size())).ok());
  sink.finished.WaitForNotification();
  EXPECT_EQ(sink.status, absl::CancelledError("the session was deleted"));
}

}  // namespace
}  // namespace quicksave::server
