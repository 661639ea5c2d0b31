#include "client/cli/text_format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quicksave::cli {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

// One character of a text: its bytes and code point; `valid` is false for a byte that is not UTF-8.
struct Character {
  absl::string_view bytes;
  uint32_t code = 0;
  bool valid = true;
};

// The number of bytes that the first byte of a character announces; 0 when it cannot be a first byte.
int AnnouncedBytes(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first < 0xE0) return 2;
  if (first >= 0xE0 && first < 0xF0) return 3;
  return first >= 0xF0 && first < 0xF5 ? 4 : 0;
}

Character TakeCharacter(absl::string_view text) {
  const int size = AnnouncedBytes(static_cast<unsigned char>(text[0]));
  const Character invalid{.bytes = text.substr(0, 1), .code = 0xFFFD, .valid = false};
  if (size == 0 || static_cast<size_t>(size) > text.size()) return invalid;
  uint32_t code = size == 1 ? text[0] : static_cast<unsigned char>(text[0]) & (0x7F >> size);
  for (int i = 1; i < size; ++i) {
    const unsigned char byte = text[i];
    if ((byte & 0xC0) != 0x80) return invalid;
    code = code << 6 | (byte & 0x3F);
  }
  constexpr std::array<uint32_t, 5> kSmallest = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[size] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return invalid;
  return {.bytes = text.substr(0, size), .code = code};
}

std::vector<Character> Characters(absl::string_view text) {
  std::vector<Character> characters;
  while (!text.empty()) {
    characters.push_back(TakeCharacter(text));
    text.remove_prefix(characters.back().bytes.size());
  }
  return characters;
}

bool IsControl(uint32_t code) {
  const bool steers_direction = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x2028 || code == 0x2029 || steers_direction;
}

struct Range {
  uint32_t first, last;
};

template <size_t kSize>
bool IsIn(uint32_t code, const std::array<Range, kSize>& ranges) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [code](const Range& range) { return code >= range.first && code <= range.last; });
}

int Columns(uint32_t code) {
  // Combining marks, joiners and variation selectors of the common scripts; then East Asian Width W and F, with emoji.
  static constexpr std::array<Range, 8> kZero = {{{0x300, 0x36F},
                                                  {0x483, 0x489},
                                                  {0x591, 0x5BD},
                                                  {0x610, 0x61A},
                                                  {0x64B, 0x65F},
                                                  {0x200B, 0x200F},
                                                  {0x20D0, 0x20F0},
                                                  {0xFE00, 0xFE0F}}};
  static constexpr std::array<Range, 11> kWide = {{{0x1100, 0x115F},
                                                   {0x2E80, 0x303E},
                                                   {0x3041, 0x33FF},
                                                   {0x3400, 0x4DBF},
                                                   {0x4E00, 0x9FFF},
                                                   {0xA000, 0xA4CF},
                                                   {0xAC00, 0xD7A3},
                                                   {0xF900, 0xFAFF},
                                                   {0xFF00, 0xFF60},
                                                   {0x1F300, 0x1FAFF},
                                                   {0x20000, 0x3FFFD}}};
  if (IsIn(code, kZero)) return 0;
  return IsIn(code, kWide) ? 2 : 1;
}

std::string EscapeOf(uint32_t code) {
  switch (code) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return code < 0x100 ? absl::StrFormat("\\x%02x", code) : absl::StrFormat("\\u%04x", code);
  }
}

absl::string_view Ellipsis(bool unicode) { return unicode ? "…" : "..."; }

}  // namespace

std::string HumanBytes(int64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  static constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string HumanCount(int64_t count) {
  const std::string digits = absl::StrCat(count);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    const bool after_digit = i > 0 && digits[i - 1] != '-';
    if (after_digit && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string HumanDuration(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return "unlimited";
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds < 0.0009995) return absl::StrFormat("%.0f us", seconds * 1e6);
  if (seconds < 0.99995) return absl::StrFormat("%.1f ms", seconds * 1e3);
  if (seconds < 59.995) return absl::StrFormat("%.2f s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  if (whole < 86400) return absl::StrFormat("%dh%02dm", whole / 3600, whole % 3600 / 60);
  return absl::StrFormat("%dd%02dh", whole / 86400, whole % 86400 / 3600);
}

std::string HumanRatio(double ratio) { return ratio > 0 ? absl::StrFormat("%.2fx", ratio) : "-"; }

std::string HumanAge(absl::Time time, absl::Time now) {
  if (time == absl::InfinitePast()) return "-";
  const int64_t seconds = absl::ToInt64Seconds(now - time);
  if (seconds < 1) return "now";
  if (seconds < 60) return absl::StrCat(seconds, "s ago");
  if (seconds < 3600) return absl::StrCat(seconds / 60, "m ago");
  if (seconds < 86400) return absl::StrCat(seconds / 3600, "h ago");
  if (seconds < 30 * 86400) return absl::StrCat(seconds / 86400, "d ago");
  return absl::FormatTime("%Y-%m-%d", time, absl::UTCTimeZone());
}

std::string HumanTime(absl::Time time) {
  if (time == absl::InfinitePast()) return "-";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

std::string OneLine(absl::string_view text, bool unicode) {
  std::string line;
  for (const Character& character : Characters(text)) {
    if (IsControl(character.code)) {
      line += EscapeOf(character.code);
    } else if (!unicode && character.code >= 0x80) {
      line += '?';
    } else {
      absl::StrAppend(&line, character.valid ? character.bytes : kReplacement);
    }
  }
  return line;
}

std::string Shortened(absl::string_view text) {
  constexpr size_t kMostBytes = 1000;
  return text.size() <= kMostBytes ? std::string(text) : absl::StrCat(text.substr(0, kMostBytes), "...");
}

std::string WithoutControls(absl::string_view text) {
  std::string clean;
  for (const Character& character : Characters(text)) {
    const bool keep =
        character.code == '\n' || character.code == '\t' || (character.valid && !IsControl(character.code));
    absl::StrAppend(&clean, keep ? character.bytes : kReplacement);
  }
  return clean;
}

int DisplayWidth(absl::string_view text) {
  int width = 0;
  for (const Character& character : Characters(text)) width += Columns(character.code);
  return width;
}

std::string CutEnd(absl::string_view text, int width, bool unicode) {
  if (DisplayWidth(text) <= width) return std::string(text);
  const absl::string_view ellipsis = Ellipsis(unicode);
  int left = width - DisplayWidth(ellipsis);
  if (left < 0) return "";
  std::string cut;
  for (const Character& character : Characters(text)) {
    left -= Columns(character.code);
    if (left < 0) break;
    absl::StrAppend(&cut, character.bytes);
  }
  return absl::StrCat(cut, ellipsis);
}

std::string CutStart(absl::string_view text, int width, bool unicode) {
  if (DisplayWidth(text) <= width) return std::string(text);
  const absl::string_view ellipsis = Ellipsis(unicode);
  int left = width - DisplayWidth(ellipsis);
  if (left < 0) return "";
  const std::vector<Character> characters = Characters(text);
  size_t first = characters.size();
  while (first > 0 && Columns(characters[first - 1].code) <= left) left -= Columns(characters[--first].code);
  std::string cut(ellipsis);
  for (; first < characters.size(); ++first) absl::StrAppend(&cut, characters[first].bytes);
  return cut;
}

}  // namespace quicksave::cli
