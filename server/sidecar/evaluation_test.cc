// The protocol, end to end with a random model.

#include "server/sidecar/evaluation.h"

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <sstream>

#include "compressor/exact_profile.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"
#include "server/sidecar/calibration.h"
#include "server/sidecar/evaluation_program.h"
#include "server/sidecar/metrics/rate_distortion_table.h"
#include "server/sidecar/output_file.h"
#include "server/sidecar/text_blocks.h"

namespace quicksave::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

class EvaluationTest : public ::testing::Test {
 protected:
  EvaluationTest() {
    folder_.Write("prose.txt", RandomText(1));
    folder_.Write("code.txt", RandomText(2));
    folder_.Write("train.txt", RandomText(3));
    folder_.Write("short.txt", "too short");
    auto runner = ModelRunner::Load(model_.dir(), 2, 1000);
    EXPECT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  static std::string RandomText(uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string text;
    for (int i = 0; i < 6000; ++i) text.push_back(random() % 30 == 0 ? '\n' : static_cast<char>(' ' + random() % 90));
    return text;
  }

  std::string File(const std::string& name) const { return folder_.path() + "/" + name; }

  // Writes a profile that was calibrated on train.txt.
  std::string Profile(int split) {
    CalibrationOptions options{.splits = {split},
                               .layers_per_group = 2,
                               .gradients = {.context = 48, .labels = 16, .pieces = 3, .samples = 1},
                               .texts = {DigestOfText(File("train.txt")).value()}};
    const auto pieces = CutPieces({File("train.txt")}, runner_->tokenizer(), {.tokens_per_piece = 96, .pieces = 8});
    absl::StatusOr<Calibration> calibration = Calibrate(*runner_, pieces.value(), options);
    EXPECT_TRUE(calibration.ok()) << calibration.status();
    // Steps that this test knows.
    calibration->profiles[0].points = {{.name = "default", .step = 0.5f}};
    folder_.Write("profile.safetensors", calibration->profiles[0].Serialize());
    return File("profile.safetensors");
  }

  EvaluationOptions Options() const {
    return {.texts = {{"prose", {File("prose.txt")}}, {"code", {File("code.txt")}}},
            .contexts = {64, 40},
            .continuation = 16,
            .pieces = 2};
  }

  const engine::TestFolder folder_;
  const engine::TinyModel model_{{.layers = 3,
                                  .hidden_size = 32,
                                  .intermediate_size = 64,
                                  .query_heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 32,
                                  .tokenizer = true}};
  std::unique_ptr<ModelRunner> runner_;
};

TEST_F(EvaluationTest, MeasuresAllCodecsOnAllKindsAndLengths) {
  EvaluationOptions options = Options();
  options.residual = true;
  int reported = 0;
  options.progress = [&](const std::string&) { ++reported; };
  Evaluation evaluation(*runner_, options);
  ASSERT_TRUE(evaluation.AddExact().ok());
  const absl::Status added = evaluation.AddLatent(Profile(0));
  ASSERT_TRUE(added.ok()) << added;
  const absl::StatusOr<metrics::RateDistortionReport> report = evaluation.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(reported, 10);
  EXPECT_EQ(metrics::PanelsOf(*report).size(), 4u);
  EXPECT_THAT(metrics::CodecsOf(*report), ElementsAre("exact", "latent n=0", "latent n=0 + residual"));
  ASSERT_EQ(report->points.size(), 12u);
  for (size_t i = 0; i < report->points.size(); i += 3) {
    const metrics::RateDistortionPoint& exact = report->points[i];
    const metrics::RateDistortionPoint& latent = report->points[i + 1];
    const metrics::RateDistortionPoint& layered = report->points[i + 2];
    EXPECT_EQ(exact.mean_kl, 0);
    EXPECT_EQ(exact.perplexity_ratio, 1);
    EXPECT_EQ(exact.sidecar_bytes, 0);
    EXPECT_GT(latent.mean_kl, 0);
    EXPECT_GE(latent.p99_kl, latent.mean_kl);
    EXPECT_EQ(latent.step, 0.5);
    EXPECT_GT(latent.sidecar_bytes, 1000);
    EXPECT_EQ(layered.mean_kl, 0);
    EXPECT_EQ(layered.top_1_agreement, 1);
    EXPECT_LT(layered.effective_ratio, latent.effective_ratio);
    for (const auto* point : {&exact, &latent, &layered}) {
      EXPECT_EQ(point->scored_tokens, 2 * 16);
      EXPECT_GT(point->nominal_ratio, point->effective_ratio);
      // 3 layers of K and V of 32 channels in 2 bytes.
      EXPECT_NEAR(point->bytes_per_token * point->effective_ratio, 3 * 2 * 32 * 2, 1e-6);
    }
  }
  ASSERT_EQ(report->controls.size(), 4u);
  // The engine's bf16 is near fp32, and nearer than any wrong state.
  ASSERT_TRUE(report->noise_floor_kl.has_value());
  EXPECT_GT(*report->noise_floor_kl, 0);
  for (const metrics::NegativeControl& control : report->controls) {
    EXPECT_GT(control.mean_kl, 5 * *report->noise_floor_kl) << control.name;
  }
  EXPECT_THAT(report->remarks, ::testing::Contains(HasSubstr("chunks of 37 instead of 128 tokens: 0 values")));
  const auto markdown = metrics::ReportToMarkdown(*report);
  ASSERT_TRUE(markdown.ok()) << markdown.status();
  EXPECT_EQ(markdown->find("Not to be relied on") == std::string::npos,
            metrics::CheckNegativeControls(report->controls).ok());
}

TEST_F(EvaluationTest, ASecondRunHasTheSameFigures) {
  std::vector<metrics::RateDistortionReport> reports;
  const std::string profile = Profile(1);
  for (int run = 0; run < 2; ++run) {
    EvaluationOptions options = Options();
    options.contexts = {40};
    Evaluation evaluation(*runner_, options);
    ASSERT_TRUE(evaluation.AddLatent(profile).ok());
    reports.push_back(evaluation.Run().value());
    for (metrics::RateDistortionPoint& point : reports.back().points) {
      point.encode_mb_per_s = 0;
      point.decode_mb_per_s = 0;
    }
  }
  EXPECT_EQ(reports[0], reports[1]);
}

TEST_F(EvaluationTest, RefusesTextsOfTheCalibration) {
  const std::string profile = Profile(0);
  EvaluationOptions options = Options();
  options.contexts = {40};
  options.floor_pieces = 0;
  // The same text under another name.
  folder_.Write("renamed.txt", RandomText(3));
  options.texts.push_back({"other", {File("renamed.txt")}});
  Evaluation evaluation(*runner_, options);
  ASSERT_TRUE(evaluation.AddLatent(profile).ok());
  const absl::Status refused = evaluation.Run().status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(MessageOf(refused), HasSubstr("renamed.txt was calibrated on (as train.txt)"));
  options.allow_calibration_texts = true;
  Evaluation allowed(*runner_, options);
  ASSERT_TRUE(allowed.AddLatent(profile).ok());
  const absl::StatusOr<metrics::RateDistortionReport> report = allowed.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->remarks, ::testing::Contains(HasSubstr("renamed.txt was calibrated on")));
  EXPECT_THAT(report->remarks, ::testing::Contains(HasSubstr("noise floor was not measured")));
}

TEST_F(EvaluationTest, SaysWhichTextIsTooShort) {
  EvaluationOptions options = Options();
  options.texts.push_back({"notes", {File("short.txt")}});
  Evaluation evaluation(*runner_, options);
  ASSERT_TRUE(evaluation.AddExact().ok());
  EXPECT_THAT(MessageOf(evaluation.Run().status()), HasSubstr("the kind of text 'notes': no text is long enough"));
  options = Options();
  options.texts.resize(1);
  options.pieces = 1;
  Evaluation single(*runner_, options);
  ASSERT_TRUE(single.AddExact().ok());
  EXPECT_THAT(MessageOf(single.Run().status()), HasSubstr("the negative control needs two pieces"));
}

TEST_F(EvaluationTest, SaysThatATextHasFewerPieces) {
  EvaluationOptions options = Options();
  options.contexts = {40};
  options.pieces = 1000;
  options.texts.resize(1);
  options.floor_pieces = 0;
  folder_.Write("prose.txt", RandomText(1).substr(0, 1200));
  Evaluation evaluation(*runner_, options);
  ASSERT_TRUE(evaluation.AddExact().ok());
  const auto report = evaluation.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->remarks, ::testing::Contains(HasSubstr("of 1000 pieces of 56 tokens")));
}

TEST_F(EvaluationTest, RefusesAnotherModelsProfileAndDamage) {
  const std::string file = Profile(0);
  const engine::TinyModel other({.layers = 3,
                                 .hidden_size = 32,
                                 .intermediate_size = 64,
                                 .query_heads = 2,
                                 .kv_heads = 1,
                                 .head_dim = 32,
                                 .tokenizer = true,
                                 .seed = 2});
  const auto runner = ModelRunner::Load(other.dir(), 1, 100);
  ASSERT_TRUE(runner.ok()) << runner.status();
  Evaluation evaluation(**runner, Options());
  EXPECT_THAT(MessageOf(evaluation.AddLatent(file)), HasSubstr("is for the model"));
  EXPECT_EQ(evaluation.AddLatent(File("prose.txt")).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(evaluation.AddLatent(File("none")).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(evaluation.AddExact(File("prose.txt")).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(evaluation.Run().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(EvaluationTest, AnExactProfileStandsBesideTheBuiltInTables) {
  const auto pieces = CutPieces({File("train.txt")}, runner_->tokenizer(), {.tokens_per_piece = 128, .pieces = 2});
  const auto text = runner_->Run(pieces.value()[0].tokens, {0});
  ASSERT_TRUE(text.ok()) << text.status();
  compressor::ExactProfileBuilder builder(runner_->fingerprint());
  ForEachBlock(*runner_, *text, 0, [&](compressor::BlockView block, const compressor::BlockContext&) {
    EXPECT_TRUE(builder.AddBlock(block).ok());
  });
  folder_.Write("exact.bin", builder.Build()->Serialize());
  EvaluationOptions options = Options();
  options.contexts = {64};
  options.floor_pieces = 0;
  Evaluation evaluation(*runner_, options);
  ASSERT_TRUE(evaluation.AddExact().ok());
  ASSERT_TRUE(evaluation.AddExact(File("exact.bin")).ok());
  const auto report = evaluation.Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(metrics::CodecsOf(*report), ElementsAre("exact", "exact, profile"));
  for (const metrics::RateDistortionPoint& point : report->points) EXPECT_EQ(point.mean_kl, 0);
  EXPECT_GT(report->points[1].sidecar_bytes, 0);
}

TEST_F(EvaluationTest, TheProgramWritesItsReportAndRefusesEarly) {
  EvaluationProgram program;
  program.model = model_.dir();
  program.texts = {"prose=" + File("prose.txt"), File("code.txt")};
  program.profiles = {Profile(0)};
  program.out = File("report");
  program.command = "test";
  program.options = {.contexts = {40}, .continuation = 16, .pieces = 1};
  std::stringstream out;
  std::stringstream log;
  const absl::StatusOr<bool> reliable = program.Run(out, log);
  ASSERT_TRUE(reliable.ok()) << reliable.status();
  const auto report = metrics::ReportFromJson(ReadWholeFile(File("report/rate_distortion.json")).value());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(*reliable, metrics::CheckNegativeControls(report->controls).ok());
  EXPECT_EQ(out.str(), metrics::ReportToMarkdown(*report).value());
  EXPECT_THAT(log.str(), HasSubstr("code, 40 tokens, piece 1 of 1"));
  EXPECT_EQ(report->command, "test");

  program.options.contexts = {1020};
  EXPECT_THAT(MessageOf(program.Run(out, log).status()), HasSubstr("the model's 1024 less the continuation's 16"));
  program.options.contexts = {40};
  program.out = File("prose.txt");
  EXPECT_EQ(program.Run(out, log).status().code(), absl::StatusCode::kUnavailable);
  program.out.clear();
  program.profiles = std::vector<std::string>(24, program.profiles[0]);
  EXPECT_THAT(MessageOf(program.Run(out, log).status()), HasSubstr("room for 24 curves, not 25"));
}

TEST_F(EvaluationTest, StatesThatAreEncodedAgainAndAgainDrift) {
  EvaluationOptions options{.texts = {{"prose", {File("prose.txt")}}}, .contexts = {40}, .continuation = 16};
  options.pieces = 2;
  options.steps = {0.5f};
  options.generations = {1, 4};
  options.extension = 24;
  Evaluation evaluation(*runner_, options);
  ASSERT_TRUE(evaluation.AddLatent(Profile(0)).ok());
  const auto points = evaluation.RunDrift();
  ASSERT_TRUE(points.ok()) << points.status();
  ASSERT_EQ(points->size(), 2u);
  for (const DriftPoint& point : *points) {
    EXPECT_EQ(point.tokens, 40 + 24 * point.generations);
    for (const auto* summary : {&point.append_only, &point.anew, &point.once}) {
      EXPECT_EQ(summary->kl.count, 32u);
      EXPECT_GT(summary->kl.mean, 0) << "the codec is lossy";
      EXPECT_LT(summary->kl.mean, 0.1);
    }
  }
  // Encoding what was decoded adds to the error of what was there.
  EXPECT_GT((*points)[1].anew.kl.mean, (*points)[1].append_only.kl.mean);

  Evaluation without(*runner_, options);
  ASSERT_TRUE(without.AddLatent(Profile(1)).ok());
  EXPECT_THAT(MessageOf(without.RunDrift().status()), HasSubstr("a profile of split 0"));
}

// A codec that does not write what it must.
class LazyCodec : public compressor::Codec {
 public:
  std::string_view name() const override { return "lazy"; }
  uint32_t version() const override { return 1; }
  bool lossless() const override { return false; }
  absl::StatusOr<compressor::EncodedBlock> Encode(compressor::BlockView block,
                                                  const compressor::BlockContext&) const override {
    return compressor::EncodedBlock{
        .bytes = "x", .tensors_per_section = static_cast<uint32_t>(block.shape.tensors()), .section_sizes = {1}};
  }
  absl::Status Decode(const compressor::EncodedBlockView&, uint32_t, const compressor::BlockContext&,
                      compressor::MutableBlockView out) const override {
    std::fill(out.values.begin() + 3, out.values.end(), uint16_t{0x3f80});
    return absl::OkStatus();
  }
};

TEST_F(EvaluationTest, WhatACodecDoesNotWriteIsNoticed) {
  compressor::CodecRegistry registry;
  ASSERT_TRUE(registry.Register(std::make_unique<LazyCodec>()).ok());
  const auto pieces = CutPieces({File("prose.txt")}, runner_->tokenizer(), {.tokens_per_piece = 56, .pieces = 1});
  const auto live = RunLive(*runner_, pieces.value()[0].tokens, 40, {});
  ASSERT_TRUE(live.ok()) << live.status();
  const absl::Status status = TryCodec(*runner_, *live, registry, {.codec = "lazy"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(MessageOf(status), HasSubstr("the codec 'lazy' left 3 values of a block unwritten"));
  // Pages that nobody wrote to are NaN, which no metric takes.
  const auto empty = runner_->NewSequence(live->context.sequence.tokens());
  EXPECT_EQ(CompareContinuation(*runner_, *live, *empty).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(EvaluationOptionsTest, SayWhatIsWrong) {
  const EvaluationOptions good{.texts = {{"prose", {"a"}}}};
  EXPECT_TRUE(CheckEvaluationOptions(good, 640).ok());
  const std::pair<const char*, std::function<void(EvaluationOptions&)>> cases[] = {
      {"needs a text", [](auto& o) { o.texts.clear(); }},
      {"'prose' is there twice", [](auto& o) { o.texts.push_back(o.texts[0]); }},
      {"needs a context", [](auto& o) { o.contexts.clear(); }},
      {"a context must be 16 to 512 tokens", [](auto& o) { o.contexts = {513}; }},
      {"not 15", [](auto& o) { o.contexts = {15}; }},
      {"the context 64 is there twice",
       [](auto& o) {
         o.contexts = {64, 512, 64};
       }},
      {"the continuation must be 2 to 624, not 1", [](auto& o) { o.continuation = 1; }},
      {"the continuation must be 2 to 624, not 625", [](auto& o) { o.continuation = 625; }},
      {"the pieces", [](auto& o) { o.pieces = 0; }},
      {"generations of 2 tokens must be 1 to 1, not 2",
       [](auto& o) {
         o.generations = {2};
         o.extension = 2;
         o.continuation = 126;
       }},
      {"ascend",
       [](auto& o) {
         o.contexts = {64};
         o.generations = {2, 1};
       }},
      {"the extension must be",
       [](auto& o) {
         o.generations = {1};
         o.extension = 0;
       }},
      {"noise floor", [](auto& o) { o.floor_pieces = -1; }},
      {"a step must be",
       [](auto& o) {
         o.steps = {1, std::numeric_limits<float>::quiet_NaN()};
       }},
      {"a step must be", [](auto& o) { o.steps = {std::numeric_limits<float>::infinity()}; }},
      {"a step must be a number above 0, not 0", [](auto& o) { o.steps = {0}; }},
  };
  for (const auto& [message, spoil] : cases) {
    EvaluationOptions options = good;
    spoil(options);
    const absl::Status status = CheckEvaluationOptions(options, 640);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(MessageOf(status), HasSubstr(message));
  }
}

TEST(EvaluationOptionsTest, TextsHaveKinds) {
  const auto kinds = ParseTextKinds({"prose=dir/a.txt", "dir/code.txt", "prose=b.txt", "dir/x=y.txt", "c=d=e"}).value();
  ASSERT_EQ(kinds.size(), 4u);
  EXPECT_EQ(kinds[0].kind, "prose");
  EXPECT_THAT(kinds[0].files, ElementsAre("dir/a.txt", "b.txt"));
  EXPECT_EQ(kinds[1].kind, "code");
  EXPECT_EQ(kinds[2].kind, "x=y");
  EXPECT_EQ(kinds[3].kind, "c");
  EXPECT_THAT(kinds[3].files, ElementsAre("d=e"));
  for (const char* bad : {"", "=file", "kind=", "caf\xc3\xa9=file"}) {
    EXPECT_EQ(ParseTextKinds({bad}).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace quicksave::server
