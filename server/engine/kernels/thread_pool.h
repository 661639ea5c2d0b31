#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_THREAD_POOL_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace quicksave::engine {

// A fixed crew of threads for short parallel loops, a few hundred in each engine step. The caller takes part in the
// work and waits only for calls that another thread has begun: on a busy machine, where the others may not get to run,
// it does all of them itself. Waiting threads spin for some microseconds and then sleep, so that an idle machine is not
// burdened. One thread at a time may call ParallelFor. Denormals are flushed in the crew's threads, see
// ScopedFlushDenormals; the caller's are its own affair.
class ThreadPool {
 public:
  // `threads` counts the caller; 1 starts none.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls work(index) for each index in [0, count), in any order and on any thread; returns when all have returned.
  void ParallelFor(int count, absl::FunctionRef<void(int)> work);

 private:
  void WorkerLoop();
  void TakeWork();

  std::vector<std::thread> workers_;
  // Of the loop that is running. Whoever has taken an index may read them: the loop cannot end before that index is
  // done.
  const absl::FunctionRef<void(int)>* work_ = nullptr;
  int count_ = 0;
  // The loop's number in the upper half, how many of its indices nobody has taken in the lower.
  std::atomic<uint64_t> untaken_{0};
  std::atomic<int> done_{0};
  // Number of the loop; what idle workers wait on.
  std::atomic<uint32_t> round_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_THREAD_POOL_H_
