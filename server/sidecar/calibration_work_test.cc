#include "server/sidecar/calibration_work.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::server {
namespace {

using ::testing::HasSubstr;

class CalibrationWorkTest : public ::testing::Test {
 protected:
  const engine::TestFolder folder_;
  const std::string work_ = folder_.path() + "/inner/unfinished";
};

TEST_F(CalibrationWorkTest, PartsAreThereForTheSameWork) {
  {
    const CalibrationWork work = CalibrationWork::Open(work_, {{"seed", "1"}}).value();
    EXPECT_FALSE(work.Has("part"));
    EXPECT_EQ(work.Read("part").status().code(), absl::StatusCode::kNotFound);
    ASSERT_TRUE(work.Write("part", "one").ok());
    ASSERT_TRUE(work.Write("part", [](std::ostream& stream) { stream << "two"; }).ok());
  }
  const CalibrationWork work = CalibrationWork::Open(work_, {{"seed", "1"}}).value();
  EXPECT_TRUE(work.Has("part"));
  EXPECT_EQ(work.Read("part").value(), "two");
}

TEST_F(CalibrationWorkTest, OtherWorkIsRefused) {
  ASSERT_TRUE(CalibrationWork::Open(work_, {{"seed", "1"}, {"split", "6"}}).ok());
  const absl::Status status = CalibrationWork::Open(work_, {{"seed", "2"}, {"split", "6"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("seed was 1 and is 2 now"));
  EXPECT_THAT(std::string(CalibrationWork::Open(work_, {{"new", "x"}}).status().message()),
              HasSubstr("new was nothing"));
}

TEST_F(CalibrationWorkTest, AFolderOfOtherThingsIsLeftAlone) {
  folder_.Write("precious.txt", "mine");
  EXPECT_THAT(std::string(CalibrationWork::Open(folder_.path(), {}).status().message()), HasSubstr("not empty"));
  EXPECT_EQ(CalibrationWork::Open(folder_.path() + "/precious.txt", {}).status().code(),
            absl::StatusCode::kUnavailable);
  ASSERT_TRUE(CalibrationWork::Open(work_, {}).ok());
  folder_.Write("inner/unfinished/options.json", "[");
  EXPECT_THAT(std::string(CalibrationWork::Open(work_, {}).status().message()), HasSubstr("damaged"));
}

TEST_F(CalibrationWorkTest, WithoutAFolderNothingIsKept) {
  const CalibrationWork work;
  EXPECT_TRUE(work.Write("part", "one").ok());
  EXPECT_FALSE(work.Has("part"));
  EXPECT_EQ(work.Read("part").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace quicksave::server
