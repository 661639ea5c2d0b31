#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_DEVICE_UNDER_TEST_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_DEVICE_UNDER_TEST_H_

#include <memory>

#include "absl/status/statusor.h"
#include "server/engine/kernels/device.h"

namespace quicksave::engine {

// The device that a test of devices compares with the CPU's; which one is a matter of what the test is linked with.
// UNAVAILABLE, with the reason, where the machine has none: the test is skipped then.
absl::StatusOr<std::unique_ptr<Device>> MakeDeviceUnderTest();

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_DEVICE_UNDER_TEST_H_
