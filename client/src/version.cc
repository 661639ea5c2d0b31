#include "quicksave/version.h"

namespace quicksave::client {

absl::string_view Version() { return QUICKSAVE_CLIENT_VERSION; }

}  // namespace quicksave::client
