#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/engine/kernels/cuda/cuda_device.h"
#include "server/engine/kernels/scalar/functor_device.h"

namespace quicksave::engine {
namespace {

constexpr char kAlternative[] = "; start with --device cpu";

// Ends the process when a call of the runtime has failed.
void Require(cudaError_t error, const char* what) {
  if (error != cudaSuccess) ABSL_RAW_LOG(FATAL, "CUDA: %s: %s", what, cudaGetErrorString(error));
}

// Managed memory, never more than the GPU holds: what is beyond that would be moved back and forth in each pass.
// Weights and pages leave some for the buffers of passes, which grow later.
class ManagedMemory : public DeviceMemory {
 public:
  explicit ManagedMemory(size_t bytes) : free_(static_cast<int64_t>(bytes)) {}

  void* Allocate(size_t bytes) override {
    constexpr int64_t kLarge = int64_t{256} << 20;
    constexpr int64_t kLeft = int64_t{1} << 30;
    const auto size = static_cast<int64_t>(bytes);
    if (free_.fetch_sub(size) >= size + (size >= kLarge ? kLeft : 0)) {
      void* memory = nullptr;
      if (cudaMallocManaged(&memory, bytes) == cudaSuccess) return memory;
      cudaGetLastError();  // forgets the failure
    }
    free_.fetch_add(size);
    return nullptr;
  }
  void Free(void* memory, size_t bytes) override {
    Require(cudaFree(memory), "cannot free memory");
    free_.fetch_add(static_cast<int64_t>(bytes));
  }

 private:
  std::atomic<int64_t> free_;
};

template <class Functor>
__global__ void Run(int64_t count, const Functor functor) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) functor(i);
}

class CudaDevice : public scalar::FunctorDevice<CudaDevice> {
 public:
  CudaDevice(std::string name, ManagedMemory& memory, cudaStream_t stream)
      : FunctorDevice(memory), name_(std::move(name)), memory_(memory), stream_(stream) {}
  ~CudaDevice() override { Require(cudaStreamDestroy(stream_), "cannot end the stream"); }

  std::string name() const override { return name_; }
  DeviceMemory& memory() override { return memory_; }
  void Wait() override { Require(cudaStreamSynchronize(stream_), "a pass failed"); }

  template <class Functor>
  void ForEach(int64_t count, const Functor& functor) {
    if (count == 0) return;
    // Little work is spread over all processors.
    constexpr int64_t kMuch = 1 << 16;
    constexpr int64_t kMostBlocks = 1 << 20;
    const int threads = count < kMuch ? 32 : 256;
    const int64_t blocks = std::min((count + threads - 1) / threads, kMostBlocks);
    Run<<<static_cast<unsigned>(blocks), threads, 0, stream_>>>(count, functor);
    Require(cudaGetLastError(), "cannot launch a kernel");
  }

 private:
  const std::string name_;
  ManagedMemory& memory_;
  const cudaStream_t stream_;
};

absl::Status NoDevice(cudaError_t error) {
  return absl::UnavailableError(absl::StrCat("no CUDA device: ", cudaGetErrorString(error), kAlternative));
}

// What the kernels were compiled for, and what lets the host look at memory while they run.
absl::Status CheckProperties(const cudaDeviceProp& properties) {
  if (properties.major < 8) {
    return absl::FailedPreconditionError(absl::StrCat("the GPU ", properties.name, " has compute capability ",
                                                      properties.major, ".", properties.minor,
                                                      ", needed is 8.0 or more", kAlternative));
  }
  if (properties.concurrentManagedAccess == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the GPU ", properties.name,
                     " lacks concurrentManagedAccess: the host could not use memory while it computes", kAlternative));
  }
  return absl::OkStatus();
}

}  // namespace

bool HasCuda() { return true; }

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice() {
  int devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&devices); error != cudaSuccess) return NoDevice(error);
  if (devices == 0) return NoDevice(cudaErrorNoDevice);
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, 0); error != cudaSuccess) return NoDevice(error);
  if (absl::Status status = CheckProperties(properties); !status.ok()) return status;
  size_t free = 0;
  size_t total = 0;
  if (const cudaError_t error = cudaMemGetInfo(&free, &total); error != cudaSuccess) return NoDevice(error);
  cudaStream_t stream;
  if (const cudaError_t error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); error != cudaSuccess) {
    return NoDevice(error);
  }
  // Lives as long as the process, as buffers may.
  static auto* memory = new ManagedMemory(free);
  return std::make_unique<CudaDevice>(absl::StrCat("cuda ", properties.name), *memory, stream);
}

}  // namespace quicksave::engine
