#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_WEIGHT_BUFFER_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_WEIGHT_BUFFER_H_

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <vector>

namespace quicksave::engine::cpu {

// Allocates at the begin of a cache line, so that no vector of packed weights straddles two, and asks for huge pages
// for what is large: each step reads all of it.
template <class Value>
struct WeightAllocator {
  using value_type = Value;

  WeightAllocator() = default;
  template <class Other>
  explicit WeightAllocator(const WeightAllocator<Other>& /*other*/) {}

  Value* allocate(size_t count) {
    const size_t bytes = count * sizeof(Value);
    void* memory = ::operator new(bytes, Alignment(bytes));
    if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
    return static_cast<Value*>(memory);
  }
  void deallocate(Value* memory, size_t count) { ::operator delete(memory, Alignment(count * sizeof(Value))); }

  friend bool operator==(const WeightAllocator&, const WeightAllocator&) { return true; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;
  static std::align_val_t Alignment(size_t bytes) { return std::align_val_t{bytes >= kHugePage ? kHugePage : 64}; }
};

template <class Value>
using WeightBuffer = std::vector<Value, WeightAllocator<Value>>;

}  // namespace quicksave::engine::cpu

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_WEIGHT_BUFFER_H_
