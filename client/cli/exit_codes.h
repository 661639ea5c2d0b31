// What the tool's exit status says. Documented in client/README.md and in `quicksave --help`.

#ifndef QUICKSAVE_CLIENT_CLI_EXIT_CODES_H_
#define QUICKSAVE_CLIENT_CLI_EXIT_CODES_H_

#include "absl/status/status.h"

namespace quicksave::cli {

enum ExitCode {
  kExitOk = 0,
  // Any failure that has no code of its own.
  kExitError = 1,
  // Wrong flags, or an argument that the server refuses whatever its state.
  kExitUsage = 2,
  kExitNotFound = 3,
  // No server answers, or it is not ready.
  kExitUnavailable = 4,
  // The time limit passed.
  kExitDeadline = 5,
  // A stored state is damaged, or a restore did not prove itself.
  kExitDataLoss = 6,
  // A queue, quota, disk or memory of the server is full.
  kExitExhausted = 7,
  // Not in this state: a node with children, another model's node, a changed etag, no encoding within the budget.
  kExitPrecondition = 8,
  // The server does not accept who calls.
  kExitDenied = 9,
  // Stopped by Ctrl-C.
  kExitInterrupted = 130,
};

inline ExitCode ExitCodeFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitUsage;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitDeadline;
    case absl::StatusCode::kDataLoss:
      return kExitDataLoss;
    case absl::StatusCode::kResourceExhausted:
      return kExitExhausted;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return kExitPrecondition;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kExitDenied;
    case absl::StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitError;
  }
}

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_EXIT_CODES_H_
