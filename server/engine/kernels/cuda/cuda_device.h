#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_CUDA_CUDA_DEVICE_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_CUDA_CUDA_DEVICE_H_

// The functors of kernels/scalar as kernels on an NVIDIA GPU. docs/gpu.md says what it needs and what was tested.

#include <memory>

#include "absl/status/statusor.h"
#include "server/engine/kernels/device.h"

namespace quicksave::engine {

// Whether this build can run on GPUs: scripts/build_cuda.sh makes one that can.
bool HasCuda();

// The first CUDA device; CUDA_VISIBLE_DEVICES chooses another. Its memory is managed memory, as much as the GPU has
// free when this is first called, so that the host reads pages where they are. Threads of the host may do so during a
// pass, as long as the pass does not write those pages. UNIMPLEMENTED in a build without CUDA; UNAVAILABLE, with the
// driver's reason, where there is no device; FAILED_PRECONDITION for one that lacks something, naming it.
//
// A GPU that fails during a pass ends the process, with the driver's reason: the driver then refuses all further work.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice();

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_CUDA_CUDA_DEVICE_H_
