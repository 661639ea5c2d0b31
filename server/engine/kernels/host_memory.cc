#include <sys/mman.h>

#include <cstdint>

#include "server/engine/kernels/device_buffer.h"

namespace quicksave::engine {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr std::align_val_t kCacheLine{64};

// Maps address space at the begin of a huge page; memory is there on use. Null when there is not as much.
void* MapHugePages(size_t bytes) {
  const size_t mapped = bytes + kHugePage;
  void* map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  const size_t before = -reinterpret_cast<uintptr_t>(map) % kHugePage;
  auto* memory = static_cast<std::byte*>(map) + before;
  const size_t kept = (bytes + 4095) / 4096 * 4096;
  if (before > 0) munmap(map, before);
  munmap(memory + kept, mapped - before - kept);
  madvise(memory, kept, MADV_HUGEPAGE);
  return memory;
}

class HeapMemory : public DeviceMemory {
 public:
  void* Allocate(size_t bytes) override {
    return bytes >= kHugePage ? MapHugePages(bytes) : ::operator new(bytes, kCacheLine, std::nothrow);
  }
  void Free(void* memory, size_t bytes) override {
    if (bytes >= kHugePage) {
      munmap(memory, bytes);
    } else {
      ::operator delete(memory, kCacheLine);
    }
  }
};

}  // namespace

DeviceMemory& HostMemory() {
  static HeapMemory memory;
  return memory;
}

}  // namespace quicksave::engine
