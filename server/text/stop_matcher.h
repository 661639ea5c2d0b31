// Finds stop strings in streamed text without ever giving out a part of one.
#ifndef QUICKSAVE_SERVER_TEXT_STOP_MATCHER_H_
#define QUICKSAVE_SERVER_TEXT_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quicksave::text {

// Watches a text that arrives in pieces for the first stop string. The answer does not depend on how the text is cut
// into pieces: the stop string that is completed first wins, and of several completed by the same byte the longest.
//
// Not thread-safe; one object belongs to one generation. Its only state is the text held back.
class StopMatcher {
 public:
  static constexpr size_t kMaxStopStrings = 16;
  static constexpr size_t kMaxStopStringBytes = 256;

  struct Result {
    // Text that may be given out: nothing of it can belong to a stop string. Cut at character boundaries.
    std::string text;
    // Index of the stop string that was completed, or nothing. `text` then ends right before the stop string, and
    // what followed it is dropped.
    std::optional<size_t> stop;
  };

  // A matcher for `stop_strings`; none is allowed and holds nothing back. INVALID_ARGUMENT for more than
  // kMaxStopStrings, and for one that is empty, longer than kMaxStopStringBytes or not UTF-8.
  static absl::StatusOr<StopMatcher> Create(std::vector<std::string> stop_strings);

  // Takes the next piece of text (UTF-8, whole characters) and returns what is now safe. After a stop string was
  // completed, further text is dropped and the same stop is reported again.
  Result Push(absl::string_view piece);

  // The text held back: the longest end of the text so far that may be the beginning of a stop string.
  const std::string& held_text() const { return held_; }

  // Continues with the held text of a saved matcher, which may have had other stop strings. Gives text that these stop
  // strings need not hold back, and a stop if the held text contains one, as Push does.
  Result Restore(absl::string_view held_text);

 private:
  explicit StopMatcher(std::vector<std::string> stop_strings);

  // Bytes at the end of `text` that are a proper prefix of a stop string, at most.
  size_t HeldBytes(absl::string_view text) const;

  std::vector<std::string> stop_strings_;
  std::string held_;
  std::optional<size_t> stop_;
};

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_STOP_MATCHER_H_
