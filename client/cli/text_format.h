// Numbers and texts as people read them. Every function is pure.

#ifndef QUICKSAVE_CLIENT_CLI_TEXT_FORMAT_H_
#define QUICKSAVE_CLIENT_CLI_TEXT_FORMAT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quicksave::cli {

// "0 B", "1023 B", "1.5 KiB", "23.4 MiB".
std::string HumanBytes(int64_t bytes);
// "1,234,567".
std::string HumanCount(int64_t count);
// "850 us", "12.3 ms", "1.25 s", "2m05s", "3h07m", "4d02h".
std::string HumanDuration(absl::Duration duration);
// "1.56x"; "-" for 0.
std::string HumanRatio(double ratio);
// "now", "5s ago", "3m ago", "2h ago", "4d ago", then the date; "-" for an unknown time.
std::string HumanAge(absl::Time time, absl::Time now);
// RFC 3339 in UTC with milliseconds; "-" for an unknown time.
std::string HumanTime(absl::Time time);

// Returns the text as one printable line: line ends and other control characters become escapes such as \n, and invalid
// UTF-8 becomes U+FFFD (or ?). Without `unicode`, what is not ASCII becomes ?.
std::string OneLine(absl::string_view text, bool unicode);
// Returns a message that may quote whole files, cut after a thousand bytes, and a mark.
std::string Shortened(absl::string_view text);
// Returns the text for a terminal: line ends and tabs stay, other control characters, which could steer it, become
// U+FFFD.
std::string WithoutControls(absl::string_view text);

// Columns that a terminal uses for UTF-8 text without control characters; East Asian wide characters and emoji take
// two.
int DisplayWidth(absl::string_view text);
// Returns the text in at most `width` columns; what is cut off at the end (or at the start) is marked by an ellipsis.
std::string CutEnd(absl::string_view text, int width, bool unicode);
std::string CutStart(absl::string_view text, int width, bool unicode);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_TEXT_FORMAT_H_
