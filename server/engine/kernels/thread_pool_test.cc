#include "server/engine/kernels/thread_pool.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace quicksave::engine {
namespace {

TEST(ThreadPoolTest, CallsEachIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int count : {0, 1, 2, 3, 7, 100, 1000}) {
      std::vector<std::atomic<int>> calls(count);
      pool.ParallelFor(count, [&](int i) { calls.at(i).fetch_add(1); });
      for (const std::atomic<int>& call : calls) EXPECT_EQ(call.load(), 1);
    }
  }
}

TEST(ThreadPoolTest, ManySmallLoopsSeeEachOthersWrites) {
  ThreadPool pool(3);
  std::mt19937 random(1);
  // Plain integers: each loop reads what other threads wrote in the loop before.
  std::vector<int> values(16, 0);
  for (int loop = 1; loop <= 1000; ++loop) {
    const int shift = static_cast<int>(random() % 16);
    const std::vector<int> before = values;
    pool.ParallelFor(16, [&](int i) { values[i] = before[(i + shift) % 16] + 1; });
  }
  for (const int value : values) EXPECT_EQ(value, 1000);
}

TEST(ThreadPoolTest, WaitsForTheCallsThatOthersHaveBegun) {
  ThreadPool pool(3);
  // The caller is done with its call while two others are held in theirs.
  std::atomic<int> held{0};
  std::atomic<bool> release{false};
  std::atomic<int> ended{0};
  const std::thread::id caller = std::this_thread::get_id();
  std::thread watcher([&] {
    while (held.load() < 2) std::this_thread::yield();
    release = true;
  });
  pool.ParallelFor(3, [&](int) {
    if (std::this_thread::get_id() == caller) {
      while (held.load() < 2) std::this_thread::yield();
      return;
    }
    held.fetch_add(1);
    while (!release) std::this_thread::yield();
    ended.fetch_add(1);
  });
  watcher.join();
  EXPECT_EQ(ended.load(), 2) << "a loop ended before its calls";
}

TEST(ThreadPoolTest, WakesSleepingWorkersAndStopsThem) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(4);
    if (round % 2 == 0) continue;  // never used
    std::atomic<int> sum{0};
    for (int loop = 0; loop < 3; ++loop) {
      pool.ParallelFor(10, [&](int i) { sum += i; });
      // Long enough for workers that spin to go to sleep; the result does not depend on it.
      std::this_thread::yield();
    }
    EXPECT_EQ(sum.load(), 3 * 45);
  }
}

TEST(ThreadPoolTest, MayBeUsedFromOneThreadAfterAnother) {
  ThreadPool pool(2);
  int total = 0;
  for (int i = 0; i < 20; ++i) {
    std::thread user([&] {
      std::atomic<int> sum{0};
      pool.ParallelFor(5, [&](int index) { sum += index; });
      total += sum.load();
    });
    user.join();
  }
  EXPECT_EQ(total, 200);
}

TEST(ThreadPoolTest, UsesAllItsThreads) {
  ThreadPool pool(3);
  // Each call waits until three are running at once, which takes three threads.
  std::atomic<int> running{0};
  pool.ParallelFor(3, [&](int) {
    running.fetch_add(1);
    while (running.load() < 3) std::this_thread::yield();
  });
  EXPECT_EQ(running.load(), 3);
}

TEST(ThreadPoolTest, WorkersFlushDenormals) {
  ThreadPool pool(2);
  volatile float tiny = 1e-38F;
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> arrived{0};
  bool flushed = false;
  pool.ParallelFor(2, [&](int) {
    arrived.fetch_add(1);
    while (arrived.load() < 2) std::this_thread::yield();
    if (std::this_thread::get_id() != caller) flushed = tiny * 0.1F == 0.0F;
  });
  EXPECT_TRUE(flushed);
}

}  // namespace
}  // namespace quicksave::engine
