// A sidecar from training to a restored state, with the real model over the wire.

#include <sys/wait.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/encoding_fixture.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;

// As little as still is a sidecar: it need not be good.
constexpr char kArguments[] =
    "--arch recurrent --tokens 1536 --piece-tokens 256 --epochs 2 --hidden 24 --latent-share "
    "0.01 "
    "--no-principal --threads 2";

class LearnedEncodingTest : public EncodingFixture {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryDirectory>();
    const std::string profile = *folder_ / "learned.safetensors";
    const std::string command =
        absl::StrCat("'", QUICKSAVE_TRAIN_BINARY, "' --model '", ModelDirectory(), "' --text '", QUICKSAVE_SOURCE_DIR,
                     "/docs/engine.md' --out '", profile, "' ", kArguments);
    const int ended = std::system(command.c_str());  // NOLINT(cert-env33-c,concurrency-mt-unsafe): before any thread
    ASSERT_TRUE(WIFEXITED(ended) && WEXITSTATUS(ended) == 0) << command;
    Start({"--profile=" + profile});
  }
  static void TearDownTestSuite() {
    EncodingFixture::TearDownTestSuite();
    folder_.reset();
  }

  // By a trained sidecar, instead of the blocks as saved.
  static absl::StatusOr<v1::EncodeNodeResponse> EncodeLearned(const std::string& node) {
    return Calls().Encode(node, "encoding { codec: 'learned' step: 1 } drop_saved: true");
  }

 private:
  static std::unique_ptr<TemporaryDirectory> folder_;
};

std::unique_ptr<TemporaryDirectory> LearnedEncodingTest::folder_;

TEST_F(LearnedEncodingTest, AStateIsRestoredAsItWasMeasuredAfterAKill) {
  const client::Node saved = Save(24, 1);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse encoded, EncodeLearned(saved.name));
  EXPECT_EQ(encoded.encoding().codec(), "learned");
  EXPECT_GT(encoded.encoding().ratio(), 4);
  EXPECT_GT(encoded.encoding().fidelity().mean_kl(), 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name));
  EXPECT_FALSE(restored.proof().exact());
  EXPECT_EQ(restored.proof().codec(), "learned");
  EXPECT_EQ(restored.proof().check().outcome(), v1::DistributionCheck::OUTCOME_AS_MEASURED);
  const std::vector<client::Token> before = ContinueNode(saved.name);
  KillAndRestart();
  EXPECT_EQ(ContinueNode(saved.name), before);
  EXPECT_TRUE(Calls().Verify(saved.name, false).ok());
}

TEST_F(LearnedEncodingTest, AChildKeepsItsParentsLatents) {
  const client::Node saved = Save(24, 2);
  ASSERT_TRUE(EncodeLearned(saved.name).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name));
  const client::Node child = ExtendAndSave(restored.session().name(), 3);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, Calls().Get(child.name));
  EXPECT_EQ(node.storage().codec(), "mixed");
  EXPECT_TRUE(Calls().Restore(child.name).ok());
}

TEST_F(LearnedEncodingTest, WithoutACodecALatentProfileIsTaken) {
  const client::Node saved = Save(6, 3);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse encoded, Calls().Encode(saved.name));
  EXPECT_EQ(encoded.encoding().codec(), "latent");
}

TEST_F(LearnedEncodingTest, WhatItCannotDoIsRefused) {
  const client::Node saved = Save(6, 4);
  const auto message = [&](const std::string& encoding) {
    return std::string(Calls().Encode(saved.name, "encoding { " + encoding + " }").status().message());
  };
  EXPECT_THAT(message("codec: 'learned' residual: true"), HasSubstr("has none"));
  EXPECT_THAT(message("codec: 'learned' split: 6"), HasSubstr("NO_PROFILE"));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const auto profiles,
                                 Calls().Call<v1::ListProfilesResponse>("AdminService/ListProfiles", ""));
  for (const v1::Profile& profile : profiles.profiles()) {
    const std::string other = profile.codec() == "learned" ? "latent" : "learned";
    EXPECT_THAT(message(absl::StrCat("codec: '", other, "' profile: '", profile.id(), "'")), HasSubstr("is of"));
  }
}

}  // namespace
}  // namespace quicksave::integration
