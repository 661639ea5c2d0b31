#include "storage/rocksdb_status.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "storage/error_reason.h"

namespace quicksave::storage {
namespace {

struct Meaning {
  absl::StatusCode code;
  absl::string_view advice;
};

// By the system's words, which stand at the end: a path may contain anything.
Meaning MeaningOfIoError(absl::string_view text) {
  const bool held_elsewhere =
      absl::StrContains(text, "While lock file: ") && absl::EndsWith(text, "Resource temporarily unavailable");
  const bool held_here =
      absl::StrContains(text, "lock hold by current process") && absl::EndsWith(text, "No locks available");
  if (held_elsewhere || held_here) {
    return {absl::StatusCode::kFailedPrecondition, "; another process or Store has it open"};
  }
  if (absl::EndsWith(text, "Permission denied")) {
    return {absl::StatusCode::kFailedPrecondition, "; check the permissions of the directory and its files"};
  }
  return {absl::StatusCode::kUnavailable, ""};
}

Meaning MeaningOf(const rocksdb::Status& status, absl::string_view text) {
  if (status.IsCorruption() || status.IsPathNotFound()) return {absl::StatusCode::kDataLoss, ""};
  // A write that waited for one that found the disk full is told so in words only.
  const bool no_space = status.IsIncomplete() && absl::StrContains(text, "No space left on device");
  if (no_space || status.IsNoSpace() || status.subcode() == rocksdb::Status::kSpaceLimit || status.IsMemoryLimit()) {
    return {absl::StatusCode::kResourceExhausted, "; free some disk space and try again"};
  }
  if (status.IsIOError()) return MeaningOfIoError(text);
  if (status.IsShutdownInProgress()) return {absl::StatusCode::kUnavailable, ""};
  return {absl::StatusCode::kInternal, ""};
}

}  // namespace

absl::Status FromRocksDb(const rocksdb::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  if (status.IsNotFound()) return absl::NotFoundError(absl::StrCat(what, " does not exist"));
  const std::string text = status.ToString();
  const Meaning meaning = MeaningOf(status, text);
  absl::Status error(meaning.code, absl::StrCat(what, ": ", text, meaning.advice));
  return meaning.code == absl::StatusCode::kResourceExhausted ? WithReason("DISK_FULL", std::move(error)) : error;
}

}  // namespace quicksave::storage
