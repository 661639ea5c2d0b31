#include "server/worker_pool.h"

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

TEST(WorkerPoolTest, RunsEveryTaskOnceBeforeItEnds) {
  std::vector<std::atomic<int>> runs(500);
  {
    WorkerPool pool(3);
    for (std::atomic<int>& run : runs) pool.Schedule([&run] { run.fetch_add(1); });
  }
  for (const std::atomic<int>& run : runs) EXPECT_EQ(run.load(), 1);
}

TEST(WorkerPoolTest, RunsTasksThatTasksScheduleEvenWhileItEnds) {
  std::atomic<int> depth{0};
  std::function<void()> task;
  {
    WorkerPool pool(2);
    task = [&] {
      if (depth.fetch_add(1) < 100) pool.Schedule(task);
    };
    pool.Schedule(task);
  }
  EXPECT_EQ(depth.load(), 101);
}

TEST(WorkerPoolTest, RunsTasksSideBySide) {
  WorkerPool pool(2);
  absl::Notification first;
  absl::Notification second;
  absl::Notification both;
  pool.Schedule([&] {
    first.Notify();
    second.WaitForNotification();
    both.Notify();
  });
  pool.Schedule([&] {
    first.WaitForNotification();
    second.Notify();
  });
  both.WaitForNotification();
}

TEST(WorkerPoolTest, DropsATaskBeforeItTakesTheNext) {
  WorkerPool pool(1);
  const auto token = std::make_shared<int>(1);
  pool.Schedule([token] {});
  absl::Notification done;
  long owners = 0;  // NOLINT(google-runtime-int): what use_count returns
  pool.Schedule([&] {
    owners = token.use_count();
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(owners, 1);
}

TEST(WorkerPoolTest, ParallelForCallsEachIndexOnce) {
  for (const int threads : {0, 1, 4}) {
    WorkerPool pool(threads);
    for (const int count : {0, 1, 2, 100}) {
      std::vector<std::atomic<int>> calls(count);
      pool.ParallelFor(count, [&](int i) { calls.at(i).fetch_add(1); });
      for (const std::atomic<int>& call : calls) EXPECT_EQ(call.load(), 1) << threads << " threads";
    }
  }
}

TEST(WorkerPoolTest, LoopsWithinTasksFinishWhenAllThreadsAreBusyWithThem) {
  std::atomic<int> calls{0};
  {
    WorkerPool pool(2);
    for (int task = 0; task < 50; ++task) {
      pool.Schedule([&] { pool.ParallelFor(4, [&](int) { pool.ParallelFor(3, [&](int) { calls.fetch_add(1); }); }); });
    }
  }
  EXPECT_EQ(calls.load(), 50 * 4 * 3);
}

TEST(WorkerPoolTest, ALoopSeesWhatItsCallsWrote) {
  WorkerPool pool(3);
  for (int round = 0; round < 300; ++round) {
    std::vector<int> values(20, 0);
    pool.ParallelFor(20, [&](int i) { values[i] = i + round; });
    for (int i = 0; i < 20; ++i) ASSERT_EQ(values[i], i + round);
  }
}

}  // namespace
}  // namespace quicksave::server
