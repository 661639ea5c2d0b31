#ifndef QUICKSAVE_SERVER_WORKER_POOL_H_
#define QUICKSAVE_SERVER_WORKER_POOL_H_

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"

namespace quicksave::server {

// Threads for everything that is neither the engine's nor gRPC's: encoding, decoding, hashing, the store, and calls
// that wait for these. Thread-safe.
class WorkerPool {
 public:
  explicit WorkerPool(int threads);
  // Runs what was scheduled, then stops.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Runs `task` on one of the threads.
  void Schedule(std::function<void()> task);

  // Calls work(index) for each index in [0, count) on this and other threads; returns when all have returned. The
  // caller works too, so it may itself be a task of this pool.
  void ParallelFor(int count, absl::FunctionRef<void(int)> work);

 private:
  void Run();

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_WORKER_POOL_H_
