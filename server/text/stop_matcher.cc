#include "server/text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/text/rust_call.h"

namespace quicksave::text {
namespace {

absl::Status CheckStopString(size_t index, absl::string_view stop_string) {
  const std::string name = absl::StrCat("stop string ", index);
  if (stop_string.empty()) return absl::InvalidArgumentError(absl::StrCat(name, " is empty"));
  if (stop_string.size() > StopMatcher::kMaxStopStringBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has ", stop_string.size(), " bytes; the limit is ", StopMatcher::kMaxStopStringBytes));
  }
  if (!quicksave_text_is_utf8(ViewOf(stop_string)))
    return absl::InvalidArgumentError(absl::StrCat(name, " is not UTF-8"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StopMatcher> StopMatcher::Create(std::vector<std::string> stop_strings) {
  if (stop_strings.size() > kMaxStopStrings) {
    return absl::InvalidArgumentError(
        absl::StrCat(stop_strings.size(), " stop strings; the limit is ", kMaxStopStrings));
  }
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    absl::Status status = CheckStopString(i, stop_strings[i]);
    if (!status.ok()) return status;
  }
  return StopMatcher(std::move(stop_strings));
}

StopMatcher::StopMatcher(std::vector<std::string> stop_strings) : stop_strings_(std::move(stop_strings)) {}

StopMatcher::Result StopMatcher::Push(absl::string_view piece) {
  if (stop_.has_value()) return {"", stop_};
  absl::StrAppend(&held_, piece);

  // (end, begin) of the best occurrence: the first completed, then the longest.
  std::pair<size_t, size_t> best(std::string::npos, 0);
  for (size_t i = 0; i < stop_strings_.size(); ++i) {
    const size_t begin = held_.find(stop_strings_[i]);
    if (begin == std::string::npos) continue;
    const std::pair<size_t, size_t> found(begin + stop_strings_[i].size(), begin);
    if (found < best) {
      best = found;
      stop_ = i;
    }
  }
  const size_t safe = stop_.has_value() ? best.second : held_.size() - HeldBytes(held_);
  std::string text = held_.substr(0, safe);
  held_ = stop_.has_value() ? std::string() : held_.substr(safe);
  return {std::move(text), stop_};
}

StopMatcher::Result StopMatcher::Restore(absl::string_view held_text) {
  held_.clear();
  stop_.reset();
  return Push(held_text);
}

size_t StopMatcher::HeldBytes(absl::string_view text) const {
  size_t held = 0;
  for (const std::string& stop_string : stop_strings_) {
    for (size_t n = std::min(text.size(), stop_string.size() - 1); n > held; --n) {
      if (absl::EndsWith(text, absl::string_view(stop_string).substr(0, n))) held = n;
    }
  }
  return held;
}

}  // namespace quicksave::text
