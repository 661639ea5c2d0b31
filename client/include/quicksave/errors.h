// What errors of a Quicksave server carry besides code and message.
//
// Codes, as the server uses them: INVALID_ARGUMENT wrong whatever the state; NOT_FOUND; FAILED_PRECONDITION wrong
// state; ABORTED lost a race (wrong etag, or the same request_id is still in progress); RESOURCE_EXHAUSTED a queue,
// quota, disk or memory is full; DATA_LOSS a stored state is proved corrupt; UNAVAILABLE no server, or retry;
// DEADLINE_EXCEEDED and CANCELLED by the caller; INTERNAL a server's fault.

#ifndef QUICKSAVE_ERRORS_H_
#define QUICKSAVE_ERRORS_H_

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace quicksave::client {

// Returns the reason of google.rpc.ErrorInfo, for example `NODE_NOT_FOUND`; empty when the error carries none.
std::string ErrorReason(const absl::Status& status);

// Returns the metadata of google.rpc.ErrorInfo: the limit or resource concerned; empty when the error carries none.
std::map<std::string, std::string> ErrorMetadata(const absl::Status& status);

// Returns after what time the server asks to try again (google.rpc.RetryInfo); nothing when it does not.
std::optional<absl::Duration> ErrorRetryDelay(const absl::Status& status);

}  // namespace quicksave::client

#endif  // QUICKSAVE_ERRORS_H_
