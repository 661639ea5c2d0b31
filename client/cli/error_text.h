// Errors as the tool prints them.

#ifndef QUICKSAVE_CLIENT_CLI_ERROR_TEXT_H_
#define QUICKSAVE_CLIENT_CLI_ERROR_TEXT_H_

#include <string>

#include "absl/status/status.h"
#include "client/cli/console.h"

namespace quicksave::cli {

// Returns one line with its end: "quicksave: NOT_FOUND (NODE_NOT_FOUND): no node ... `quicksave ls` lists them.", or
// with
// --json one JSON line.
std::string ErrorText(const absl::Status& status, const Console& console);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_ERROR_TEXT_H_
