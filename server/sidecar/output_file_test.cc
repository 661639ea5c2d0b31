#include "server/sidecar/output_file.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::server {
namespace {

using ::testing::HasSubstr;

class OutputFileTest : public ::testing::Test {
 protected:
  int FilesInFolder() const {
    return static_cast<int>(std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }
  const engine::TestFolder folder_;
  const std::string path_ = folder_.path() + "/out";
};

TEST_F(OutputFileTest, ReplacesAndLeavesNothingBeside) {
  ASSERT_TRUE(WriteFileAtomically(path_, "one").ok());
  ASSERT_TRUE(WriteFileAtomically(path_, std::string("t\0o", 3)).ok());
  EXPECT_EQ(ReadWholeFile(path_).value(), std::string("t\0o", 3));
  EXPECT_EQ(FilesInFolder(), 1);
}

TEST_F(OutputFileTest, AWriteThatFailsLeavesTheOldFile) {
  ASSERT_TRUE(WriteFileAtomically(path_, "one").ok());
  const absl::Status status = WriteFileAtomically(path_, [](std::ostream& stream) {
    stream << "half";
    stream.setstate(std::ios::badbit);
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_EQ(ReadWholeFile(path_).value(), "one");
  EXPECT_EQ(FilesInFolder(), 1);
  EXPECT_EQ(WriteFileAtomically(folder_.path() + "/none/out", "x").code(), absl::StatusCode::kUnavailable);
}

TEST_F(OutputFileTest, IsCheckedBeforeTheWork) {
  EXPECT_TRUE(CheckOutputFile(path_, false).ok());
  ASSERT_TRUE(WriteFileAtomically(path_, "one").ok());
  EXPECT_EQ(CheckOutputFile(path_, false).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(CheckOutputFile(path_, true).ok());
  EXPECT_EQ(CheckOutputFile(folder_.path() + "/none/out", true).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(CheckOutputFile(folder_.path(), true).code(), absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace quicksave::server
