#ifndef QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_SCALAR_DEVICE_H_
#define QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_SCALAR_DEVICE_H_

#include <memory>

#include "server/engine/kernels/device.h"

namespace quicksave::engine {

// A device that runs the functors of the GPU in plain loops on the calling thread: slow, and the oracle of the other
// two. It shares nothing with CpuDevice but the layout of weights and pages.
std::unique_ptr<Device> MakeScalarDevice();

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_KERNELS_SCALAR_SCALAR_DEVICE_H_
