#include "client/cli/console.h"

#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <clocale>
#include <cstdlib>
#include <iostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quicksave::cli {
namespace {

constexpr int kDefaultWidth = 100;

absl::string_view EscapeOf(Style style) {
  switch (style) {
    case Style::kDim:
      return "\x1b[2m";
    case Style::kBold:
      return "\x1b[1m";
    case Style::kRed:
      return "\x1b[31m";
    case Style::kGreen:
      return "\x1b[32m";
    case Style::kYellow:
      return "\x1b[33m";
    case Style::kCyan:
      return "\x1b[36m";
    case Style::kPlain:
      break;
  }
  return "";
}

absl::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int TerminalWidth() {
  int columns = 0;
  if (absl::SimpleAtoi(Environment("COLUMNS"), &columns) && columns > 0) return columns;
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return kDefaultWidth;
}

}  // namespace

std::string Console::Paint(absl::string_view text, Style style, bool color) {
  if (!color || style == Style::kPlain || text.empty()) return std::string(text);
  return absl::StrCat(EscapeOf(style), text, "\x1b[0m");
}

void Console::Note(absl::string_view message) const {
  if (quiet || json) return;
  out.flush();
  err << StyledForErr(message, Style::kDim) << std::endl;
}

void Console::Warn(absl::string_view message) const {
  out.flush();
  err << StyledForErr("warning: ", Style::kYellow) << message << std::endl;
}

Console ProcessConsole() {
  std::setlocale(LC_CTYPE, "");
  Console console{.in = std::cin, .out = std::cout, .err = std::cerr};
  console.in_is_terminal = isatty(STDIN_FILENO) != 0;
  console.out_is_terminal = isatty(STDOUT_FILENO) != 0;
  console.err_is_terminal = isatty(STDERR_FILENO) != 0;
  const bool dumb = Environment("TERM") == "dumb";
  const bool color = Environment("NO_COLOR").empty() && !dumb;
  console.out_color = color && console.out_is_terminal;
  console.err_color = color && console.err_is_terminal;
  console.unicode = absl::string_view(nl_langinfo(CODESET)) == "UTF-8" && !dumb;
  console.width = TerminalWidth();
  return console;
}

}  // namespace quicksave::cli
