// End to end with a random model: calibrate, and what the profile does to states.

#include "server/sidecar/calibration.h"

#include <filesystem>
#include <memory>
#include <random>

#include "compressor/latent/latent_codec.h"
#include "compressor/latent/residual_codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"
#include "server/sidecar/codec_trial.h"

namespace quicksave::server {
namespace {

using ::testing::HasSubstr;

constexpr int kPieceTokens = 192;

class CalibrationTest : public ::testing::Test {
 protected:
  CalibrationTest() {
    auto runner = ModelRunner::Load(model_.dir(), 2, 8 * kPieceTokens);
    EXPECT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  // Pieces of random tokens, of two files in turn.
  static std::vector<TextPiece> Pieces(int count, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<TextPiece> pieces;
    for (int i = 0; i < count; ++i) {
      TextPiece piece{.file = i % 2 == 0 ? "even" : "odd"};
      for (int t = 0; t < kPieceTokens; ++t) piece.tokens.push_back(static_cast<int32_t>(random() % 256));
      pieces.push_back(std::move(piece));
    }
    return pieces;
  }

  static CalibrationOptions Options() {
    return {.splits = {0, 1},
            .layers_per_group = 2,
            .gradients = {.context = 96, .labels = 32, .pieces = 4, .samples = 1},
            .texts = {{"even.txt", {1, 2}}}};
  }

  Calibration CalibrateAll(const CalibrationOptions& options) {
    absl::StatusOr<Calibration> calibration = Calibrate(*runner_, Pieces(12, 3), options);
    EXPECT_TRUE(calibration.ok()) << calibration.status();
    return calibration.ok() ? *std::move(calibration) : Calibration();
  }

  static std::vector<std::string> BytesOf(const Calibration& calibration) {
    std::vector<std::string> bytes;
    for (const compressor::LatentProfile& profile : calibration.profiles) bytes.push_back(profile.Serialize());
    return bytes;
  }

  const engine::TinyModel model_{{.layers = 4,
                                  .hidden_size = 32,
                                  .intermediate_size = 64,
                                  .query_heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 32,
                                  .tokenizer = true}};
  std::unique_ptr<ModelRunner> runner_;
};

TEST_F(CalibrationTest, ProfilesParseAndSayWhatTheyAreMadeOf) {
  const Calibration calibration = CalibrateAll(Options());
  ASSERT_EQ(calibration.profiles.size(), 2u);
  for (const compressor::LatentProfile& profile : calibration.profiles) {
    const std::string bytes = profile.Serialize();
    const auto parsed = compressor::LatentProfile::Parse(bytes);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->Serialize(), bytes);
    EXPECT_EQ(parsed->notes.at("tokens"), std::to_string(12 * kPieceTokens));
    EXPECT_THAT(TextsOfNote(parsed->notes.at(kTextsNote)), ::testing::ElementsAre(TextDigest{"even.txt", {1, 2}}));
    EXPECT_EQ(parsed->model_fingerprint, runner_->fingerprint());
    ASSERT_EQ(parsed->points.size(), 3u);
    EXPECT_LE(parsed->points[0].step, parsed->points[2].step);
  }
  EXPECT_EQ(calibration.report.points.size(), 10u);
  EXPECT_EQ(calibration.report.controls.size(), 2u);
}

TEST_F(CalibrationTest, EqualSeedsGiveEqualBytesAndOthersDoNot) {
  const std::vector<std::string> first = BytesOf(CalibrateAll(Options()));
  EXPECT_EQ(BytesOf(CalibrateAll(Options())), first);
  CalibrationOptions other = Options();
  other.gradients.seed = 2;
  EXPECT_NE(BytesOf(CalibrateAll(other)), first);
}

TEST_F(CalibrationTest, AStoppedRunGoesOnAndGivesTheSameBytes) {
  const std::vector<std::string> whole = BytesOf(CalibrateAll(Options()));
  const engine::TestFolder folder;
  CalibrationOptions options = Options();
  options.work_folder = folder.path() + "/kept";
  options.save_interval = absl::ZeroDuration();
  // Each attempt gets a little further than what the one before it saved.
  int attempts = 0;
  absl::StatusOr<Calibration> calibration = absl::CancelledError("not begun");
  for (; absl::IsCancelled(calibration.status()) && attempts < 50; ++attempts) {
    int asked = 0;
    options.stopped = [&] { return ++asked > 3; };
    calibration = Calibrate(*runner_, Pieces(12, 3), options);
  }
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  EXPECT_GT(attempts, 4);
  EXPECT_EQ(BytesOf(*calibration), whole);
}

// Killed, not asked to stop: what was not saved is done again.
TEST_F(CalibrationTest, StagesThatAreLostAreDoneAgain) {
  const engine::TestFolder folder;
  CalibrationOptions options = Options();
  options.work_folder = folder.path() + "/kept";
  const std::vector<std::string> whole = BytesOf(CalibrateAll(options));
  for (const char* lost : {"split-1.curve.json", "split-0.counted", "split-1.fitted", "moments"}) {
    ASSERT_TRUE(std::filesystem::remove(options.work_folder + "/" + lost)) << lost;
    EXPECT_EQ(BytesOf(CalibrateAll(options)), whole) << lost;
  }
}

TEST_F(CalibrationTest, RefusesTheWorkOfOtherOptions) {
  const engine::TestFolder folder;
  CalibrationOptions options = Options();
  options.work_folder = folder.path() + "/kept";
  CalibrateAll(options);
  options.layers_per_group = 3;
  const absl::Status status = Calibrate(*runner_, Pieces(12, 3), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("layers_per_group was 2 and is 3 now"));
  options.layers_per_group = 2;
  EXPECT_THAT(std::string(Calibrate(*runner_, Pieces(12, 4), options).status().message()), HasSubstr("pieces_digest"));
}

TEST_F(CalibrationTest, ErrorsGrowWithTheStepAndResidualsTakeThemAway) {
  const Calibration calibration = CalibrateAll(Options());
  for (const compressor::LatentProfile& profile : calibration.profiles) {
    compressor::CodecRegistry registry;
    const auto shared = std::make_shared<const compressor::LatentProfile>(profile);
    ASSERT_TRUE(registry.Register(compressor::NewLatentCodec(shared)).ok());
    ASSERT_TRUE(registry.Register(compressor::NewResidualCodec(shared)).ok());
    const std::vector<TextPiece> texts = Pieces(1, 99);
    const auto live = RunLive(*runner_, texts[0].tokens, 160, {profile.split});
    ASSERT_TRUE(live.ok()) << live.status();
    // The two finest leave little but bf16's rounding.
    double before = 0;
    int64_t bytes_before = std::numeric_limits<int64_t>::max();
    for (const float step : {0.01f, 0.3f, 3.0f, 30.0f}) {
      const auto trial =
          TryCodec(*runner_, *live, registry,
                   {.codec = compressor::kLatentCodec, .split = profile.split, .step = step, .residual = true});
      ASSERT_TRUE(trial.ok()) << trial.status();
      const double kl = trial->divergence.Summarize()->kl.mean;
      if (step > 1) {
        EXPECT_GT(kl, before) << step;
      }
      EXPECT_LT(trial->cost.stored_bytes, bytes_before) << step;
      EXPECT_EQ(trial->layered_divergence.Summarize()->kl.max, 0) << step;
      EXPECT_GT(trial->layered_cost.stored_bytes, trial->cost.stored_bytes);
      if (step < 1) {
        EXPECT_LT(kl, 1e-4) << step;
      }
      before = kl;
      bytes_before = trial->cost.stored_bytes;
    }
  }
}

TEST_F(CalibrationTest, RefusesWhatItCannotDo) {
  CalibrationOptions options = Options();
  options.splits = {0, 3};
  EXPECT_THAT(std::string(Calibrate(*runner_, Pieces(12, 3), options).status().message()),
              HasSubstr("a split must be 0 to 2, not 3"));
  options.splits = {1, 1};
  EXPECT_THAT(std::string(Calibrate(*runner_, Pieces(12, 3), options).status().message()), HasSubstr("twice"));
  options.splits = {};
  EXPECT_FALSE(Calibrate(*runner_, Pieces(12, 3), options).ok());
  EXPECT_THAT(std::string(Calibrate(*runner_, Pieces(2, 3), Options()).status().message()),
              HasSubstr("at least 3 pieces"));
}

TEST(PieceRolesTest, NoPieceHasTwoRolesAndEachFileHasItsShare) {
  for (const int count : {3, 9, 10, 64, 200}) {
    std::vector<TextPiece> pieces;
    for (int i = 0; i < count; ++i) {
      pieces.push_back({.file = std::string(1, static_cast<char>('a' + i % 8)), .tokens = std::vector<int32_t>(1024)});
    }
    const absl::StatusOr<PieceRoles> roles = RolesOf(pieces);
    ASSERT_TRUE(roles.ok()) << roles.status();
    std::set<const TextPiece*> all(roles->fitted.begin(), roles->fitted.end());
    all.insert(roles->tables.begin(), roles->tables.end());
    all.insert(roles->held_out.begin(), roles->held_out.end());
    EXPECT_EQ(all.size(), pieces.size());
    EXPECT_EQ(roles->fitted.size() + roles->tables.size() + roles->held_out.size(), pieces.size());
    EXPECT_FALSE(roles->tables.empty());
    EXPECT_FALSE(roles->held_out.empty());
    EXPECT_LE(roles->tables.size(), 16u);
    if (count == 64) {
      std::set<std::string> files;
      for (const TextPiece* piece : roles->held_out) files.insert(piece->file);
      EXPECT_EQ(files.size(), roles->held_out.size());
    }
  }
}

}  // namespace
}  // namespace quicksave::server
