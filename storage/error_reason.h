#ifndef QUICKSAVE_STORAGE_ERROR_REASON_H_
#define QUICKSAVE_STORAGE_ERROR_REASON_H_

// Reasons of errors for programs, where the code alone does not tell what to do. docs/errors.md lists them.

#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"

namespace quicksave::storage {

inline constexpr char kReasonPayload[] = "quicksave/reason";

// The error with a reason, UPPER_SNAKE_CASE.
inline absl::Status WithReason(absl::string_view reason, absl::Status error) {
  error.SetPayload(kReasonPayload, absl::Cord(reason));
  return error;
}

// The reason of an error; empty if it has none.
inline std::string ReasonOf(const absl::Status& error) {
  return std::string(error.GetPayload(kReasonPayload).value_or(absl::Cord()));
}

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_ERROR_REASON_H_
