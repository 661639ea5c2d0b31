#include "server/sidecar/calibration_notes.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(CalibrationNotesTest, TextsComeBackFromTheirNote) {
  const engine::TestFolder folder;
  folder.Write("caf\xc3\xa9 one.txt", "text");
  folder.Write("empty.txt", "");
  const TextDigest a = DigestOfText(folder.path() + "/caf\xc3\xa9 one.txt").value();
  const TextDigest b = DigestOfText(folder.path() + "/empty.txt").value();
  EXPECT_EQ(a.name, "caf\?\? one.txt");
  EXPECT_EQ(a.digest, compressor::ComputeDigest("text"));
  EXPECT_THAT(TextsOfNote(NoteOfTexts({a, b})), ElementsAre(a, b));
  EXPECT_THAT(TextsOfNote("nonsense\n\n" + NoteOfTexts({b}) + std::string(40, 'x')), ElementsAre(b));
  EXPECT_EQ(DigestOfText(folder.path() + "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(CalibrationNotesTest, ATextIsKnownUnderAnyName) {
  const TextDigest used{"train.txt", compressor::ComputeDigest("text")};
  EXPECT_TRUE(CheckNotCalibratedOn({{"train.txt", compressor::ComputeDigest("other")}}, {used}).ok());
  const absl::Status status = CheckNotCalibratedOn({{"renamed.txt", used.digest}}, {used});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("renamed.txt was calibrated on (as train.txt)"));
}

}  // namespace
}  // namespace quicksave::server
