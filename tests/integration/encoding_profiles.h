#ifndef QUICKSAVE_TESTS_INTEGRATION_ENCODING_PROFILES_H_
#define QUICKSAVE_TESTS_INTEGRATION_ENCODING_PROFILES_H_

#include <string>

#include "absl/status/statusor.h"

namespace quicksave::integration {

// Returns a latent profile of the tests' model with this split, 0 or 6: small, and calibrated by the real program on
// texts of this repository. Made when it is first asked for, which takes half a minute, and kept in the build folder
// until program, model or texts change. Other processes may ask at the same time.
absl::StatusOr<std::string> ProfileFile(int split);

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_ENCODING_PROFILES_H_
