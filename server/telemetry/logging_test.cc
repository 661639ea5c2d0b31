#include "server/telemetry/logging.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "spdlog/spdlog.h"

namespace quicksave::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What one call writes to stderr.
template <class Action>
std::string Logged(const LogOptions& options, Action action) {
  testing::internal::CaptureStderr();
  SetUpLogging(options);
  action();
  return testing::internal::GetCapturedStderr();
}

TEST(LoggingTest, JsonLinesCarryFields) {
  const std::string line = Logged({.json = true}, [] {
    LogEvent(spdlog::level::info, "call", {{"method", "Snapshot"}, {"ms", 12.5}, {"count", int64_t{3}}});
  });
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["message"], "call");
  EXPECT_EQ(json["level"], "info");
  EXPECT_EQ(json["method"], "Snapshot");
  EXPECT_EQ(json["ms"], 12.5);
  EXPECT_EQ(json["count"], 3);
  EXPECT_EQ(json["time"].get<std::string>().size(), std::string("2024-01-01T00:00:00.000000Z").size());
}

TEST(LoggingTest, JsonLinesAreValidWhateverTheyHold) {
  const std::string line = Logged({.json = true}, [] {
    LogEvent(spdlog::level::err, "quote \" backslash \\ newline \n tab \t",
             {{"bytes", std::string("\xff\xfe\x01 caf\xc3\xa9")}});
  });
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["message"], "quote \" backslash \\ newline \n tab \t");
  EXPECT_EQ(json["level"], "error");
  EXPECT_THAT(json["bytes"].get<std::string>(), HasSubstr("café"));
}

TEST(LoggingTest, TextLinesCarryFieldsOnOneLine) {
  const std::string line = Logged({}, [] {
    LogEvent(spdlog::level::warn, "call", {{"method", "Restore"}, {"error", "two words\nand \"more\""}, {"ms", 1.5}});
  });
  EXPECT_THAT(line, HasSubstr("warning call method=Restore error=\"two words and \\\"more\\\"\" ms=1.5\n"));
  EXPECT_EQ(line.find('\n'), line.size() - 1);
}

TEST(LoggingTest, FieldsDoNotLeakIntoTheNextLine) {
  const std::string lines = Logged({}, [] {
    LogEvent(spdlog::level::info, "first", {{"a", int64_t{1}}});
    spdlog::info("second");
  });
  EXPECT_THAT(lines, HasSubstr("first a=1\n"));
  EXPECT_THAT(lines, HasSubstr("second\n"));
}

TEST(LoggingTest, LeavesOutWhatIsBelowTheLevel) {
  const std::string lines = Logged({.level = "warn"}, [] {
    LogEvent(spdlog::level::info, "quiet", {});
    LogEvent(spdlog::level::warn, "loud", {});
  });
  EXPECT_THAT(lines, HasSubstr("loud"));
  EXPECT_THAT(lines, Not(HasSubstr("quiet")));
}

}  // namespace
}  // namespace quicksave::server
