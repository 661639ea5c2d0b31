#include "client/cli/text_format.h"

#include <limits>

#include "client/cli/text_table.h"
#include "gtest/gtest.h"

namespace quicksave::cli {
namespace {

TEST(TextFormatTest, BytesHaveBinaryUnits) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1024), "1.0 KiB");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(HumanBytes(int64_t{5} << 30), "5.0 GiB");
  EXPECT_EQ(HumanBytes(std::numeric_limits<int64_t>::max()), "8192.0 PiB");
}

TEST(TextFormatTest, CountsHaveSeparators) {
  EXPECT_EQ(HumanCount(0), "0");
  EXPECT_EQ(HumanCount(999), "999");
  EXPECT_EQ(HumanCount(1000), "1,000");
  EXPECT_EQ(HumanCount(1234567), "1,234,567");
  EXPECT_EQ(HumanCount(-123456), "-123,456");
}

TEST(TextFormatTest, DurationsHaveThreeDigitsOrTwoUnits) {
  EXPECT_EQ(HumanDuration(absl::Microseconds(850)), "850 us");
  EXPECT_EQ(HumanDuration(absl::Microseconds(12'345)), "12.3 ms");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(1250)), "1.25 s");
  EXPECT_EQ(HumanDuration(absl::Milliseconds(59'999)), "1m00s");
  EXPECT_EQ(HumanDuration(absl::Seconds(125)), "2m05s");
  EXPECT_EQ(HumanDuration(absl::Minutes(187)), "3h07m");
  EXPECT_EQ(HumanDuration(absl::Hours(98)), "4d02h");
  EXPECT_EQ(HumanDuration(absl::InfiniteDuration()), "unlimited");
}

TEST(TextFormatTest, AgesAndTimes) {
  const absl::Time now = absl::FromUnixSeconds(1'700'000'000);
  EXPECT_EQ(HumanAge(now, now), "now");
  EXPECT_EQ(HumanAge(now - absl::Seconds(59), now), "59s ago");
  EXPECT_EQ(HumanAge(now - absl::Hours(3), now), "3h ago");
  EXPECT_EQ(HumanAge(now - absl::Hours(24 * 40), now), "2023-10-05");
  EXPECT_EQ(HumanAge(absl::InfinitePast(), now), "-");
  EXPECT_EQ(HumanTime(now), "2023-11-14T22:13:20.000Z");
  EXPECT_EQ(HumanTime(absl::InfinitePast()), "-");
}

TEST(TextFormatTest, OneLineCannotSteerATerminal) {
  EXPECT_EQ(OneLine("a\nb\tc\x1b[31m", true), "a\\nb\\tc\\x1b[31m");
  EXPECT_EQ(OneLine("\xC2\x9B!", true), "\\x9b!") << "the one-character form of an escape sequence";
  EXPECT_EQ(OneLine("a\xE2\x80\xAE!", true), "a\\u202e!") << "right-to-left override";
  EXPECT_EQ(OneLine("caf\xC3\xA9", false), "caf?");
  EXPECT_EQ(OneLine("caf\xC3\xA9 \xFF", true), "caf\xC3\xA9 \xEF\xBF\xBD");
}

TEST(TextFormatTest, StreamedTextKeepsItsLines) {
  EXPECT_EQ(WithoutControls("a\nb\tc"), "a\nb\tc");
  EXPECT_EQ(WithoutControls("\x1b]0;x\x07"), "\xEF\xBF\xBD]0;x\xEF\xBF\xBD");
}

TEST(TextFormatTest, InvalidUtf8IsOneColumnPerByte) {
  // A cut-off sequence, an overlong slash, a surrogate.
  for (const char* text : {"\xE4\xB8", "\xC0\xAF"}) EXPECT_EQ(DisplayWidth(text), 2) << text;
  EXPECT_EQ(DisplayWidth("\xED\xA0\x80"), 3);
}

TEST(TextFormatTest, WideCharactersTakeTwoColumns) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("日本"), 4);
  EXPECT_EQ(DisplayWidth("e\xCC\x81"), 1) << "a combining accent";
  EXPECT_EQ(DisplayWidth("🙂"), 2);
}

TEST(TextFormatTest, CutsFitAndSayThatTheyCut) {
  EXPECT_EQ(CutEnd("hello", 5, true), "hello");
  EXPECT_EQ(CutEnd("hello world", 6, true), "hello…");
  EXPECT_EQ(CutEnd("hello world", 6, false), "hel...");
  EXPECT_EQ(CutStart("hello world", 6, true), "…world");
  EXPECT_EQ(CutStart("日本語", 4, true), "…語") << "half a wide character does not fit";
  EXPECT_EQ(CutEnd("hello", 2, false), "");
}

TEST(TextTableTest, ColumnsAreAlignedAndTheLastIsCut) {
  std::istringstream in;
  std::ostringstream out;
  Console console{.in = in, .out = out, .err = out, .unicode = true, .width = 34};
  TextTable table({{.title = "NAME"}, {.title = "COUNT", .align = TextTable::Align::kRight}, {.title = "TEXT"}});
  table.AddRow({"a", "1", "short"});
  table.AddRow({"日本", "12,345", "something that is too long"});
  table.AddRow({"c", "2", ""});
  EXPECT_EQ(table.Render(console),
            "NAME   COUNT  TEXT\n"
            "a          1  short\n"
            "日本  12,345  something that is t…\n"
            "c          2\n");
}

TEST(TextTableTest, ColourDoesNotMoveColumns) {
  std::istringstream in;
  std::ostringstream out;
  Console console{.in = in, .out = out, .err = out, .out_color = true};
  TextTable table({{.title = "A", .style = Style::kYellow}, {.title = "B"}});
  table.AddRow({"x", "y"});
  EXPECT_EQ(table.Render(console), "\x1b[2mA\x1b[0m  \x1b[2mB\x1b[0m\n\x1b[33mx\x1b[0m  y\n");
  EXPECT_EQ(RenderFields({{"key", "value"}}, console), "\x1b[2mkey\x1b[0m  value\n");
}

}  // namespace
}  // namespace quicksave::cli
