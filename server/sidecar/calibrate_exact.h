#ifndef QUICKSAVE_SERVER_SIDECAR_CALIBRATE_EXACT_H_
#define QUICKSAVE_SERVER_SIDECAR_CALIBRATE_EXACT_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/service/core.h"

namespace quicksave::server {

// Makes the exact codec's profile for the model: runs the model over the built-in calibration texts, some thousand
// tokens, and has the archive count what their K and V look like. Seconds. With too little KV memory for that, says so
// in the log and leaves the codec without a profile. CANCELLED once `stopped` says yes.
absl::Status CalibrateExact(Core& core, absl::FunctionRef<bool()> stopped);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CALIBRATE_EXACT_H_
