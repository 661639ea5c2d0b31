// The functions of CUDA's runtime that cuda_device.cu calls, for a machine without a GPU. A program that has this file
// among its own objects uses them instead of the runtime's: its device is the CPU, and its kernels are those that nvcc
// compiled, translated from PTX. Launched kernels wait until the host waits for them, so that a test sees it when the
// host looks at a result too early.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/internal/raw_logging.h"
#include "absl/synchronization/mutex.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/testing/ptx_kernels.h"

namespace quicksave::engine {
namespace {

constexpr size_t kDeviceMemory = size_t{8} << 30;

struct Launch {
  const PtxKernel* kernel;
  uint32_t blocks;
  uint32_t threads;
  std::vector<std::byte> parameters;
};

// What the calls share. One device is used at a time, as by CudaDevice; the mutex is for those that any thread may
// make.
struct Runtime {
  absl::Mutex mutex;
  std::map<const void*, const PtxKernel*> kernels;  // by the host's function
  std::vector<Launch> launched;
  dim3 grid;
  dim3 block;
  cudaStream_t stream = nullptr;

  static Runtime& Get() {
    static auto* runtime = new Runtime();
    return *runtime;
  }

  void RunAll() {
    const cpu::ScopedFlushDenormals flush;
    std::vector<Launch> launches;
    {
      absl::MutexLock lock(&mutex);
      launches.swap(launched);
    }
    for (const Launch& launch : launches) {
      for (uint32_t block_index = 0; block_index < launch.blocks; ++block_index) {
        for (uint32_t thread = 0; thread < launch.threads; ++thread) {
          launch.kernel->run(launch.parameters.data(), block_index, launch.blocks, thread, launch.threads);
        }
      }
    }
  }
};

const PtxKernel* FindKernel(const std::string& name) {
  for (const PtxKernel& kernel : PtxKernels()) {
    if (name == kernel.name) return &kernel;
  }
  ABSL_RAW_LOG(FATAL, "no kernel %s was translated", name.c_str());
}

}  // namespace
}  // namespace quicksave::engine

using quicksave::engine::Runtime;

// NOLINTBEGIN(readability-identifier-naming, readability-function-size): names and parameters are the runtime's.
extern "C" {

void** __cudaRegisterFatBinary(void* /*binary*/) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void** /*handle*/) {}
void __cudaUnregisterFatBinary(void** /*handle*/) {}

void __cudaRegisterFunction(void** /*handle*/, const char* host_function, char* /*device_function*/, const char* name,
                            int /*thread_limit*/, uint3* /*thread*/, uint3* /*block*/, dim3* /*block_size*/,
                            dim3* /*grid_size*/, int* /*warp_size*/) {
  Runtime::Get().kernels[host_function] = quicksave::engine::FindKernel(name);
}

cudaError_t __cudaGetKernel(cudaKernel_t* handle, const void* host_function) {
  const auto* kernel = Runtime::Get().kernels.at(host_function);
  *handle = reinterpret_cast<cudaKernel_t>(const_cast<quicksave::engine::PtxKernel*>(kernel));
  return cudaSuccess;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t /*shared_bytes*/, cudaStream_t stream) {
  Runtime& runtime = Runtime::Get();
  runtime.grid = grid;
  runtime.block = block;
  runtime.stream = stream;
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  const Runtime& runtime = Runtime::Get();
  *grid = runtime.grid;
  *block = runtime.block;
  *shared_bytes = 0;
  *static_cast<cudaStream_t*>(stream) = runtime.stream;
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t handle, dim3 grid, dim3 block, void** arguments, size_t /*shared_bytes*/,
                               cudaStream_t /*stream*/) {
  const auto* kernel = reinterpret_cast<const quicksave::engine::PtxKernel*>(handle);
  quicksave::engine::Launch launch{kernel, grid.x, block.x, {}};
  for (size_t i = 0; i < kernel->parameters.size(); ++i) {
    const auto& [offset, size] = kernel->parameters[i];
    launch.parameters.resize(std::max(launch.parameters.size(), offset + size));
    std::memcpy(launch.parameters.data() + offset, arguments[i], size);
  }
  Runtime& runtime = Runtime::Get();
  absl::MutexLock lock(&runtime.mutex);
  runtime.launched.push_back(std::move(launch));
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t /*stream*/) {
  Runtime::Get().RunAll();
  return cudaSuccess;
}

// Waits for kernels first, as the runtime's does.
cudaError_t cudaFree(void* devPtr) {
  Runtime::Get().RunAll();
  std::free(devPtr);
  return cudaSuccess;
}

cudaError_t cudaMallocManaged(void** devPtr, size_t size, unsigned /*flags*/) {
  *devPtr = std::aligned_alloc(256, (size + 255) / 256 * 256);
  return *devPtr == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int /*device*/) {
  *properties = {};
  std::strcpy(properties->name, "on the CPU");
  properties->major = 9;
  properties->concurrentManagedAccess = 1;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = *total = quicksave::engine::kDeviceMemory;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  *stream = nullptr;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t /*stream*/) { return cudaSuccess; }

cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t /*error*/) { return "an error on the CPU"; }

}  // extern "C"
// NOLINTEND(readability-identifier-naming, readability-function-size)
