#ifndef QUICKSAVE_SERVER_SIDECAR_CALIBRATION_WORK_H_
#define QUICKSAVE_SERVER_SIDECAR_CALIBRATION_WORK_H_

// The folder in which a calibration keeps what it has done, so that one that was killed goes on.

#include <functional>
#include <istream>
#include <map>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quicksave::server {

// Parts by name, each written whole or not at all. A folder without a path keeps nothing. One process at a time.
class CalibrationWork {
 public:
  // Keeps nothing.
  CalibrationWork() = default;
  // Makes the folder for the work that these options define, or opens it. FAILED_PRECONDITION, naming an option that
  // differs, for a folder of other work; UNAVAILABLE where it cannot be made.
  static absl::StatusOr<CalibrationWork> Open(const std::string& folder,
                                              const std::map<std::string, std::string>& options);

  bool keeps() const { return !folder_.empty(); }
  // Whether a part was written.
  bool Has(const std::string& part) const;
  // Reads a part; NOT_FOUND for one that was not written.
  absl::StatusOr<std::string> Read(const std::string& part) const;
  absl::Status Read(const std::string& part, const std::function<absl::Status(std::istream&)>& read) const;
  // Writes a part in place of an older one. Does nothing where nothing is kept.
  absl::Status Write(const std::string& part, const std::function<void(std::ostream&)>& write) const;
  absl::Status Write(const std::string& part, absl::string_view content) const;

 private:
  explicit CalibrationWork(std::string folder) : folder_(std::move(folder)) {}
  std::string PathOf(const std::string& part) const;

  std::string folder_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SIDECAR_CALIBRATION_WORK_H_
