// Maps between latents: the parts against what they must give, and the whole with two random models.

#include "server/sidecar/alignment/alignment.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <sstream>

#include "compressor/latent/latent_transform.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/engine/testing/recorded_family.h"
#include "server/sidecar/alignment/alignment_program.h"
#include "server/sidecar/alignment/linear_map.h"
#include "server/sidecar/alignment/token_pairs.h"
#include "server/sidecar/calibration.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/text_blocks.h"

namespace quicksave::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<float> Normal(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

TEST(TokenPairsTest, OnlyTokensThatEndAtTheSameByteArePaired) {
  EXPECT_THAT(PairTokens({kNoEnd, 2, 5, 9}, {kNoEnd, 1, 2, kNoEnd, 7, 9}),
              ElementsAre(TokenPair{1, 2}, TokenPair{3, 5}));
  EXPECT_TRUE(PairTokens({kNoEnd, kNoEnd}, {3}).empty());
  EXPECT_TRUE(PairTokens({4}, {1, 2}).empty());
}

TEST(TokenPairsTest, TokensWithinACharacterHaveNoEnd) {
  const engine::RecordedFamily model("llama2");
  const auto tokenizer = text::Tokenizer::Load(model.dir());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // Bytes are tokens of this one; 298 is a control token.
  const std::string text = "a\xc3\xa9z";
  const auto bytes = (*tokenizer)->Encode(text, /*add_special_tokens=*/false, /*parse_special=*/false);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  std::vector<int32_t> ids = *bytes;
  ASSERT_EQ(ids.size(), 4u);
  ids.insert(ids.begin(), 298);
  EXPECT_THAT(*TokenEnds(**tokenizer, text, ids), ElementsAre(kNoEnd, 1, kNoEnd, 3, 4));
  // From where the tokens are those of another text.
  EXPECT_THAT(*TokenEnds(**tokenizer, "ab", {'a', 'c', 'd'}), ElementsAre(1, kNoEnd, kNoEnd));
}

TEST(LinearMapTest, FindsAMapThatIsThere) {
  constexpr size_t kRows = 400;
  const std::vector<float> x = Normal(kRows * 3, 1);
  std::vector<float> y;
  for (size_t i = 0; i < kRows; ++i) {
    const float* row = x.data() + 3 * i;
    y.push_back(2 * row[0] - row[2] + 5);
    y.push_back(row[1] + 0.5f * row[2] - 1);
  }
  const LinearMap map = LinearMap::Fit({x, 3}, {y, 2}, 1e-9);
  EXPECT_EQ(map.inputs(), 3);
  EXPECT_EQ(map.outputs(), 2);
  const std::vector<float> mapped = map.Apply({x, 3});
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(mapped[i], y[i], 1e-4);
  // Much regularisation leaves the mean alone.
  const std::vector<float> flat = LinearMap::Fit({x, 3}, {y, 2}, 1e9).Apply({x, 3});
  EXPECT_NEAR(flat[0], flat[2], 1e-4);
}

TEST(RetrievalTest, EqualRowsAreFoundAndRandomOnesByChance) {
  constexpr int kRows = 200;
  const std::vector<float> rows = Normal(kRows * 16, 2);
  const std::vector<float> others = Normal(kRows * 16, 3);
  const Retrieval equal = Retrieve({rows, 16}, {rows, 16});
  EXPECT_EQ(equal.queries, kRows);
  EXPECT_EQ(equal.top_1, 1);
  EXPECT_EQ(equal.median_rank, 1);
  EXPECT_NEAR(equal.chance, 1.0 / kRows, 1e-9);
  const Retrieval random = Retrieve({others, 16}, {rows, 16});
  EXPECT_LT(random.top_1, 0.05);
  EXPECT_GT(random.median_rank, kRows / 4);
  // Rows that are all alike are not recognised.
  EXPECT_EQ(Retrieve({rows, 16}, {std::vector<float>(kRows * 16, 1), 16}).top_1, 0);
}

TEST(RetrievalTest, LabelsLimitWhatIsComparedWith) {
  const std::vector<float> rows = Normal(12 * 4, 4);
  const std::vector<int32_t> labels = {1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4};
  const Retrieval within = RetrieveWithinLabels({rows, 4}, {rows, 4}, labels, 4);
  EXPECT_EQ(within.queries, 9) << "labels of fewer rows are left out";
  EXPECT_NEAR(within.candidates, (4 * 4 + 5 * 5) / 9.0, 1e-9);
  EXPECT_NEAR(within.chance, 2 / 9.0, 1e-9);
  EXPECT_EQ(within.chance_10, 1);
  EXPECT_EQ(within.top_1, 1);
}

// Two random models of different families that read the same texts.
class AlignmentTest : public ::testing::Test {
 protected:
  struct Side {
    explicit Side(const std::string& name) : model(name) { runner = ModelRunner::Load(model.dir(), 2, 2000).value(); }
    const engine::RecordedFamily model;
    std::unique_ptr<ModelRunner> runner;
    compressor::LatentProfile profile;
  };

  AlignmentTest() {
    std::mt19937_64 random(5);
    std::string text;
    for (int i = 0; i < 40000; ++i) text.push_back(random() % 30 == 0 ? '\n' : static_cast<char>('a' + random() % 26));
    folder_.Write("text.txt", text);
    for (Side* side : {&source_, &target_}) Calibrate(*side);
    for (int i = 0; i < 40; ++i) texts_.push_back({i < 20 ? "a" : "b", text.substr(500 * i, 100)});
  }

  void Calibrate(Side& side) {
    const auto pieces =
        CutPieces({folder_.path() + "/text.txt"}, side.runner->tokenizer(), {.tokens_per_piece = 96, .pieces = 10});
    CalibrationOptions options{.layers_per_group = 2,
                               .gradients = {.context = 48, .labels = 16, .pieces = 2, .samples = 1}};
    absl::StatusOr<Calibration> calibration = server::Calibrate(*side.runner, pieces.value(), options);
    ASSERT_TRUE(calibration.ok()) << calibration.status();
    side.profile = std::move(calibration->profiles[0]);
  }

  AlignedModel Of(Side& side) { return {side.runner.get(), &side.profile, {.components_per_group = 24, .step = 0.5f}}; }

  const engine::TestFolder folder_;
  Side source_{"llama2"};
  Side target_{"qwen2"};
  std::vector<AlignmentText> texts_;
};

TEST_F(AlignmentTest, LatentRowsAreTheTransformsWithinTheDeadZone) {
  const LatentRows latents(source_.profile, {.components_per_group = 5, .step = 0.25f});
  EXPECT_EQ(latents.width(), 5 * static_cast<int>(source_.profile.groups.size()));
  const auto ids = source_.runner->tokenizer().Encode(texts_[0].text, true, false);
  const auto run = source_.runner->Run(*ids, {0});
  ASSERT_TRUE(run.ok()) << run.status();
  const std::vector<float> rows = latents.Of(*source_.runner, *run);
  ASSERT_EQ(rows.size(), static_cast<size_t>(run->tokens() * latents.width()));
  for (int i = 0; i < kRecomputedTokens * latents.width(); ++i) EXPECT_EQ(rows[i], 0);
  const compressor::LayerGroup& group = source_.profile.groups[0];
  const auto widest = static_cast<int>(std::max_element(group.sigma.begin(), group.sigma.end()) - group.sigma.begin());
  ForEachBlock(*source_.runner, *run, 0, [&](compressor::BlockView block, const compressor::BlockContext& context) {
    const compressor::LatentTransform transform(source_.profile, block.shape, context);
    const std::vector<float> latent = transform.Analyse(group, block);
    const int first = context.first_position + context.known_tokens;
    for (int t = 0; t < transform.tokens(); ++t) {
      EXPECT_NEAR(rows[size_t(first + t) * latents.width()], latent[size_t(widest) * transform.columns() + t],
                  0.63 * 0.25);
    }
  });
}

TEST_F(AlignmentTest, AModelIsAlignedWithItselfAndTheControlIsNot) {
  Side copy("llama2");
  Calibrate(copy);
  const auto report = Align(Of(source_), Of(copy), {.texts = texts_, .ridge = 1e-3});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->paired_tokens, 0.9);
  EXPECT_GT(report->forward.variance_explained, 0.95);
  EXPECT_GT(report->backward.variance_explained, 0.95);
  EXPECT_GT(report->cka_unmapped, 0.99);
  EXPECT_GT(report->forward.among_all.top_1, 0.95);
  EXPECT_EQ(report->forward.of_pieces.top_1, 1);
  EXPECT_LT(report->control.variance_explained, 0.2);
  EXPECT_LT(report->control.among_all.top_1, 0.05);
  EXPECT_TRUE(report->reliable());
}

TEST_F(AlignmentTest, AReportIsWrittenAsTableAndAsJson) {
  const auto report = Align(Of(source_), Of(target_), {.texts = texts_});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->held_out_pieces, 8);
  EXPECT_LT(report->forward.variance_explained, 0.95);
  EXPECT_GT(report->forward.variance_explained, report->control.variance_explained);
  const auto json = nlohmann::json::parse(AlignmentToJson(*report, "command"));
  EXPECT_EQ(json["held_out_tokens"], report->held_out_tokens);
  EXPECT_EQ(json["control"]["among_all"]["queries"], report->control.among_all.queries);
  EXPECT_THAT(AlignmentToMarkdown(*report), HasSubstr("| control | "));
}

TEST_F(AlignmentTest, WhatCannotBeAlignedIsRefused) {
  const auto message = [&](const AlignedModel& from, const AlignmentOptions& options) {
    const absl::Status status = Align(from, Of(target_), options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  AlignedModel other = Of(source_);
  other.profile = &target_.profile;
  EXPECT_THAT(message(other, {.texts = texts_}), HasSubstr("of another model"));
  AlignedModel step = Of(source_);
  step.rows.step = NAN;
  EXPECT_THAT(message(step, {.texts = texts_}), HasSubstr("step of the source"));
  EXPECT_THAT(message(Of(source_), {.texts = texts_, .held_out = 1}), HasSubstr("held-out share"));
  EXPECT_THAT(message(Of(source_), {.texts = texts_, .ridge = -1}), HasSubstr("ridge"));
  step.rows.step = 1e-39F;
  EXPECT_THAT(message(step, {.texts = texts_}), HasSubstr("that has an inverse"));
  EXPECT_THAT(message(Of(source_), {.texts = {texts_[0]}}), HasSubstr("four pieces"));
  EXPECT_THAT(message(Of(source_), {.texts = {texts_[0], texts_[1], texts_[2]}, .held_out = 0.67}),
              HasSubstr("four pieces"));
  EXPECT_THAT(message(Of(source_), {.texts = {{"a", std::string(1100, 'a')}}}), HasSubstr("but a model takes 1024"));
}

TEST_F(AlignmentTest, EachFileIsInBothParts) {
  // With every fifth piece held out, files in turn would be in one part only.
  std::vector<AlignmentText> texts;
  for (size_t i = 0; i < 40; ++i) texts.push_back({std::string(1, static_cast<char>('a' + i % 5)), texts_[i].text});
  const auto report = Align(Of(source_), Of(source_), {.texts = texts});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->held_out_pieces, 10) << "two of the eight of each file";
}

TEST_F(AlignmentTest, TheProgramWritesItsReport) {
  folder_.Write("source.profile", source_.profile.Serialize());
  folder_.Write("target.profile", target_.profile.Serialize());
  AlignmentProgram program;
  program.source = {source_.model.dir(), folder_.path() + "/source.profile", 0.5F};
  program.target = {target_.model.dir(), folder_.path() + "/target.profile", 0.5F};
  program.texts = {folder_.path() + "/text.txt"};
  program.out = folder_.path() + "/report.json";
  program.command = "test";
  program.pieces = 20;
  program.piece_tokens = 100;
  std::stringstream out;
  std::stringstream log;
  const absl::StatusOr<bool> reliable = program.Run(out, log);
  ASSERT_TRUE(reliable.ok()) << reliable.status();
  EXPECT_TRUE(*reliable) << out.str();
  EXPECT_EQ(nlohmann::json::parse(ReadWholeFile(program.out).value())["command"], "test");
  EXPECT_THAT(log.str(), HasSubstr("piece 20 of 20"));
  EXPECT_EQ(program.Run(out, log).status().code(), absl::StatusCode::kAlreadyExists);
  program.force = true;
  program.piece_tokens = 1100;
  EXPECT_THAT(std::string(program.Run(out, log).status().message()), HasSubstr("1024 at most"));
}

}  // namespace
}  // namespace quicksave::server
