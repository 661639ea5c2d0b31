// Where the tool reads and writes, and what its reader can show.

#ifndef QUICKSAVE_CLIENT_CLI_CONSOLE_H_
#define QUICKSAVE_CLIENT_CLI_CONSOLE_H_

#include <functional>
#include <istream>
#include <ostream>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace quicksave::cli {

enum class Style { kPlain, kDim, kBold, kRed, kGreen, kYellow, kCyan };

// Tests make their own, with string streams.
struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  // Whether a person types the input, reads the output, reads the messages.
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  // Colours, only where a terminal shows them.
  bool out_color = false;
  bool err_color = false;
  // Box characters, ellipses and the like, beyond ASCII.
  bool unicode = false;
  // Columns of tables and trees.
  int width = 100;
  // Output is JSON.
  bool json = false;
  // No messages about how a call went.
  bool quiet = false;
  std::function<absl::Time()> now = absl::Now;

  // Returns text in a style, for `out` or for `err`; the text itself where colours are off.
  std::string Styled(absl::string_view text, Style style) const { return Paint(text, style, out_color); }
  std::string StyledForErr(absl::string_view text, Style style) const { return Paint(text, style, err_color); }

  // Writes a line about how a call went to `err`, unless `quiet` or `json` is set.
  void Note(absl::string_view message) const;
  // Writes a line about something that is wrong, although the call succeeded, to `err`.
  void Warn(absl::string_view message) const;

  static std::string Paint(absl::string_view text, Style style, bool color);
};

// Returns the console of this process: standard streams, the terminal's width and abilities, NO_COLOR, COLUMNS.
Console ProcessConsole();

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_CONSOLE_H_
