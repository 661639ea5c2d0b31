// Who is served when there is more work than a step takes.

#include "server/scheduler/fair_shares.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/evaluate_job.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::shared_ptr<EvaluateJob> Prefill(const std::string& client, int tokens, EvaluateJob::Consumer at_end = {}) {
  const auto wanted = at_end ? engine::LogitsWanted::kLast : engine::LogitsWanted::kNone;
  auto job = std::make_shared<EvaluateJob>(engine::Sequence(), TextTokens(tokens, 1), wanted, std::move(at_end));
  job->client = client;
  return job;
}

class FairSharesTest : public testing::Test {
 protected:
  void Add(const std::string& client) {
    shares_.Join(client);
    jobs_.push_back(Prefill(client, 1));
  }
  // The clients in the order in which their jobs are offered, each of which costs `cost`.
  std::vector<std::string> Served(size_t count, double cost = 1) {
    std::vector<std::string> served;
    shares_.Serve(jobs_, [&](const std::shared_ptr<Job>& job) -> std::optional<double> {
      if (served.size() == count) return std::nullopt;
      served.push_back(job->client);
      return cost;
    });
    return served;
  }

  FairShares shares_;
  std::vector<std::shared_ptr<Job>> jobs_;
};

TEST_F(FairSharesTest, ClientsTakeTurnsWhateverTheNumberOfTheirJobs) {
  for (const char* client : {"a", "a", "a", "a", "b", "c"}) Add(client);
  EXPECT_THAT(Served(6), ElementsAre("a", "b", "c", "a", "a", "a"));
  EXPECT_THAT(Served(2), ElementsAre("b", "c")) << "what was served before counts";
}

TEST_F(FairSharesTest, WhoComesLateHasNoClaimToWhatOthersHad) {
  Add("a");
  Served(1, /*cost=*/1000);
  Add("b");
  Add("a");
  EXPECT_THAT(Served(3), ElementsAre("a", "b", "a"));
  // Who was away, neither.
  shares_.Leave("b");
  std::erase_if(jobs_, [](const auto& job) { return job->client == "b"; });
  Served(1, /*cost=*/1000);
  Add("b");
  EXPECT_THAT(Served(3), ElementsAre("a", "b", "a"));
}

TEST_F(FairSharesTest, WhoWantedLittleForLongCannotKeepOthersWaiting) {
  Add("idle");
  const std::vector<std::shared_ptr<Job>> idle = jobs_;
  jobs_.clear();
  Add("busy");
  for (int i = 0; i < 1000; ++i) Served(1, /*cost=*/100);
  jobs_.push_back(idle[0]);
  std::vector<std::string> served;
  for (int i = 0; i < 30; ++i) served.push_back(Served(1, /*cost=*/100).front());
  EXPECT_EQ(std::count(served.begin(), served.begin() + 20, "idle"), 20);
  EXPECT_EQ(std::count(served.begin() + 20, served.end(), "idle"), 5);
}

TEST(FairSchedulerTest, OnePromptIsNotHeldUpByAnothersMany) {
  SchedulerEnvironment environment(600, {.prefill_rows = 50});
  std::vector<std::string> ended;  // engine thread
  std::vector<std::shared_ptr<EvaluateJob>> jobs;
  {
    const EngineHold hold(environment.scheduler.get());
    for (int i = 0; i < 11; ++i) {
      const std::string client = i < 10 ? "many" : "one";
      jobs.push_back(
          Prefill(client, 100, [&ended, client](size_t, absl::Span<const float>) { ended.push_back(client); }));
      ASSERT_TRUE(environment.scheduler->Submit(jobs.back(), 100).ok());
    }
  }
  for (const auto& job : jobs) EXPECT_TRUE(job->Await().ok());
  EXPECT_LE(std::find(ended.begin(), ended.end(), "one") - ended.begin(), 1);
}

TEST(FairSchedulerTest, OneGenerationIsNotHeldUpByAnothersMany) {
  SchedulerEnvironment environment(600, {.decode_rows = 4});
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  std::vector<std::shared_ptr<GenerateJob>> jobs;
  std::vector<int> lengths;  // of the others, when the one ends
  {
    const EngineHold hold(environment.scheduler.get());
    for (int i = 0; i < 17; ++i) {
      listeners.push_back(std::make_shared<RecordingListener>());
      jobs.push_back(environment.NewJob({}, Options(TextTokens(2, i), 30), listeners.back()));
      jobs.back()->client = i < 16 ? "many" : "one";
    }
    listeners.back()->on_token = [&](int tokens) {
      if (tokens < 30) return;
      for (int i = 0; i < 16; ++i) lengths.push_back(jobs[i]->length());
    };
    for (const auto& job : jobs) ASSERT_TRUE(environment.scheduler->Submit(job, job->max_appended()).ok());
  }
  for (const auto& listener : listeners) EXPECT_TRUE(listener->Await().status.ok());
  // It had a row of each step, the others three, by turns: some 90 in all.
  ASSERT_EQ(lengths.size(), 16u);
  const auto [least, most] = std::minmax_element(lengths.begin(), lengths.end());
  EXPECT_LE(*most, 2 + 12);
  EXPECT_GE(*least, *most - 2) << "one client's generations take turns";
}

TEST(FairSchedulerTest, WhatCannotBeDoneInTimeIsRefusedAtOnce) {
  SchedulerEnvironment environment(6000);
  const auto warm_up = Prefill("", 400);
  ASSERT_TRUE(environment.scheduler->Run(warm_up, 400).ok());
  std::vector<std::shared_ptr<EvaluateJob>> jobs;
  {
    const EngineHold hold(environment.scheduler.get());
    for (int i = 0; i < 202; ++i) {
      jobs.push_back(Prefill(i < 201 ? "busy" : "other", 400));
      if (i == 200) jobs.back()->deadline = absl::Now() + absl::Milliseconds(50);
      ASSERT_TRUE(environment.scheduler->Submit(jobs.back(), 400).ok());
    }
  }
  // Behind 80,000 tokens of its own client.
  const absl::Status late = jobs[200]->Await();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("cannot be answered in time: 80400 tokens"));
  EXPECT_EQ(jobs[200]->sequence().length(), 0);
  // Another client's goes between them.
  EXPECT_TRUE(jobs[201]->Await().ok());
  for (int i = 0; i < 200; ++i) jobs[i]->Cancel();
}

TEST(FairSchedulerTest, SplitJobsPayForTheirShareOfTheLayers) {
  SchedulerEnvironment environment(600, {.prefill_rows = 10});
  ASSERT_EQ(environment.decoder->config().layers, 2);
  const auto half = Prefill("half", 400);
  half->set_split(0);
  const auto whole = Prefill("whole", 400);
  whole->set_cancelled([&half] { return half->backlog() == 0; });
  {
    const EngineHold hold(environment.scheduler.get());
    ASSERT_TRUE(environment.scheduler->Submit(whole, 400).ok());
    ASSERT_TRUE(environment.scheduler->Submit(half, 400).ok());
  }
  EXPECT_TRUE(half->Await().ok());
  EXPECT_EQ(whole->Await().code(), absl::StatusCode::kCancelled);
  // Half as many tokens as the other, whose tokens cost half, but for the step in which it is its turn.
  EXPECT_NEAR(whole->sequence().length(), 200, 10);
}

TEST(FairSchedulerTest, TheLayersThatASplitJobSkipsTakeNoTime) {
  SchedulerEnvironment environment(12000, {.max_jobs = 500});
  ASSERT_TRUE(environment.scheduler->Run(Prefill("", 400), 400).ok());
  std::vector<std::shared_ptr<EvaluateJob>> jobs;
  {
    const EngineHold hold(environment.scheduler.get());
    for (int i = 0; i < 401; ++i) {
      jobs.push_back(Prefill("busy", 400));
      jobs.back()->set_split(1);
      if (i == 400) jobs.back()->deadline = absl::Now() + absl::Milliseconds(50);
      ASSERT_TRUE(environment.scheduler->Submit(jobs.back(), 400).ok());
    }
  }
  const absl::Status late = jobs[400]->Await();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("cannot be answered in time: 80200 tokens"));
  for (int i = 0; i < 400; ++i) jobs[i]->Cancel();
}

}  // namespace
}  // namespace quicksave::server
