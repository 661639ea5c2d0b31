// SIGKILL while several clients save: every acknowledged node is there and equal afterwards, every other one is absent
// or whole.

#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

constexpr int kRounds = 12;
constexpr int kSavers = 3;
constexpr int kFirstTokens = 120;
constexpr int kMoreTokens = 24;

// A save that was acknowledged, and what the state said then.
struct Acknowledged {
  client::Node node;
  std::vector<int32_t> token_ids;
  std::vector<client::ContinuationScore> scores;
  client::SnapshotRequest request;
};

client::ScoreRequest ScoreFrom(const client::Start& start) {
  return {.start = start, .continuations = {std::vector<int32_t>{504, 260}}, .top_k = 50};
}

// What the clients of a round have done. Thread-safe.
class Ledger {
 public:
  void Begin() {
    const absl::MutexLock lock(&mutex_);
    begun_++;
  }
  void Acknowledge(Acknowledged save) {
    const absl::MutexLock lock(&mutex_);
    acknowledged_.push_back(std::move(save));
  }
  void Lose(const client::SnapshotRequest& request) {
    const absl::MutexLock lock(&mutex_);
    lost_.push_back(request);
  }
  // Waits until so many saves were begun, and one was acknowledged.
  void WaitFor(int begun) {
    const absl::MutexLock lock(&mutex_);
    const auto enough = [this, begun]()
                            ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return begun_ >= begun && !acknowledged_.empty(); };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Minutes(2)));
  }
  // After the clients have ended.
  const std::vector<Acknowledged>& acknowledged() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return acknowledged_; }
  const std::vector<client::SnapshotRequest>& lost() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return lost_; }

 private:
  absl::Mutex mutex_;
  int begun_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Acknowledged> acknowledged_ ABSL_GUARDED_BY(mutex_);
  std::vector<client::SnapshotRequest> lost_ ABSL_GUARDED_BY(mutex_);
};

// Extends one session and saves it, until the server is gone.
class Saver {
 public:
  Saver(client::Client client, uint64_t seed, Ledger* ledger)
      : client_(std::move(client)), random_(seed), ledger_(ledger) {}

  void Run() {
    while (Extend() && Save()) continue;
  }

 private:
  bool Extend() {
    std::vector<int32_t> more;
    const int count = ids_.empty() ? kFirstTokens : kMoreTokens;
    for (int i = 0; i < count; i++) more.push_back(static_cast<int32_t>(1000 + random_() % 40000));
    client::GenerateRequest request{.input = more, .stop = {.max_tokens = 0}, .keep_session = true};
    if (!session_.empty()) request.start = client::FromSession{session_};
    const absl::StatusOr<Generation> extended = Generate(client_, request);
    if (!extended.ok()) return Gone(extended.status());
    session_ = extended->finished.session;
    ids_.insert(ids_.end(), more.begin(), more.end());
    return true;
  }

  bool Save() {
    absl::StatusOr<client::ScoreResponse> scores = client_.Score(ScoreFrom(client::FromSession{session_}));
    if (!scores.ok()) return Gone(scores.status());
    const client::SnapshotRequest request{.session = session_, .request_id = RequestId()};
    ledger_->Begin();
    absl::StatusOr<client::SavedNode> saved = client_.Snapshot(request);
    if (!saved.ok()) {
      ledger_->Lose(request);
      return Gone(saved.status());
    }
    ledger_->Acknowledge({saved->node, ids_, scores->scores, request});
    return true;
  }

  // Only the end of the server may end a saver.
  static bool Gone(const absl::Status& status) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    return false;
  }

  std::string RequestId() {
    return absl::StrFormat("%08x-0000-4000-8000-%012x", random_() & 0xffffffff, random_() & 0xffffffffffff);
  }

  const client::Client client_;
  std::mt19937_64 random_;
  Ledger* const ledger_;
  std::string session_;
  std::vector<int32_t> ids_;
};

class CrashTest : public ::testing::Test {
 protected:
  // Saves with several clients, and kills the server in the midst of it.
  void SaveAndKill(int round) {
    Ledger ledger;
    std::vector<std::thread> threads;
    for (int i = 0; i < kSavers; i++) {
      threads.emplace_back([saver = std::make_shared<Saver>(server_->client(), random_(), &ledger)] { saver->Run(); });
    }
    ledger.WaitFor(static_cast<int>(2 + random_() % 8));
    // Not to wait for anything: the kill is to come anywhere in the work of a save, which takes some ten milliseconds.
    absl::SleepFor(absl::Microseconds(random_() % 20000));
    server_->Kill();
    for (std::thread& thread : threads) thread.join();
    for (const Acknowledged& save : ledger.acknowledged()) known_.insert(save.node.name);
    latest_ = ledger.acknowledged();
    lost_ = ledger.lost();
    std::cout << "round " << round << ": " << latest_.size() << " saves acknowledged, " << lost_.size() << " under way"
              << std::endl;
  }

  void ExpectEqual(const Acknowledged& save) {
    SCOPED_TRACE(save.node.name);
    const client::Client& client = server_->client();
    EXPECT_TRUE(client.VerifyNode({.name = save.node.name}).ok());
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Node node,
                                   client.GetNode({.name = save.node.name, .view = client::View::kFull}));
    EXPECT_EQ(node.token_ids, save.token_ids);
    EXPECT_EQ(node.parents, save.node.parents);
    EXPECT_EQ(node.create_time, save.node.create_time);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ScoreResponse scores,
                                   client.Score(ScoreFrom(client::FromNode{.name = save.node.name})));
    EXPECT_TRUE(scores.scores == save.scores) << "logits differ";
    EXPECT_EQ(scores.proof->check.outcome, client::CheckOutcome::kIdentical);
    // The repeat of an acknowledged request is answered, its session being gone or not.
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode repeated, client.Snapshot(save.request));
    EXPECT_EQ(repeated.node.name, save.node.name);
  }

  // A save that was under way is done or is not: its repeat says which.
  void ExpectDoneOrNot(const client::SnapshotRequest& request) {
    const absl::StatusOr<client::SavedNode> repeated = server_->client().Snapshot(request);
    if (!repeated.ok()) {
      EXPECT_TRUE(absl::IsNotFound(repeated.status())) << repeated.status();
      return;
    }
    EXPECT_TRUE(server_->client().VerifyNode({.name = repeated->node.name}).ok());
    known_.insert(repeated->node.name);
  }

  // Every node there is, acknowledged or not, is whole, and so are its parents.
  void ExpectNothingHalf() {
    std::set<std::string> names;
    std::set<std::string> parents;
    client::ListNodesRequest request{.page_size = 1000};
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ListNodesResponse listed, server_->client().ListNodes(request));
    EXPECT_TRUE(listed.next_page_token.empty());
    for (const client::Node& node : listed.nodes) {
      names.insert(node.name);
      for (const client::Edge& edge : node.parents) parents.insert(edge.parent);
      if (known_.contains(node.name)) continue;
      EXPECT_TRUE(server_->client().VerifyNode({.name = node.name}).ok()) << node.name;
    }
    EXPECT_TRUE(std::includes(names.begin(), names.end(), known_.begin(), known_.end()))
        << "an acknowledged node is gone";
    EXPECT_TRUE(std::includes(names.begin(), names.end(), parents.begin(), parents.end())) << "a parent is gone";
  }

  void Restart(const std::string& durability) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        server_, ServerProcess::Start({.data_dir = directory_ / "data", .flags = {"--durability=" + durability}}));
  }

  const TemporaryDirectory directory_;
  const uint64_t seed_ = std::random_device()();
  std::mt19937_64 random_{seed_};
  std::unique_ptr<ServerProcess> server_;
  std::set<std::string> known_;
  std::vector<Acknowledged> latest_;
  std::vector<client::SnapshotRequest> lost_;
};

TEST_F(CrashTest, AcknowledgedNodesSurviveKillsInTheMidstOfSaves) {
  std::cout << "seed " << seed_ << std::endl;
  for (int round = 0; round < kRounds && !HasFailure(); round++) {
    ASSERT_NO_FATAL_FAILURE(Restart(round % 2 == 0 ? "sync" : "process"));
    ExpectNothingHalf();
    for (const Acknowledged& save : latest_) ExpectEqual(save);
    for (const client::SnapshotRequest& request : lost_) ExpectDoneOrNot(request);
    SaveAndKill(round);
  }
  ASSERT_NO_FATAL_FAILURE(Restart("sync"));
  ASSERT_TRUE(server_->client().CollectGarbage().ok());
  for (const std::string& name : known_) EXPECT_TRUE(server_->client().VerifyNode({.name = name}).ok()) << name;
  for (const Acknowledged& save : latest_) ExpectEqual(save);
  EXPECT_GE(known_.size(), size_t{kRounds});
}

}  // namespace
}  // namespace quicksave::integration
