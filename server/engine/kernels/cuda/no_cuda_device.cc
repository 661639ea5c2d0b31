// Stands in for cuda_device.cu in builds without CUDA.
#include "server/engine/kernels/cuda/cuda_device.h"

namespace quicksave::engine {

bool HasCuda() { return false; }

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice() {
  return absl::UnimplementedError("this build cannot run on GPUs; scripts/build_cuda.sh makes one that can");
}

}  // namespace quicksave::engine
