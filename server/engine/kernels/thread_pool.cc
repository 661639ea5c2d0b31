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
  round_.fetch_add(1);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::ParallelFor(int count, absl::FunctionRef<void(int)> work) {
  if (workers_.empty() || count <= 1) {
    for (int i = 0; i < count; ++i) work(i);
    return;
  }
  work_ = &work;
  count_ = count;
  done_.store(0, std::memory_order_relaxed);
  const uint32_t round = round_.load(std::memory_order_relaxed) + 1;
  untaken_.store(uint64_t{round} << 32 | static_cast<uint32_t>(count), std::memory_order_release);
  round_.fetch_add(1);
  round_.notify_all();
  TakeWork();
  for (int done = done_.load(std::memory_order_acquire); done != count; done = done_.load(std::memory_order_acquire)) {
    AwaitChange(done_, done);
  }
}

void ThreadPool::TakeWork() {
  uint64_t untaken = untaken_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(untaken) != 0) {
    // Fails for a loop that has ended meanwhile, because its number is another one.
    if (!untaken_.compare_exchange_weak(untaken, untaken - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    const int count = count_;
    (*work_)(count - static_cast<int>(static_cast<uint32_t>(untaken)));
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) done_.notify_one();
    untaken = untaken_.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop() {
  const cpu::ScopedFlushDenormals flush;
  for (;;) {
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    TakeWork();
    AwaitChange(round_, round);
  }
}

}  // namespace quicksave::engine
