#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_DEVICE_BUFFER_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_DEVICE_BUFFER_H_

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace quicksave::engine {

// Memory that a device's kernels and the host can both read and write. Thread-safe; lives as long as the process.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  // At the begin of a cache line. Null when there is not as much. Its content is undefined, and it is not touched.
  virtual void* Allocate(size_t bytes) = 0;
  virtual void Free(void* memory, size_t bytes) = 0;
};

// That of the CPU. What is large is in huge pages and begins at one: each step reads all of it.
DeviceMemory& HostMemory();

// An array of plain values in a device's memory; it begins as zeros. Movable; one thread at a time.
template <class Value>
class DeviceBuffer {
 public:
  static_assert(std::is_trivially_copyable_v<Value>);

  // Empty.
  DeviceBuffer() : DeviceBuffer(HostMemory()) {}
  explicit DeviceBuffer(DeviceMemory& memory) : memory_(&memory) {}
  // Throws std::bad_alloc, as containers do.
  DeviceBuffer(size_t size, DeviceMemory& memory) : memory_(&memory), size_(size) {
    if (size == 0) return;
    data_ = static_cast<Value*>(memory.Allocate(size * sizeof(Value)));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, size * sizeof(Value));
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : memory_(other.memory_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) memory_->Free(data_, size_ * sizeof(Value));
  }

  Value* data() { return data_; }
  const Value* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Value& operator[](size_t index) { return data_[index]; }
  const Value& operator[](size_t index) const { return data_[index]; }

  // Makes it at least as large, and half as large again as it was, so that it does not grow often. What was in it is
  // lost when it was not.
  void Grow(size_t size) {
    if (size_ < size) *this = DeviceBuffer(std::max(size, size_ + size_ / 2), *memory_);
  }

 private:
  DeviceMemory* memory_;
  Value* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_DEVICE_BUFFER_H_
