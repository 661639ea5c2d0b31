#include "server/sidecar/profile_fitter.h"

#include <cmath>
#include <random>
#include <sstream>
#include <utility>

#include "compressor/block.h"
#include "compressor/latent/latent_profile.h"
#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

using compressor::LatentProfile;
using compressor::LayerGroup;

// One group: layer 1 of two, 2 * 1 * 4 channels.
constexpr int kChannels = 8;
constexpr int kFeatures = 3;
constexpr int kAllChannels = 2 * kChannels;

LatentProfile Model() { return {.model_fingerprint = "test", .layers = 2, .kv_heads = 1, .head_dim = 4}; }

float At(const compressor::Bf16Matrix& matrix, int row, int column) {
  return compressor::WidenBf16(matrix.values[static_cast<size_t>(row) * matrix.outputs + column]);
}

// Normal numbers, the same everywhere.
class Normal {
 public:
  explicit Normal(uint64_t seed) : random_(seed) {}
  double operator()() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>(random_() >> 11) * 0x1p-53;
    return sum;
  }

 private:
  std::mt19937_64 random_;
};

// What the test's states are: channels of layer 1 are 2 c + sum over features of weight(f, c) x_f + noise.
double Weight(int f, int c) { return 0.5 * (f + 1) * ((c + f) % 3 - 1); }

struct Given {
  double noise = 0.1;
  // Deviation of the gradient of each channel.
  std::vector<double> gradients = std::vector<double>(kChannels, 1);
  uint64_t seed = 1;
};

void AddTo(ProfileFitter& fitter, const Given& given, int blocks = 40) {
  Normal normal(given.seed);
  constexpr int kColumns = 50;
  for (int b = 0; b < blocks; ++b) {
    std::vector<float> hidden(kColumns * kFeatures);
    for (float& x : hidden) x = static_cast<float>(5 + 2 * normal());
    std::vector<float> channels(kAllChannels * kColumns);
    for (int c = 0; c < kChannels; ++c) {
      for (int t = 0; t < kColumns; ++t) {
        double value = 2.0 * c + given.noise * (1 + c) * normal();
        for (int f = 0; f < kFeatures; ++f) value += Weight(f, c) * hidden[t * kFeatures + f];
        channels[(kChannels + c) * kColumns + t] = static_cast<float>(value);
      }
    }
    fitter.AddStates(channels, hidden, kColumns);
    std::vector<float> gradients(kColumns * kAllChannels);
    for (int t = 0; t < kColumns; ++t) {
      for (int c = 0; c < kChannels; ++c) {
        gradients[t * kAllChannels + kChannels + c] = static_cast<float>(given.gradients[c] * normal());
      }
    }
    fitter.AddGradients(gradients, kColumns, 10);
  }
}

LatentProfile Fitted(const Given& given) {
  ProfileFitter fitter(Model(), kFeatures, {.split = 0, .layers_per_group = 1});
  AddTo(fitter, given);
  absl::StatusOr<LatentProfile> profile = fitter.Fit();
  EXPECT_TRUE(profile.ok()) << profile.status();
  return *std::move(profile);
}

TEST(ProfileFitterTest, FindsALinearRelationOfFeaturesAndChannels) {
  const LatentProfile profile = Fitted({});
  ASSERT_EQ(profile.groups.size(), 1u);
  const LayerGroup& group = profile.groups[0];
  EXPECT_EQ(group.first_layer, 1);
  for (int c = 0; c < kChannels; ++c) {
    double at_zero = group.mean[c];
    for (int f = 0; f < kFeatures; ++f) {
      // Features are standardised, so a weight is times their deviation: undo it. Four standard errors of a regression
      // on 2,000 tokens with features of deviation 2, and the predictor's 8 bits and the ridge's hundredth.
      const double weight = group.predictor.at(f, c) * profile.feature_scale[f];
      const double error = 0.1 * (1 + c) / (2 * std::sqrt(2000.0));
      EXPECT_NEAR(weight, Weight(f, c), 4 * error + 0.02 * std::abs(Weight(f, c)) + 0.005) << f << " " << c;
      at_zero -= group.predictor.at(f, c) * profile.feature_scale[f] * profile.feature_mean[f];
    }
    EXPECT_NEAR(at_zero, 2 * c, 0.4) << c;
  }
  // What is left is the noise, not the relation: whitened by equal gradients, deviations have the noise's proportions.
  EXPECT_NEAR(group.sigma.front() / group.sigma.back(), 8, 1);
}

TEST(ProfileFitterTest, DecodeIsTheInverseOfEncode) {
  const LayerGroup group = Fitted({.gradients = {1, 3, 0.2, 1, 5, 1, 0.5, 2}}).groups[0];
  for (int a = 0; a < kChannels; ++a) {
    for (int b = 0; b < kChannels; ++b) {
      double sum = 0;
      for (int k = 0; k < kChannels; ++k) sum += double{At(group.encode, a, k)} * group.DecodeWeight(k, b);
      // Encode is rounded to bf16, and channels have scales that are up to 25 times apart.
      EXPECT_NEAR(sum, a == b ? 1 : 0, 0.12) << a << " " << b;
    }
  }
  for (int k = 1; k < kChannels; ++k) EXPECT_LE(group.sigma[k], group.sigma[k - 1]);
}

TEST(ProfileFitterTest, ErrorsAreFinerWhereGradientsAreLarge) {
  std::vector<double> gradients(kChannels, 1);
  gradients[2] = 10;
  const LayerGroup group = Fitted({.gradients = gradients}).groups[0];
  // An error of 1 in each component makes this error in the channels.
  std::vector<double> errors(kChannels);
  for (int c = 0; c < kChannels; ++c) {
    for (int k = 0; k < kChannels; ++k) errors[c] += std::pow(group.DecodeWeight(k, c), 2);
    errors[c] = std::sqrt(errors[c]);
  }
  for (int c = 0; c < kChannels; ++c) {
    if (c == 2) continue;
    EXPECT_NEAR(errors[c] / errors[2], 10, 1.5) << c;
  }
}

// The promise of Fit: a component's unit is a millionth of a nat for each scored token.
TEST(ProfileFitterTest, UnitsAreMillionthsOfANat) {
  const LayerGroup group = Fitted({}).groups[0];
  // 50 tokens' gradients of variance 1 for 10 labels: 5 a label.
  double square = 0;
  for (int k = 0; k < kChannels; ++k) square += std::pow(group.DecodeWeight(k, 0), 2);
  EXPECT_NEAR(square * 5e6, 1, 0.1);
}

TEST(ProfileFitterTest, GoesOnFromSavedMomentsWithTheSameBits) {
  ProfileFitter whole(Model(), kFeatures, {.split = 0, .layers_per_group = 1});
  AddTo(whole, {.seed = 1}, 10);
  std::stringstream saved;
  whole.SaveMoments(saved);
  AddTo(whole, {.seed = 2}, 10);
  ProfileFitter restored(Model(), kFeatures, {.split = 0, .layers_per_group = 1});
  ASSERT_TRUE(restored.LoadMoments(saved).ok());
  AddTo(restored, {.seed = 2}, 10);
  const LatentProfile a = whole.Fit().value();
  const LatentProfile b = restored.Fit().value();
  EXPECT_EQ(a.groups[0].encode.values, b.groups[0].encode.values);
  EXPECT_EQ(a.groups[0].predictor.int8()->RowMajor(), b.groups[0].predictor.int8()->RowMajor());
  EXPECT_EQ(a.groups[0].decode.int8()->RowMajor(), b.groups[0].decode.int8()->RowMajor());
  EXPECT_EQ(a.groups[0].decode.int8()->scales(), b.groups[0].decode.int8()->scales());
  EXPECT_EQ(a.groups[0].mean, b.groups[0].mean);
  EXPECT_EQ(a.groups[0].sigma, b.groups[0].sigma);
  EXPECT_EQ(a.feature_scale, b.feature_scale);
}

TEST(ProfileFitterTest, AChannelWithoutGradientsIsCodedToo) {
  std::vector<double> gradients(kChannels, 1);
  gradients[3] = 0;
  const LayerGroup group = Fitted({.gradients = gradients}).groups[0];
  double kept = 0;
  for (int k = 0; k < kChannels; ++k) kept += double{At(group.encode, 3, k)} * group.DecodeWeight(k, 3);
  EXPECT_NEAR(kept, 1, 0.12);
}

TEST(ProfileFitterTest, WithoutAnyGradientsThereIsNoMetric) {
  ProfileFitter fitter(Model(), kFeatures, {.split = 0, .layers_per_group = 1});
  AddTo(fitter, {.gradients = std::vector<double>(kChannels, 0)});
  EXPECT_EQ(fitter.Fit().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ProfileFitterTest, VariancesMayBeTheMetric) {
  ProfileFitter fitter(Model(), kFeatures, {.split = 0, .layers_per_group = 1, .metric = ErrorMetric::kVariance});
  AddTo(fitter, {});
  const absl::StatusOr<LatentProfile> profile = fitter.Fit();
  ASSERT_TRUE(profile.ok()) << profile.status();
  // The noise is independent, so each component is a channel's, of deviation 1.
  for (const float sigma : profile->groups[0].sigma) EXPECT_NEAR(sigma, 1, 0.15);
}

TEST(ProfileFitterTest, RefusesDamagedMomentsAndAFitToNothing) {
  ProfileFitter fitter(Model(), kFeatures, {.split = 0, .layers_per_group = 1});
  EXPECT_EQ(fitter.Fit().status().code(), absl::StatusCode::kFailedPrecondition);
  AddTo(fitter, {}, 2);
  std::stringstream saved;
  fitter.SaveMoments(saved);
  std::string bytes = saved.str();
  for (const size_t place : {size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
    std::string damaged = bytes;
    damaged[place] = static_cast<char>(damaged[place] ^ 4);
    std::stringstream stream(damaged);
    EXPECT_EQ(fitter.LoadMoments(stream).code(), absl::StatusCode::kDataLoss) << place;
  }
  std::stringstream cut(bytes.substr(0, bytes.size() - 1));
  EXPECT_EQ(fitter.LoadMoments(cut).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace quicksave::server
