#include "server/engine/page_pool.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quicksave::engine {

PageRef::PageRef(const PageRef& other) : pool_(other.pool_), index_(other.index_) {
  if (pool_ != nullptr) pool_->references_[index_].fetch_add(1, std::memory_order_relaxed);
}

PageRef::~PageRef() {
  if (pool_ != nullptr) pool_->Unref(index_);
}

std::byte* PageRef::data() const { return pool_->memory_ + size_t(index_) * pool_->shape().page_bytes(); }

size_t PageRef::size() const { return pool_->shape().page_bytes(); }

const KvShape& PageRef::shape() const { return pool_->shape(); }

bool PageRef::unique() const { return pool_->references_[index_].load(std::memory_order_acquire) == 1; }

PageReservation::~PageReservation() {
  if (pages_ > 0) pool_->Unreserve(pages_);
}

PageRef PageReservation::Take() {
  ABSL_RAW_CHECK(pages_ > 0, "more pages taken than were reserved");
  --pages_;
  return pool_->Take();
}

void PageReservation::Return(PageRef page) {
  if (!page.unique()) return;
  pool_ = std::exchange(page.pool_, nullptr);
  pool_->Return(page.index_);
  ++pages_;
}

absl::StatusOr<std::unique_ptr<PagePool>> PagePool::Create(const Options& options) {
  const size_t page_bytes = options.shape.page_bytes();
  const size_t pages = options.memory_bytes / page_bytes;
  if (pages == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a KV memory of ", options.memory_bytes, " bytes holds no page of ", page_bytes, " bytes"));
  }
  auto pool = std::unique_ptr<PagePool>(new PagePool(options));
  void* memory = options.memory->Allocate(pages * page_bytes);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there are no ", pages * page_bytes, " bytes of memory for the KV cache; lower --kv-memory"));
  }
  pool->memory_ = static_cast<std::byte*>(memory);
  pool->total_ = static_cast<int>(pages);
  pool->references_ = std::make_unique<std::atomic<int>[]>(pages);
  absl::MutexLock lock(&pool->mutex_);
  for (int i = pool->total_ - 1; i >= 0; --i) pool->free_.push_back(i);
  return pool;
}

PagePool::~PagePool() {
  if (memory_ != nullptr) options_.memory->Free(memory_, size_t(total_) * shape().page_bytes());
}

absl::StatusOr<PageReservation> PagePool::Reserve(int pages) {
  absl::MutexLock lock(&mutex_);
  const int available = static_cast<int>(free_.size()) - reserved_;
  if (pages > available) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "kv_memory: ", pages, " pages of ", cpu::kPageTokens, " tokens are needed, ", available, " of ", total_,
        " are free; end sessions, ask for fewer tokens, or start the server with a larger --kv-memory"));
  }
  reserved_ += pages;
  return PageReservation(this, pages);
}

int PagePool::used_pages() const {
  absl::MutexLock lock(&mutex_);
  return total_ - static_cast<int>(free_.size());
}

int PagePool::free_pages() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(free_.size()) - reserved_;
}

PageRef PagePool::Take() {
  int index;
  {
    absl::MutexLock lock(&mutex_);
    --reserved_;
    index = free_.back();
    free_.pop_back();
  }
  references_[index].store(1, std::memory_order_relaxed);
  PageRef page(this, index);
  if (options_.poison) std::memset(page.data(), 0xff, shape().page_bytes());
  return page;
}

void PagePool::Return(int index) {
  references_[index].store(0, std::memory_order_relaxed);
  absl::MutexLock lock(&mutex_);
  free_.push_back(index);
  ++reserved_;
}

void PagePool::Unreserve(int pages) {
  absl::MutexLock lock(&mutex_);
  reserved_ -= pages;
}

void PagePool::Unref(int index) {
  if (references_[index].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  absl::MutexLock lock(&mutex_);
  free_.push_back(index);
}

}  // namespace quicksave::engine
