#include "server/engine/kernels/cuda/cuda_device.h"
#include "server/engine/testing/device_under_test.h"

namespace quicksave::engine {

absl::StatusOr<std::unique_ptr<Device>> MakeDeviceUnderTest() { return MakeCudaDevice(); }

}  // namespace quicksave::engine
