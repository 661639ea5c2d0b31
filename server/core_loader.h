#ifndef QUICKSAVE_SERVER_CORE_LOADER_H_
#define QUICKSAVE_SERVER_CORE_LOADER_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/server_config.h"
#include "server/service/core.h"

namespace quicksave::server {

// Opens the store, loads the model, starts the engine, and runs the model once, so that the first call finds it warm.
// Calibrates the exact codec when the store has no profile of it for this model. Takes seconds. `stopped` is asked now
// and then; once it says yes, the answer is CANCELLED. Other errors are those of the parts, and say what to do.
absl::StatusOr<std::unique_ptr<Core>> LoadCore(const ServerConfig& config, absl::FunctionRef<bool()> stopped);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_CORE_LOADER_H_
