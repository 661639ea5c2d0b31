#include "compressor/learned/learned_profile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "compressor/byte_io.h"
#include "compressor/learned/test_learned_profile.h"

namespace quicksave::compressor {
namespace {

using absl::StatusCode;

const TestSource& Source() {
  static const auto& source = *new TestSource({.calibration_blocks = 1});
  return source;
}

class LearnedProfileTest : public testing::TestWithParam<Architecture> {
 protected:
  const std::shared_ptr<const LearnedProfile> profile_ = RandomLearnedProfile(Source(), GetParam());
};

INSTANTIATE_TEST_SUITE_P(Architectures, LearnedProfileTest,
                         testing::Values(Architecture::kGrouped, Architecture::kConv, Architecture::kUnified,
                                         Architecture::kRecurrent),
                         [](const auto& one) { return std::string(NameOf(one.param)); });

TEST_P(LearnedProfileTest, ComesBackAsItWas) {
  const std::string bytes = profile_->Serialize();
  const absl::StatusOr<LearnedProfile> parsed = LearnedProfile::Parse(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->architecture, GetParam());
  EXPECT_EQ(parsed->base.model_fingerprint, profile_->base.model_fingerprint);
  EXPECT_EQ(parsed->Serialize(), bytes);
}

TEST_P(LearnedProfileTest, DamageIsRefused) {
  const std::string bytes = profile_->Serialize();
  for (size_t i = 0; i < bytes.size(); i += 997) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x20);
    EXPECT_EQ(LearnedProfile::Parse(damaged).status().code(), StatusCode::kDataLoss) << i;
    EXPECT_EQ(LearnedProfile::Parse(bytes.substr(0, i)).status().code(), StatusCode::kDataLoss) << i;
  }
}

// A file that somebody made on purpose has a checksum that matches.
TEST_P(LearnedProfileTest, HostileHeadersAreRefused) {
  const std::string bytes = profile_->Serialize();
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string hostile = bytes.substr(0, bytes.size() - sizeof(uint64_t));
    const size_t place = hostile.find(from);
    EXPECT_NE(place, std::string::npos) << from;
    hostile.replace(place, from.size(), to);
    AppendChecksum(hostile);
    return LearnedProfile::Parse(hostile).status().code();
  };
  const std::string name(NameOf(GetParam()));
  EXPECT_EQ(replaced("\"version\":\"1\"", "\"version\":\"2\""), StatusCode::kUnimplemented);
  EXPECT_EQ(replaced("\"version\":\"1\"", "\"version\":\"0\""), StatusCode::kDataLoss);
  EXPECT_EQ(replaced("quicksave-learned-profile", "quicksave-latents-profile"), StatusCode::kDataLoss);
  EXPECT_EQ(replaced("\"" + name + "\"", "\"" + std::string(name.size(), 'x') + "\""), StatusCode::kDataLoss);
  EXPECT_EQ(replaced("group0.encoder.first.weight", "group0.encoder.first.weighs"), StatusCode::kDataLoss);
  EXPECT_EQ(replaced("\"shape\":[24]", "\"shape\":[99]"), StatusCode::kDataLoss);
}

TEST_P(LearnedProfileTest, WhatDoesNotFitTogetherIsInvalid) {
  const auto check = [&](auto change) {
    LearnedProfile profile = *profile_;
    change(profile);
    EXPECT_EQ(profile.Validate().code(), StatusCode::kInvalidArgument);
  };
  check([](LearnedProfile& p) { p.encoders.pop_back(); });
  check([](LearnedProfile& p) { p.sigma[0][0] = 0; });
  check([](LearnedProfile& p) { p.sigma[1].clear(); });
  check([](LearnedProfile& p) { p.decoders[0].second.bias.pop_back(); });
  check([](LearnedProfile& p) { p.encoders[0].first.weight.inputs += 1; });
  check([](LearnedProfile& p) { p.encoders[1].norm.gain[0] = std::numeric_limits<float>::infinity(); });
  check([](LearnedProfile& p) { p.decoders[1].first.weight.values[0] = 0x7f80; });
  check([](LearnedProfile& p) { p.base.split = -1; });
  if (GetParam() == Architecture::kUnified) {
    check([](LearnedProfile& p) { p.decoder_attention.heads = 5; });
    check([](LearnedProfile& p) { p.encoder_attention.heads = 0; });
    check([](LearnedProfile& p) { p.encoder_attention.output.bias[0] = std::nanf(""); });
  }
  if (GetParam() == Architecture::kRecurrent) {
    check([](LearnedProfile& p) { p.decay[0][0] = 1; });
    check([](LearnedProfile& p) { p.decay.pop_back(); });
  }
}

}  // namespace
}  // namespace quicksave::compressor
