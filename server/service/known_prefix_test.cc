#include "server/service/known_prefix.h"

#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

constexpr absl::Duration kRow = absl::Milliseconds(1);

bool IsWorth(int tokens, int shared, absl::Duration estimate, absl::Duration row = kRow) {
  return IsWorthRestoring({.tokens = tokens, .estimate = estimate}, shared, row);
}

TEST(IsWorthRestoringTest, TheTimeToComputeTheTokensDecides) {
  EXPECT_TRUE(IsWorth(1000, 0, absl::Milliseconds(50)));
  EXPECT_TRUE(IsWorth(1000, 0, absl::Milliseconds(900)));
  EXPECT_FALSE(IsWorth(1000, 0, absl::Milliseconds(1000))) << "as slow, and a proof besides";
  EXPECT_FALSE(IsWorth(1000, 0, absl::Milliseconds(50), absl::Microseconds(20))) << "a faster machine";
}

TEST(IsWorthRestoringTest, WhatIsSharedNeedsNoRestore) {
  EXPECT_FALSE(IsWorth(500, 500, absl::ZeroDuration()));
  EXPECT_FALSE(IsWorth(500, 600, absl::ZeroDuration()));
  EXPECT_FALSE(IsWorth(500, 490, absl::ZeroDuration())) << "less than the proof costs";
  EXPECT_TRUE(IsWorth(500, 400, absl::Milliseconds(20)));
  EXPECT_FALSE(IsWorth(500, 460, absl::Milliseconds(25))) << "restoring takes all tokens, computing the last 40";
}

TEST(IsWorthRestoringTest, BeforePrefillWasTimedRestoringIsTheBetterGuess) {
  EXPECT_TRUE(IsWorth(500, 0, absl::Milliseconds(50), absl::InfiniteDuration()));
  EXPECT_FALSE(IsWorth(500, 500, absl::Milliseconds(50), absl::InfiniteDuration()));
}

}  // namespace
}  // namespace quicksave::server
