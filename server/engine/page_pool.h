#ifndef QUICKSAVE_SERVER_ENGINE_PAGE_POOL_H_
#define QUICKSAVE_SERVER_ENGINE_PAGE_POOL_H_

// The memory of the KV cache: pages of 16 tokens of all layers, reference counted, handed out against reservations.
// Layout of a page: [layers][keys, then values], each as cpu_kernels.h says in LayerPages.

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/kernels/device_buffer.h"

namespace quicksave::engine {

class PagePool;

// Shape of the KV cache of a model.
struct KvShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;

  // Bytes of one layer's keys, or values, in a page.
  size_t half_layer_bytes() const { return size_t(kv_heads) * head_dim * cpu::kPageTokens * sizeof(uint16_t); }
  size_t key_offset(int layer) const { return 2 * size_t(layer) * half_layer_bytes(); }
  size_t value_offset(int layer) const { return key_offset(layer) + half_layer_bytes(); }
  size_t page_bytes() const { return 2 * size_t(layers) * half_layer_bytes(); }
};

// Pages that n tokens fill.
inline int PagesFor(int tokens) { return (tokens + cpu::kPageTokens - 1) / cpu::kPageTokens; }

// A counted reference to a page; copying it shares the page. Thread-safe as a shared_ptr is. The pool must outlive it.
class PageRef {
 public:
  PageRef() = default;
  PageRef(const PageRef& other);
  PageRef(PageRef&& other) noexcept : pool_(other.pool_), index_(other.index_) { other.pool_ = nullptr; }
  PageRef& operator=(PageRef other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(index_, other.index_);
    return *this;
  }
  ~PageRef();

  std::byte* data() const;
  size_t size() const;
  // Of the pool's model.
  const KvShape& shape() const;
  // Whether this is the only reference, so that the page may be written.
  bool unique() const;

 private:
  friend class PagePool;
  friend class PageReservation;
  PageRef(PagePool* pool, int index) : pool_(pool), index_(index) {}
  PagePool* pool_ = nullptr;
  int index_ = 0;
};

// Pages promised to one piece of work; what it has not taken goes back with it. Movable; one thread at a time.
class PageReservation {
 public:
  PageReservation() = default;
  PageReservation(PageReservation&& other) noexcept : pool_(other.pool_), pages_(other.pages_) { other.pages_ = 0; }
  // What was left of the old one goes back.
  PageReservation& operator=(PageReservation&& other) noexcept {
    PageReservation old(std::move(*this));
    pool_ = other.pool_;
    pages_ = std::exchange(other.pages_, 0);
    return *this;
  }
  // Takes over the pages of another one of the same pool.
  void Add(PageReservation&& other) {
    if (other.pages_ == 0) return;
    pool_ = other.pool_;
    pages_ += std::exchange(other.pages_, 0);
  }
  ~PageReservation();

  int pages() const { return pages_; }
  // Takes `pages`, or all if there are fewer, into a reservation of its own.
  PageReservation Split(int pages) {
    const int split = std::min(pages, pages_);
    pages_ -= split;
    return PageReservation(pool_, split);
  }
  // Takes one page; its content is undefined. CHECK-fails when the reservation is used up: whoever reserved counted
  // wrongly.
  PageRef Take();
  // The opposite: a page that nobody else refers to is promised again; another one is let go of.
  void Return(PageRef page);

 private:
  friend class PagePool;
  PageReservation(PagePool* pool, int pages) : pool_(pool), pages_(pages) {}
  PagePool* pool_ = nullptr;
  int pages_ = 0;
};

// All pages of the process. Thread-safe.
class PagePool {
 public:
  struct Options {
    KvShape shape;
    size_t memory_bytes = 0;  // the budget; whole pages of it are used
    bool poison = false;  // fill each page with NaN when it is handed out, so that stale memory cannot pass for state
    DeviceMemory* memory = &HostMemory();  // of the device that computes in them
  };
  // INVALID_ARGUMENT when the budget holds no page; RESOURCE_EXHAUSTED when the device has not so much. Memory is
  // touched on use.
  static absl::StatusOr<std::unique_ptr<PagePool>> Create(const Options& options);
  ~PagePool();

  // RESOURCE_EXHAUSTED, with the figures, when fewer pages are free and not promised.
  absl::StatusOr<PageReservation> Reserve(int pages);

  const KvShape& shape() const { return options_.shape; }
  int total_pages() const { return total_; }
  // Pages that are referred to.
  int used_pages() const;
  // Pages that are neither referred to nor promised.
  int free_pages() const;

 private:
  friend class PageRef;
  friend class PageReservation;
  explicit PagePool(const Options& options) : options_(options) {}
  PageRef Take();
  void Return(int index);
  void Unreserve(int pages);
  void Unref(int index);

  Options options_;
  int total_ = 0;
  std::byte* memory_ = nullptr;
  std::unique_ptr<std::atomic<int>[]> references_;
  mutable absl::Mutex mutex_;
  std::vector<int> free_ ABSL_GUARDED_BY(mutex_);
  int reserved_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_PAGE_POOL_H_
