#include "server/sidecar/program_text.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/sidecar/calibration_notes.h"

namespace quicksave::server {
namespace {

using ::testing::MatchesRegex;

TEST(ProgramTextTest, TheCommandIsPrintable) {
  const char* const argv[] = {"quicksave-eval", "--text", "a b=caf\xc3\xa9", ""};
  EXPECT_EQ(CommandText(4, argv), "quicksave-eval --text 'a b=caf\?\?' ''");
}

TEST(ProgramTextTest, TheMachineHasAName) {
  const std::string machine = MachineText();
  EXPECT_THAT(machine, MatchesRegex("[0-9]+ core\\(s\\) of .+"));
  EXPECT_EQ(PrintableAscii(machine), machine);
}

TEST(ProgramTextTest, ProgressIsALineWithItsTime) {
  std::stringstream stream;
  const auto report = ProgressLines(stream);
  report("one");
  report("two");
  EXPECT_THAT(stream.str(), MatchesRegex(" *[0-9]+ s  one\n *[0-9]+ s  two\n"));
}

}  // namespace
}  // namespace quicksave::server
