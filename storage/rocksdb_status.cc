#include "storage/rocksdb_status.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quicksave::storage {
namespace {

absl::StatusCode CodeOf(const rocksdb::Status& status, absl::string_view text) {
  if (status.IsNotFound()) return absl::StatusCode::kNotFound;
  if (status.IsCorruption() || status.IsPathNotFound()) return absl::StatusCode::kDataLoss;
  if (status.IsNoSpace() || status.subcode() == rocksdb::Status::kSpaceLimit || status.IsMemoryLimit()) {
    return absl::StatusCode::kResourceExhausted;
  }
  if (status.IsIOError()) {
    const bool locked = absl::StrContains(text, "/LOCK") || absl::StrContains(text, "lock hold by current process");
    return locked ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kUnavailable;
  }
  if (status.IsShutdownInProgress()) return absl::StatusCode::kUnavailable;
  return absl::StatusCode::kInternal;
}

absl::string_view AdviceFor(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kResourceExhausted:
      return "; free some disk space and try again";
    case absl::StatusCode::kFailedPrecondition:
      return "; another process or Store has it open";
    default:
      return "";
  }
}

}  // namespace

absl::Status FromRocksDb(const rocksdb::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  const absl::StatusCode code = CodeOf(status, text);
  return absl::Status(code, absl::StrCat(what, ": ", text, AdviceFor(code)));
}

}  // namespace quicksave::storage
