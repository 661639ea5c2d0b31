#include "server/engine/kernels/thread_pool.h"

#include "server/engine/kernels/cpu_kernels.h"

namespace quicksave::engine {
namespace {

// About 20 microseconds: the gap between two loops of a step is shorter, the gap between two steps of an idle server
// longer.
constexpr int kSpins = 600;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns once `value` differs from `old`.
template <class T>
void AwaitChange(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int count, absl::FunctionRef<void(int)> work) {
  if (workers_.empty() || count == 1) {
    for (int i = 0; i < count; ++i) work(i);
    return;
  }
  work_ = &work;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  TakeWork();
  for (int left = busy_.load(std::memory_order_acquire); left != 0; left = busy_.load(std::memory_order_acquire)) {
    AwaitChange(busy_, left);
  }
}

void ThreadPool::TakeWork() {
  for (int i = next_.fetch_add(1, std::memory_order_relaxed); i < count_;
       i = next_.fetch_add(1, std::memory_order_relaxed)) {
    (*work_)(i);
  }
}

void ThreadPool::WorkerLoop() {
  const cpu::ScopedFlushDenormals flush;
  for (uint32_t round = 0;; ++round) {
    AwaitChange(round_, round);
    if (stopping_.load()) return;
    TakeWork();
    busy_.fetch_sub(1, std::memory_order_release);
    busy_.notify_one();
  }
}

}  // namespace quicksave::engine
