#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "gtest/gtest.h"
#include "server/archive/archive.h"
#include "server/archive/testing/archive_environment.h"

namespace quicksave::server {
namespace {

class ArchiveConcurrencyTest : public ArchiveTestBase {};

void RunThreads(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ArchiveConcurrencyTest, BranchesAreSavedAndRestoredAtOnce) {
  SessionState root = env_.NewState(env_.RandomTokens(150));
  ASSERT_TRUE(env_.Save(root).ok());
  std::vector<std::vector<int32_t>> more;
  for (int i = 0; i < 4 * 4; ++i) more.push_back(env_.RandomTokens(45));
  RunThreads(4, [&](int thread) {
    SessionState state = root;
    for (int step = 0; step < 4; ++step) {
      env_.Append(state, more[thread * 4 + step]);
      absl::StatusOr<SavedNode> saved = env_.Save(state);
      ASSERT_TRUE(saved.ok()) << saved.status();
      ASSERT_TRUE(RestoresExactly(saved->record.node_id(), state.sequence.tokens()));
      if (step == 1) state = Restore(saved->record.node_id(), state.sequence.length() - 20)->state;
    }
  });
}

TEST_F(ArchiveConcurrencyTest, EqualStatesSavedAtOnceAreStoredOnceAndAllRestore) {
  const SessionState state = env_.NewState(env_.RandomTokens(300));
  std::vector<std::string> nodes(6);
  RunThreads(6, [&](int thread) {
    absl::StatusOr<SavedNode> saved = env_.archive->Save({.state = state, .tenant = kTenant});
    ASSERT_TRUE(saved.ok()) << saved.status();
    nodes[thread] = saved->record.node_id();
  });
  EXPECT_EQ(env_.store->Stats()->blocks, 3);
  for (const std::string& node_id : nodes) EXPECT_TRUE(RestoresExactly(node_id, state.sequence.tokens()));
}

TEST_F(ArchiveConcurrencyTest, SavesSucceedWhileTheirOriginsAreDeletedAndGarbageIsCollected) {
  SessionState state = env_.NewState(env_.RandomTokens(200));
  std::atomic<bool> done = false;
  std::thread collector([&] {
    while (!done) EXPECT_TRUE(env_.store->CollectGarbage().ok());
  });
  for (int round = 0; round < 20; ++round) {
    const std::string origin = env_.Save(state)->record.node_id();
    SessionState child = state;
    env_.Append(child, env_.RandomTokens(5));
    std::string child_id;
    RunThreads(2, [&](int thread) {
      // Refused when the child is there first.
      if (thread == 0) return (void)env_.store->DeleteNode(kTenant, origin);
      absl::StatusOr<SavedNode> saved = env_.Save(child);
      ASSERT_TRUE(saved.ok()) << saved.status();
      child_id = saved->record.node_id();
    });
    ASSERT_TRUE(RestoresExactly(child_id, child.sequence.tokens()));
    ASSERT_TRUE(env_.archive->Verify(kTenant, child_id).ok());
    state = child;
  }
  done = true;
  collector.join();
}

TEST_F(ArchiveConcurrencyTest, RestoreOfANodeThatIsBeingDeletedIsExactOrNotFound) {
  for (int round = 0; round < 20; ++round) {
    SessionState state = env_.NewState(env_.RandomTokens(300));
    const std::string node_id = env_.Save(state)->record.node_id();
    RunThreads(3, [&](int thread) {
      if (thread == 0) {
        EXPECT_TRUE(env_.store->DeleteNode(kTenant, node_id).ok());
        return;
      }
      absl::StatusOr<RestoredState> restored = Restore(node_id);
      if (restored.ok()) {
        EXPECT_TRUE(env_.fake.Agrees(restored->state.sequence));
      } else {
        EXPECT_EQ(restored.status().code(), absl::StatusCode::kNotFound) << restored.status();
      }
    });
  }
}

TEST_F(ArchiveConcurrencyTest, SavesAndRestoresMayRunOnTheWorkersThemselves) {
  const SessionState state = env_.NewState(env_.RandomTokens(300));
  constexpr int kTasks = 12;
  absl::BlockingCounter pending(kTasks);
  for (int i = 0; i < kTasks; ++i) {
    env_.workers.Schedule([&] {
      absl::StatusOr<SavedNode> saved = env_.archive->Save({.state = state, .tenant = kTenant});
      EXPECT_TRUE(saved.ok() && RestoresExactly(saved->record.node_id(), state.sequence.tokens()));
      pending.DecrementCount();
    });
  }
  pending.Wait();
}

TEST_F(ArchiveConcurrencyTest, CalibrationBesideSavesLeavesEveryNodeReadable) {
  std::vector<SessionState> states;
  for (int i = 0; i < 12; ++i) states.push_back(env_.NewState(env_.RandomTokens(140)));
  std::vector<std::string> nodes(states.size());
  RunThreads(3, [&](int thread) {
    if (thread == 0) {
      for (const SessionState& state : states) EXPECT_TRUE(env_.archive->Calibrate({state.sequence}).ok());
      return;
    }
    for (size_t i = thread - 1; i < states.size(); i += 2) {
      absl::StatusOr<SavedNode> saved = env_.Save(states[i]);
      ASSERT_TRUE(saved.ok()) << saved.status();
      nodes[i] = saved->record.node_id();
    }
  });
  env_.Reopen();
  for (size_t i = 0; i < nodes.size(); ++i) EXPECT_TRUE(RestoresExactly(nodes[i], states[i].sequence.tokens()));
}

}  // namespace
}  // namespace quicksave::server
