// The version of this library.

#ifndef QUICKSAVE_VERSION_H_
#define QUICKSAVE_VERSION_H_

#include "absl/strings/string_view.h"

namespace quicksave::client {

// Returns the version as MAJOR.MINOR.PATCH, for example "0.1.0".
absl::string_view Version();

}  // namespace quicksave::client

#endif  // QUICKSAVE_VERSION_H_
