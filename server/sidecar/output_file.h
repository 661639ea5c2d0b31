#ifndef QUICKSAVE_SERVER_SIDECAR_OUTPUT_FILE_H_
#define QUICKSAVE_SERVER_SIDECAR_OUTPUT_FILE_H_

// Files that programs write after long work: checked before it, and never seen half written.

#include <functional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quicksave::server {

// Whether a file can be written there: ALREADY_EXISTS for one that exists, unless `replace`; NOT_FOUND where there is
// no such folder, PERMISSION_DENIED where it cannot be written to.
absl::Status CheckOutputFile(const std::string& path, bool replace);

// Writes a file beside its place, flushes it to the disk, and moves it there: whoever opens it sees the old one or all
// of the new one. UNAVAILABLE, with the path and the reason, if that fails; nothing is left behind then.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view content);
// The same, of what `write` puts into the stream.
absl::Status WriteFileAtomically(const std::string& path, const std::function<void(std::ostream&)>& write);

// NOT_FOUND for a file that is not there or cannot be read.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_OUTPUT_FILE_H_
