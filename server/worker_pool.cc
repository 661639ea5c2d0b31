#include "server/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

namespace quicksave::server {

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Schedule(std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void WorkerPool::ParallelFor(int count, absl::FunctionRef<void(int)> work) {
  // Helpers may start after the caller has returned; what they touch then is theirs too.
  struct Loop {
    std::atomic<int> next{0};
    int count;
    absl::Mutex mutex;
    int finished ABSL_GUARDED_BY(mutex) = 0;
  };
  const auto loop = std::make_shared<Loop>();
  loop->count = count;
  const auto take = [loop, work] {
    int finished = 0;
    for (int i = loop->next.fetch_add(1); i < loop->count; i = loop->next.fetch_add(1), ++finished) work(i);
    absl::MutexLock lock(&loop->mutex);
    loop->finished += finished;
  };
  const int helpers = std::min<int>(count - 1, static_cast<int>(threads_.size()));
  for (int i = 0; i < helpers; ++i) Schedule(take);
  take();
  const auto done = [&loop]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(loop->mutex) { return loop->finished == loop->count; };
  absl::MutexLock lock(&loop->mutex);
  loop->mutex.Await(absl::Condition(&done));
}

void WorkerPool::Run() {
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !tasks_.empty(); };
  for (;;) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&ready));
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace quicksave::server
