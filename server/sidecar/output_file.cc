#include "server/sidecar/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace quicksave::server {
namespace {

namespace fs = std::filesystem;

std::string FolderOf(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

// Flushes a file or a folder to the disk.
bool Sync(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool synced = fsync(file) == 0;
  close(file);
  return synced;
}

}  // namespace

absl::Status CheckOutputFile(const std::string& path, bool replace) {
  std::error_code error;
  if (!fs::is_directory(FolderOf(path), error)) {
    return absl::NotFoundError(absl::StrCat("there is no folder ", FolderOf(path), " for ", path));
  }
  if (fs::is_directory(path, error)) return absl::AlreadyExistsError(absl::StrCat(path, " is a folder"));
  if (!replace && fs::exists(path, error)) return absl::AlreadyExistsError(absl::StrCat(path, " exists"));
  if (access(FolderOf(path).c_str(), W_OK) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("the folder ", FolderOf(path), " cannot be written to"));
}

absl::Status WriteFileAtomically(const std::string& path, const std::function<void(std::ostream&)>& write) {
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  errno = 0;
  if (file) write(file);
  file.close();
  std::error_code error;
  const bool whole = !file.fail() && Sync(temporary);
  if (whole) fs::rename(temporary, path, error);
  if (whole && !error && Sync(FolderOf(path))) return absl::OkStatus();
  const std::string reason = error ? error.message() : std::strerror(errno);
  fs::remove(temporary, error);
  return absl::UnavailableError(absl::StrCat("cannot write ", path, ": ", reason));
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view content) {
  return WriteFileAtomically(path, [&](std::ostream& stream) { stream << content; });
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content(std::istreambuf_iterator<char>(file), {});
  if (file.is_open() && !file.bad()) return content;
  return absl::NotFoundError(absl::StrCat("cannot read ", path));
}

}  // namespace quicksave::server
