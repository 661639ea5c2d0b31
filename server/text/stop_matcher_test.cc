#include "server/text/stop_matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace quicksave::text {
namespace {

using Strings = std::vector<std::string>;

StopMatcher Matcher(const Strings& stop_strings) { return *StopMatcher::Create(stop_strings); }

TEST(StopMatcherTest, LimitsAreChecked) {
  EXPECT_TRUE(StopMatcher::Create(Strings(16, std::string(256, 'x'))).ok());
  const auto code = [](const Strings& stops) { return StopMatcher::Create(stops).status().code(); };
  EXPECT_EQ(code(Strings(17, "x")), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({std::string(257, 'x')}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({"ok", ""}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({"\xC3"}), absl::StatusCode::kInvalidArgument);
}

TEST(StopMatcherTest, WithoutStopStringsNothingIsHeld) {
  StopMatcher matcher = Matcher({});
  EXPECT_EQ(matcher.Push("anything").text, "anything");
  EXPECT_EQ(matcher.held_text(), "");
}

TEST(StopMatcherTest, HoldsTheLongestPossibleBeginning) {
  StopMatcher matcher = Matcher({"aab"});
  EXPECT_EQ(matcher.Push("xaa").text, "x");
  EXPECT_EQ(matcher.Push("a").text, "a");
  EXPECT_EQ(matcher.held_text(), "aa");
  const StopMatcher::Result result = matcher.Push("bc");
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.stop, 0u);
}

TEST(StopMatcherTest, GivesOutHeldTextThatDidNotBecomeAStop) {
  StopMatcher matcher = Matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("Hi\n").text, "Hi");
  EXPECT_EQ(matcher.Push("\nUse").text, "");
  EXPECT_EQ(matcher.Push("d").text, "\n\nUsed");
}

TEST(StopMatcherTest, TheStopCompletedFirstWinsAndThenTheLongest) {
  StopMatcher first = Matcher({"abcd", "bc"});
  const StopMatcher::Result early = first.Push("xabcd");
  EXPECT_EQ(early.text, "xa");
  EXPECT_EQ(early.stop, 1u);
  StopMatcher longest = Matcher({"bc", "abc"});
  const StopMatcher::Result tie = longest.Push("xabc");
  EXPECT_EQ(tie.text, "x");
  EXPECT_EQ(tie.stop, 1u);
}

TEST(StopMatcherTest, TextAfterAStopIsDropped) {
  StopMatcher matcher = Matcher({"."});
  EXPECT_EQ(matcher.Push("one. two").text, "one");
  const StopMatcher::Result later = matcher.Push("three");
  EXPECT_EQ(later.text, "");
  EXPECT_EQ(later.stop, 0u);
  EXPECT_EQ(matcher.held_text(), "");
}

TEST(StopMatcherTest, RestoreWithOtherStopStringsGivesOutWhatNeedNotBeHeld) {
  StopMatcher before = Matcher({"STOP"});
  EXPECT_EQ(before.Push("a ST").text, "a ");
  StopMatcher same = Matcher({"STOP"});
  EXPECT_EQ(same.Restore(before.held_text()).text, "");
  EXPECT_EQ(same.Push("OP").stop, 0u);
  StopMatcher other = Matcher({"TX"});
  EXPECT_EQ(other.Restore(before.held_text()).text, "S");
  StopMatcher contained = Matcher({"S"});
  EXPECT_EQ(contained.Restore(before.held_text()).stop, 0u);
}

// The definition, byte by byte: the text before the stop, and its index.
std::pair<std::string, std::optional<size_t>> SlowMatch(const std::string& text, const Strings& stops) {
  for (size_t end = 0; end <= text.size(); ++end) {
    std::optional<size_t> best;
    for (size_t i = 0; i < stops.size(); ++i) {
      const bool ends_here =
          end >= stops[i].size() && text.compare(end - stops[i].size(), stops[i].size(), stops[i]) == 0;
      if (ends_here && (!best || stops[i].size() > stops[*best].size())) best = i;
    }
    if (best) return {text.substr(0, end - stops[*best].size()), best};
  }
  return {text, std::nullopt};
}

std::string RandomText(size_t max_letters, std::mt19937& random) {
  const std::string letters[] = {"a", "b", "c", "é", "🙂"};
  std::string text;
  for (size_t n = random() % (max_letters + 1); n > 0; --n) text += letters[random() % std::size(letters)];
  return text;
}

TEST(StopMatcherTest, AnyCutGivesTheAnswerOfTheWholeText) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20000; ++round) {
    Strings stops;
    for (size_t n = random() % 4; n > 0; --n) stops.push_back(absl::StrCat("a", RandomText(4, random)));
    if (random() % 4 == 0) stops.push_back("é🙂");
    std::string text, out, held;
    std::optional<size_t> stop;
    for (int piece = 0; piece < 8 && !stop; ++piece) {
      const std::string next = RandomText(3, random);
      text += next;
      StopMatcher matcher = Matcher(stops);
      ASSERT_EQ(matcher.Restore(held).text, "");
      StopMatcher::Result result = matcher.Push(next);
      out += result.text;
      stop = result.stop;
      held = matcher.held_text();
      const auto [slow_text, slow_stop] = SlowMatch(text, stops);
      ASSERT_EQ(stop, slow_stop) << text;
      ASSERT_EQ(out + held, slow_text) << text;
    }
  }
}

}  // namespace
}  // namespace quicksave::text
