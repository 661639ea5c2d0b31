#include "server/scheduler/token_constraint.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/scheduler/testing/scheduler_environment.h"

namespace quicksave::server {
namespace {

using text::Constraint;
using text::Grammar;

std::unique_ptr<Grammar> NewGrammar(Constraint::Kind kind, const std::string& text) {
  return Grammar::Create(&SchedulerEnvironment::Tokenizer(), {kind, {text}}).value();
}

void Await(TokenConstraint& constraint) {
  // Not to wait blindly: Ready is made to be asked again and again.
  while (!constraint.Ready()) absl::SleepFor(absl::Milliseconds(1));
}

bool Allows(const TokenConstraint& constraint, int32_t id) {
  return (constraint.allowed().mask[id / 32] >> (id % 32) & 1) != 0;
}

TEST(TokenConstraintTest, TellsWhatMayFollowEachToken) {
  WorkerPool workers(1);
  TokenConstraint constraint(NewGrammar(Constraint::Kind::kRegex, "ab?"), {}, &workers);
  Await(constraint);
  ASSERT_TRUE(constraint.allowed().status.ok());
  EXPECT_TRUE(constraint.allowed().any && Allows(constraint, 'a') && !Allows(constraint, 'b'));
  EXPECT_EQ(constraint.allowed().progress, Grammar::Progress::kOpen);
  constraint.Take('a');
  Await(constraint);
  EXPECT_TRUE(constraint.allowed().any && Allows(constraint, 'b') && !Allows(constraint, 'a'));
  EXPECT_EQ(constraint.allowed().progress, Grammar::Progress::kWhole);
  constraint.Take('b');
  Await(constraint);
  EXPECT_FALSE(constraint.allowed().any);
  EXPECT_EQ(constraint.allowed().progress, Grammar::Progress::kComplete);
}

TEST(TokenConstraintTest, BeginsAfterTheTokensThatItIsGiven) {
  WorkerPool workers(1);
  TokenConstraint whole(NewGrammar(Constraint::Kind::kRegex, "ab?"), {'a', 'b'}, &workers);
  Await(whole);
  EXPECT_EQ(whole.allowed().progress, Grammar::Progress::kComplete);
  TokenConstraint other(NewGrammar(Constraint::Kind::kRegex, "ab?"), {'a', 'c'}, &workers);
  Await(other);
  EXPECT_EQ(other.allowed().status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other.allowed().status.message()), testing::HasSubstr("token 99 cannot follow"));
}

TEST(TokenConstraintTest, IsNotReadyBeforeAWorkerWasThere) {
  WorkerPool workers(1);
  absl::Notification release;
  workers.Schedule([&] { release.WaitForNotification(); });
  TokenConstraint constraint(NewGrammar(Constraint::Kind::kRegex, "a"), {}, &workers, absl::Milliseconds(1));
  // Not to wait for anything: time that passes without a worker is not the grammar's.
  absl::SleepFor(absl::Milliseconds(20));
  EXPECT_FALSE(constraint.Ready());
  release.Notify();
  Await(constraint);
  EXPECT_TRUE(constraint.allowed().status.ok());
}

TEST(TokenConstraintTest, MayEndBeforeItsWork) {
  WorkerPool workers(1);
  absl::Notification release;
  workers.Schedule([&] { release.WaitForNotification(); });
  std::make_unique<TokenConstraint>(NewGrammar(Constraint::Kind::kRegex, "a"), std::vector<int32_t>(), &workers)
      .reset();
  release.Notify();
}

TEST(TokenConstraintTest, GivesUpAGrammarThatIsTooSlow) {
  WorkerPool workers(1);
  // Rules that may all be empty: the first mask takes seconds.
  std::string lark = "start: a0\n";
  for (int i = 0; i < 12'000; ++i) absl::StrAppend(&lark, "a", i, ":(a", i + 1, ")*\n");
  absl::StrAppend(&lark, "a12000: \"x\"\n");
  TokenConstraint constraint(NewGrammar(Constraint::Kind::kLark, lark), {}, &workers, absl::Milliseconds(4));
  Await(constraint);
  EXPECT_EQ(constraint.allowed().status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(constraint.allowed().status.message()), testing::HasSubstr("took longer than 20ms"));
}

}  // namespace
}  // namespace quicksave::server
