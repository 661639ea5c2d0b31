#include "server/sidecar/calibration_program.h"

#include <filesystem>
#include <random>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"
#include "server/sidecar/output_file.h"

namespace quicksave::server {
namespace {

using ::testing::HasSubstr;

class CalibrationProgramTest : public ::testing::Test {
 protected:
  CalibrationProgramTest() {
    std::mt19937_64 random(1);
    std::string text;
    for (int i = 0; i < 8000; ++i) text.push_back(random() % 30 == 0 ? '\n' : static_cast<char>('a' + random() % 26));
    folder_.Write("train.txt", text);
  }

  CalibrationProgram Program() const {
    CalibrationProgram program;
    program.model = model_.dir();
    program.texts = {folder_.path() + "/train.txt"};
    program.out = folder_.path() + "/profile.safetensors";
    program.command = "test";
    program.tokens = 640;
    program.piece_tokens = 64;
    program.options.splits = {1};
    program.options.layers_per_group = 2;
    program.options.gradients.pieces = 2;
    return program;
  }

  const engine::TestFolder folder_;
  const engine::TinyModel model_{{.layers = 3,
                                  .hidden_size = 32,
                                  .intermediate_size = 64,
                                  .query_heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 32,
                                  .context_length = 256,
                                  .tokenizer = true}};
  std::stringstream log_;
};

TEST_F(CalibrationProgramTest, WritesProfileAndReportAndNeverOverThem) {
  CalibrationProgram program = Program();
  program.report = folder_.path() + "/report.json";
  const absl::Status status = program.Run(log_);
  ASSERT_TRUE(status.ok()) << status;
  const std::string bytes = ReadWholeFile(program.out).value();
  const auto profile = compressor::LatentProfile::Parse(bytes);
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(TextsOfNote(profile->notes.at(kTextsNote))[0], DigestOfText(program.texts[0]).value());
  const auto report = metrics::ReportFromJson(ReadWholeFile(program.report).value());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->command, "test");
  EXPECT_EQ(report->points.size(), 5u);
  EXPECT_EQ(report->points[0].sidecar_bytes, static_cast<int64_t>(bytes.size()));
  EXPECT_THAT(log_.str(), HasSubstr("wrote " + program.out));

  const absl::Status refused = program.Run(log_);
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--force"));
  program.force = true;
  ASSERT_TRUE(program.Run(log_).ok());
  EXPECT_EQ(ReadWholeFile(program.out).value(), bytes);
}

TEST_F(CalibrationProgramTest, NamesAFileForEachSplit) {
  CalibrationProgram program = Program();
  EXPECT_EQ(program.FileOf(1), program.out);
  program.options.splits = {0, 6};
  program.out = "dir.d/profile.safetensors";
  EXPECT_EQ(program.FileOf(6), "dir.d/profile-6.safetensors");
  program.out = "dir.d/profile";
  EXPECT_EQ(program.FileOf(0), "dir.d/profile-0");
}

TEST_F(CalibrationProgramTest, RefusesBeforeTheWork) {
  CalibrationProgram program = Program();
  program.piece_tokens = 512;
  EXPECT_THAT(std::string(program.Run(log_).message()), HasSubstr("the model takes 256"));
  program = Program();
  program.report = program.out;
  EXPECT_THAT(std::string(program.Run(log_).message()), HasSubstr("written twice"));
  program = Program();
  program.out = folder_.path() + "/none/profile";
  EXPECT_EQ(program.Run(log_).code(), absl::StatusCode::kNotFound);
  program = Program();
  program.texts.push_back(folder_.path() + "/none.txt");
  EXPECT_EQ(program.Run(log_).code(), absl::StatusCode::kNotFound);
  program = Program();
  program.tokens = 64;
  EXPECT_THAT(std::string(program.Run(log_).message()), HasSubstr("at least 3 pieces"));
  EXPECT_FALSE(std::filesystem::exists(program.out));
}

}  // namespace
}  // namespace quicksave::server
