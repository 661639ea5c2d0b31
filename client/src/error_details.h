// Error details between the wire and absl::Status: each google.protobuf.Any becomes a payload under its type URL.

#ifndef QUICKSAVE_CLIENT_SRC_ERROR_DETAILS_H_
#define QUICKSAVE_CLIENT_SRC_ERROR_DETAILS_H_

#include <string>

#include "absl/status/status.h"

namespace quicksave::client {

// Returns an error of this code and message with the details of a serialized google.rpc.Status as payloads. Details
// that do not parse are left out. `code` OK gives OkStatus.
absl::Status MakeStatus(absl::StatusCode code, const std::string& message, const std::string& serialized_details);

// Returns whether the error carries any details; those made on this side of the wire carry none.
bool HasDetails(const absl::Status& status);

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_ERROR_DETAILS_H_
