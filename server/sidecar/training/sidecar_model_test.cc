// Torch's sidecars against the codec's own arithmetic: an exported profile computes what was trained.

#include "server/sidecar/training/sidecar_model.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "compressor/latent/panel_product.h"
#include "compressor/learned/learned_network.h"
#include "server/sidecar/training/tensor_file.h"

namespace quicksave::server {
namespace {

using compressor::Architecture;
using compressor::Panels;

constexpr int kRuns = 2;
constexpr int kTokens = 40;
constexpr int64_t kFirstPosition = 260;

class SidecarModelTest : public testing::TestWithParam<Architecture> {
 protected:
  SidecarModelTest() : model_(components_, {3.0f, 0.4f}, {GetParam(), 24, 0.3, 3}, 7) {
    const c10::NoGradGuard no_gradients;
    // Other numbers than those at the start, in bf16, so that nothing is lost when they are exported.
    const at::Generator random = at::detail::createCPUGenerator(11);
    for (const at::Tensor& parameter : model_.Parameters()) {
      parameter.add_(at::randn(parameter.sizes(), random).mul(0.05));
      parameter.copy_(parameter.to(at::kBFloat16));
    }
  }

  // Runs of random tokens, each at the same place of its text.
  TrainingBatch Batch() const {
    const at::Generator random = at::detail::createCPUGenerator(13);
    TrainingBatch batch{.run_tokens = kTokens};
    for (size_t g = 0; g < components_.size(); ++g) {
      batch.groups.push_back(at::randn({kRuns * kTokens, components_[g]}, random).mul(g == 0 ? 3 : 0.4));
    }
    batch.positions = at::arange(kTokens, at::kFloat).add(static_cast<double>(kFirstPosition)).repeat({kRuns});
    return batch;
  }

  // A base whose groups have as many components; nothing else of it is used here.
  compressor::LatentProfile Base() const {
    compressor::LatentProfile base;
    for (const int count : components_) base.groups.push_back({.sigma = std::vector<float>(count, 1.0f)});
    return base;
  }

  // A run of [runs * tokens, width] as a panel [width, columns].
  static std::vector<float> PanelOf(const at::Tensor& x, int run) {
    const int columns = compressor::PaddedColumns(kTokens);
    const std::vector<float> rows = FloatsOf(x.slice(0, run * kTokens, (run + 1) * kTokens));
    const size_t width = x.size(1);
    std::vector<float> panel(width * columns);
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t i = 0; i < width; ++i) panel[i * columns + t] = rows[t * width + i];
    }
    return panel;
  }

  static Panels PanelsOf(const std::vector<at::Tensor>& groups, int run) {
    Panels panels;
    for (const at::Tensor& group : groups) panels.push_back(PanelOf(group, run));
    return panels;
  }

  // The tokens' columns; the others hold anything.
  static void ExpectNear(const Panels& actual, const Panels& expected, float tolerance) {
    const size_t columns = compressor::PaddedColumns(kTokens);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t g = 0; g < actual.size(); ++g) {
      ASSERT_EQ(actual[g].size(), expected[g].size());
      for (size_t i = 0; i < actual[g].size(); ++i) {
        if (i % columns >= kTokens) continue;
        ASSERT_NEAR(actual[g][i], expected[g][i], tolerance) << g << " " << i;
      }
    }
  }

  const std::vector<int> components_ = {20, 14};
  SidecarModel model_;
};

INSTANTIATE_TEST_SUITE_P(Architectures, SidecarModelTest,
                         testing::Values(Architecture::kGrouped, Architecture::kConv, Architecture::kUnified,
                                         Architecture::kRecurrent),
                         [](const auto& one) { return std::string(NameOf(one.param)); });

// To the rounding of fp32: both round the same products, in another order.
TEST_P(SidecarModelTest, TheCodecComputesWhatWasTrained) {
  const c10::NoGradGuard no_gradients;
  const TrainingBatch batch = Batch();
  const SidecarPass pass = model_.Pass(batch, RateModel::kEntropy, std::nullopt);
  const compressor::LearnedProfile profile = model_.Export(Base());
  const compressor::LearnedNetwork network(profile, kFirstPosition, kTokens, compressor::PaddedColumns(kTokens));
  for (int run = 0; run < kRuns; ++run) {
    // The recurrent encoder is told what was rounded to, so that a value near the middle between two integers that the
    // two sides round apart changes nothing after it.
    const Panels rounded = PanelsOf(pass.rounded, run);
    std::vector<std::vector<size_t>> next(rounded.size());
    for (size_t g = 0; g < rounded.size(); ++g) next[g].resize(rounded[g].size());
    const Panels coded = network.Encode(PanelsOf(batch.groups, run), [&](size_t group, int component, float /*value*/) {
      const size_t row = component * static_cast<size_t>(compressor::PaddedColumns(kTokens));
      return rounded[group][row + next[group][component]++];
    });
    ExpectNear(coded, PanelsOf(pass.coded, run), 2e-4f);
    ExpectNear(network.Decode(rounded), PanelsOf(pass.restored, run), 2e-4f);
  }
}

// By all directions there are, within what the layer norms leave: the components come back, to the rounding of z.
TEST_P(SidecarModelTest, StartsAsTheDirectionsThatItIsGiven) {
  const c10::NoGradGuard no_gradients;
  SidecarModel model(components_, {3.0f, 0.4f}, {GetParam(), 48, 1, 3}, 7);
  const TrainingBatch batch = Batch();
  for (size_t g = 0; g < components_.size(); ++g) {
    model.StartFrom(g, at::eye(components_[g]), at::ones({components_[g]}), 0.01);
  }
  const SidecarPass pass = model.Pass(batch, RateModel::kEntropy, std::nullopt);
  for (size_t g = 0; g < components_.size(); ++g) {
    const double error = pass.restored[g].sub(batch.groups[g]).square().sum().item<double>();
    EXPECT_LT(error, 1e-3 * batch.groups[g].square().sum().item<double>());
  }
}

TEST_P(SidecarModelTest, RunsDoNotSeeEachOther) {
  const c10::NoGradGuard no_gradients;
  TrainingBatch batch = Batch();
  const SidecarPass before = model_.Pass(batch, RateModel::kEntropy, std::nullopt);
  batch.groups[0].slice(0, 0, kTokens).add_(1);
  const SidecarPass after = model_.Pass(batch, RateModel::kEntropy, std::nullopt);
  const auto second = [](const SidecarPass& pass) { return FloatsOf(pass.restored[0].slice(0, kTokens)); };
  EXPECT_EQ(second(before), second(after));
  EXPECT_NE(FloatsOf(before.restored[0]), FloatsOf(after.restored[0]));
}

// Half of a Laplace distribution's mass is within ln 2 of its scale; a value's bits are minus the logarithm of the mass
// within half a step.
TEST_P(SidecarModelTest, BitsAreThoseOfTheDistribution) {
  const c10::NoGradGuard no_gradients;
  SidecarPass pass = model_.Pass(Batch(), RateModel::kEntropy, std::nullopt);
  const compressor::LearnedProfile profile = model_.Export(Base());
  const std::vector<float> rounded = FloatsOf(pass.rounded[1]);
  const auto width = static_cast<size_t>(pass.rounded[1].size(1));
  double bits = 0;
  for (size_t i = 0; i < rounded.size(); ++i) {
    const double scale = profile.sigma[1][i % width] / std::sqrt(2.0);
    const auto below = [&](double x) { return x < 0 ? std::exp(x / scale) / 2 : 1 - std::exp(-x / scale) / 2; };
    bits -= std::log2(below(-std::abs(rounded[i]) + 0.5) - below(-std::abs(rounded[i]) - 0.5));
  }
  EXPECT_NEAR(model_.Bits(pass, RateModel::kEntropy)[1].item<double>(), bits, 1e-3 * bits);
}

}  // namespace
}  // namespace quicksave::server
