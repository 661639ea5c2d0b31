#include "server/engine/kernels/scalar/scalar_device.h"
#include "server/engine/testing/device_under_test.h"

namespace quicksave::engine {

absl::StatusOr<std::unique_ptr<Device>> MakeDeviceUnderTest() { return MakeScalarDevice(); }

}  // namespace quicksave::engine
