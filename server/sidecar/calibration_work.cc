#include "server/sidecar/calibration_work.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/sidecar/output_file.h"

namespace quicksave::server {
namespace {

using Options = std::map<std::string, std::string>;

constexpr char kOptions[] = "options.json";

// What distinguishes the work that a folder was made for; none for the same.
absl::Status CheckSame(const std::string& folder, const std::string& made_for, const Options& options) {
  const auto json = nlohmann::json::parse(made_for, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::FailedPreconditionError(absl::StrCat(folder, " is no work folder: its ", kOptions, " is damaged"));
  }
  for (const auto& [name, value] : options) {
    const auto found = json.find(name);
    const std::string before = found != json.end() && found->is_string() ? found->get<std::string>() : "nothing";
    if (before == value) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("the work in ", folder, " is for other options: ", name, " was ", before, " and is ", value,
                     " now. Use another folder, or the options that it was begun with"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CalibrationWork> CalibrationWork::Open(const std::string& folder, const Options& options) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot make ", folder, ": ", error.message()));
  const CalibrationWork work(folder);
  if (work.Has(kOptions)) {
    const absl::StatusOr<std::string> made_for = work.Read(kOptions);
    if (!made_for.ok()) return made_for.status();
    if (absl::Status status = CheckSame(folder, *made_for, options); !status.ok()) return status;
    return work;
  }
  if (!std::filesystem::is_empty(folder, error) || error) {
    return absl::FailedPreconditionError(absl::StrCat(folder, " is not empty, and no work folder"));
  }
  if (absl::Status status = work.Write(kOptions, nlohmann::json(options).dump(2) + "\n"); !status.ok()) return status;
  return work;
}

std::string CalibrationWork::PathOf(const std::string& part) const {
  return (std::filesystem::path(folder_) / part).string();
}

bool CalibrationWork::Has(const std::string& part) const {
  std::error_code error;
  return keeps() && std::filesystem::is_regular_file(PathOf(part), error);
}

absl::StatusOr<std::string> CalibrationWork::Read(const std::string& part) const {
  if (!keeps()) return absl::NotFoundError(absl::StrCat("nothing is kept, so no ", part));
  return ReadWholeFile(PathOf(part));
}

absl::Status CalibrationWork::Read(const std::string& part,
                                   const std::function<absl::Status(std::istream&)>& read) const {
  std::ifstream file(PathOf(part), std::ios::binary);
  if (!keeps() || !file) return absl::NotFoundError(absl::StrCat("cannot read ", PathOf(part)));
  absl::Status status = read(file);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(PathOf(part), ": ", status.message(), "; remove it to begin anew"));
}

absl::Status CalibrationWork::Write(const std::string& part, const std::function<void(std::ostream&)>& write) const {
  return keeps() ? WriteFileAtomically(PathOf(part), write) : absl::OkStatus();
}

absl::Status CalibrationWork::Write(const std::string& part, absl::string_view content) const {
  return keeps() ? WriteFileAtomically(PathOf(part), content) : absl::OkStatus();
}

}  // namespace quicksave::server
