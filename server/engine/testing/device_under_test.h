#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_DEVICE_UNDER_TEST_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_DEVICE_UNDER_TEST_H_

#include <cstdlib>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/kernels/device.h"

namespace quicksave::engine {

// The device that a test of devices compares with the CPU's; which one is a matter of what the test is linked with.
// UNAVAILABLE, with the reason, where the machine has none, FAILED_PRECONDITION where it has one that is not supported.
absl::StatusOr<std::unique_ptr<Device>> MakeDeviceUnderTest();

// Whether the test is to be skipped for want of a device: never with QUICKSAVE_NEED_DEVICE in the environment, as tests
// have whose device is the CPU.
inline bool IsMissing(const absl::Status& made) {
  if (std::getenv("QUICKSAVE_NEED_DEVICE") != nullptr) return false;
  return absl::IsUnavailable(made) || absl::IsFailedPrecondition(made);
}

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_DEVICE_UNDER_TEST_H_
