#include "tests/integration/encoding_profiles.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "compressor/block.h"
#include "tests/integration/server_process.h"

namespace quicksave::integration {
namespace {

namespace fs = std::filesystem;

// As little as still makes latents of a fifth of the size.
constexpr char kArguments[] =
    "--split 0,6 --layers-per-group 0 --tokens 3072 --piece-tokens 256 --gradient-pieces 2 --gradient-samples 1";

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Of all kinds, and never changed without reason: other texts make other profiles.
std::vector<std::string> Texts() { return {QUICKSAVE_SOURCE_DIR "/server/sidecar/calibration_text.cc"}; }

// The one process that has this makes the profiles.
class FileLock {
 public:
  explicit FileLock(const std::string& path) : file_(open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644)) {
    if (file_ >= 0) flock(file_, LOCK_EX);
  }
  ~FileLock() {
    if (file_ >= 0) close(file_);
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  bool held() const { return file_ >= 0; }

 private:
  const int file_;
};

absl::Status Calibrate(const std::vector<std::string>& texts, const fs::path& folder) {
  const fs::path log = folder / "log";
  const std::string command = absl::StrCat(
      "'", QUICKSAVE_CALIBRATE_BINARY, "' --model '", ModelDirectory(), "' --text ", absl::StrJoin(texts, " "),
      " --out '", (folder / "profile.safetensors").string(), "' ", kArguments, " > '", log.string(), "' 2>&1");
  const int ended = std::system(command.c_str());  // NOLINT(cert-env33-c,concurrency-mt-unsafe): before any thread
  if (WIFEXITED(ended) && WEXITSTATUS(ended) == 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("quicksave-calibrate failed: ", Read(log.string())));
}

}  // namespace

absl::StatusOr<std::string> ProfileFile(int split) {
  const std::vector<std::string> texts = Texts();
  std::string key = absl::StrCat(kArguments, ModelDirectory(), Read(QUICKSAVE_CALIBRATE_BINARY));
  for (const std::string& text : texts) absl::StrAppend(&key, Read(text));
  const fs::path root = QUICKSAVE_PROFILE_DIR;
  const fs::path folder = root / compressor::ComputeDigest(key).ToHex();
  const std::string file = (folder / absl::StrCat("profile-", split, ".safetensors")).string();
  std::error_code error;
  fs::create_directories(root, error);
  const FileLock lock((root / "lock").string());
  if (!lock.held()) return absl::InternalError(absl::StrCat("cannot lock ", root.string()));
  if (fs::exists(file)) return file;
  // Earlier ones are never used again.
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    if (entry.is_directory()) fs::remove_all(entry.path(), error);
  }
  const fs::path made = root / "new";
  fs::create_directories(made, error);
  if (absl::Status status = Calibrate(texts, made); !status.ok()) return status;
  fs::rename(made, folder, error);
  if (error) return absl::InternalError(absl::StrCat("cannot rename ", made.string(), ": ", error.message()));
  return file;
}

}  // namespace quicksave::integration
