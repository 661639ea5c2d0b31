// From texts to a profile, with a random model.

#include "server/sidecar/training/training_program.h"

#include <filesystem>
#include <sstream>

#include "compressor/learned/profile_codecs.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/engine/testing/tiny_model.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/training/bridge_program.h"

namespace quicksave::server {
namespace {

using ::testing::HasSubstr;

class TrainingProgramTest : public ::testing::Test {
 protected:
  TrainingProgramTest() {
    std::string text;
    for (int i = 0; i < 900; ++i) text += "the " + std::to_string(i * 7919 % 1000) + "th lamp ";
    folder_.Write("a.txt", text);
  }

  std::string File(const std::string& name) const { return folder_.path() + "/" + name; }

  TrainingProgram Program() const {
    TrainingProgram program{.model = model_.dir(),
                            .texts = {File("a.txt")},
                            .out = File("out.safetensors"),
                            .layers_per_group = 2,
                            .tokens = 2400,
                            .piece_tokens = 200,
                            .threads = 1};
    program.options.shape = {.hidden = 16};
    program.options.epochs = 2;
    program.options.batch_tokens = 124;
    return program;
  }

  const engine::TinyModel model_{{.layers = 4,
                                  .hidden_size = 32,
                                  .intermediate_size = 64,
                                  .query_heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 32,
                                  .tokenizer = true}};
  const engine::TestFolder folder_;
};

TEST_F(TrainingProgramTest, WritesAProfileThatCodecsTakeAndAReportThatComparesIt) {
  TrainingProgram program = Program();
  program.report = File("report.json");
  program.principal_out = File("principal.safetensors");
  std::ostringstream log;
  ASSERT_TRUE(program.Run(log).ok()) << log.str();
  const auto learned = compressor::ParseProfile(ReadWholeFile(program.out).value());
  ASSERT_TRUE(learned.ok()) << learned.status();
  EXPECT_EQ(learned->latent->name(), "learned");
  EXPECT_EQ(learned->residual, nullptr);
  EXPECT_LE(learned->profile->points.size(), 3u) << "only what lies between measured points";
  const auto principal = compressor::ParseProfile(ReadWholeFile(program.principal_out).value());
  ASSERT_TRUE(principal.ok()) << principal.status();
  EXPECT_EQ(principal->latent->name(), "latent");
  const auto report = nlohmann::json::parse(ReadWholeFile(program.report).value());
  ASSERT_EQ(report["codecs"].size(), 2u);
  EXPECT_EQ(report["codecs"][0]["codec"], "learned grouped");
  EXPECT_EQ(report["codecs"][0]["points"].size(), 6u);
  EXPECT_EQ(report["codecs"][0]["distances_at_equal_ratio"].size(), 6u) << "K and V of layers 1 to 3";
  EXPECT_FALSE(report["history"].empty());
}

TEST_F(TrainingProgramTest, AStoppedRunGoesOnAndGivesTheSameBytes) {
  TrainingProgram program = Program();
  program.principal = false;
  std::ostringstream log;
  ASSERT_TRUE(program.Run(log).ok()) << log.str();
  const std::string whole = ReadWholeFile(program.out).value();
  program.work = File("work");
  program.force = true;
  absl::Status status = absl::CancelledError();
  int runs = 0;
  for (; absl::IsCancelled(status) && runs < 20; ++runs) {
    int asked = 0;
    program.stopped = [&asked] { return ++asked > 12; };
    status = program.Run(log);
  }
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GT(runs, 1);
  EXPECT_EQ(ReadWholeFile(program.out).value(), whole);
  program.options.learning_rate *= 2;
  EXPECT_EQ(program.Run(log).code(), absl::StatusCode::kFailedPrecondition) << "another training's folder";
}

TEST_F(TrainingProgramTest, WhatCannotBeDoneIsSaidBeforeAnyWork) {
  std::ostringstream log;
  TrainingProgram program = Program();
  folder_.Write("out.safetensors", "here already");
  EXPECT_EQ(program.Run(log).code(), absl::StatusCode::kAlreadyExists);
  program = Program();
  program.force = true;
  program.split = 3;
  EXPECT_THAT(std::string(program.Run(log).message()), HasSubstr("0 to 2, not 3"));
  program = Program();
  program.force = true;
  program.options.shape.architecture = compressor::Architecture::kUnified;
  program.options.shape.hidden = 250;
  program.options.shape.heads = 4;
  EXPECT_THAT(std::string(program.Run(log).message()), HasSubstr("4 heads of attention do not divide a width of 250"));
  program = Program();
  program.force = true;
  program.front = File("a.txt");
  EXPECT_EQ(program.Run(log).code(), absl::StatusCode::kDataLoss);
}

TEST_F(TrainingProgramTest, BridgesAreMeasuredAndUsed) {
  BridgeProgram program{.model = model_.dir(),
                        .texts = {File("a.txt")},
                        .report = File("bridges.json"),
                        .taps = {2, 4, 5},
                        .ranks = {4, 32},
                        .seeds = 1,
                        .tokens = 1200,
                        .piece_tokens = 100,
                        .used_pieces = 1,
                        .used_tokens = 60,
                        .threads = 1};
  program.options.epochs = 1;
  std::ostringstream log;
  ASSERT_TRUE(program.Run(log).ok()) << log.str();
  const auto report = nlohmann::json::parse(ReadWholeFile(program.report).value());
  ASSERT_EQ(report["bridges"].size(), 3u * 2 * 4);
  for (const auto& row : report["bridges"]) {
    // All 32 directions of a state of 32 numbers: nothing is lost, and the model notices nothing.
    if (row["rank"] != 32 || row["method"] != "principal components") continue;
    EXPECT_LT(row["relative_mse"], 1e-8) << row;
    EXPECT_LT(row["mean_kl"], 1e-6) << row;
  }
  program.force = true;
  program.taps = {6};
  EXPECT_EQ(program.Run(log).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace quicksave::server
