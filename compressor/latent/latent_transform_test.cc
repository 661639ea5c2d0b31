#include "compressor/latent/latent_transform.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "compressor/latent/test_profile.h"

namespace quicksave::compressor {
namespace {

using absl::StatusCode;

std::vector<int> AllOf(int count) {
  std::vector<int> all(count);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// Each group's latent against the definition, in double precision.
TEST(LatentTransformTest, AnalysisIsThatOfTheDefinition) {
  for (const int first_diagonal : {0, 2}) {
    const TestSource source({.first_diagonal_group = first_diagonal, .calibration_blocks = 1});
    const LatentProfile& profile = *source.profile();
    const TestBlock block = source.Draw(5, 3);
    const BlockContext context = block.Context(1, 1);
    const LatentTransform transform(profile, block.shape, context);
    ASSERT_EQ(transform.tokens(), 4);
    const ChannelPanels panels(block.shape, context);
    for (const LayerGroup& group : profile.groups) {
      const std::vector<float> channels = panels.Read(block.view(), group.first_layer, group.layers);
      const std::vector<float> latent = transform.Analyse(group, block.view());
      ASSERT_EQ(latent.size(), static_cast<size_t>(group.components()) * transform.columns());
      const int count = profile.channels(group);
      for (int t = 0; t < transform.columns(); ++t) {
        std::vector<double> rest(count);
        for (int c = 0; c < count && t < transform.tokens(); ++c) {
          rest[c] = channels[c * transform.columns() + t] - static_cast<double>(group.mean[c]);
          for (int f = 0; f < profile.features; ++f) {
            // As a fixed-point number.
            const double x =
                std::nearbyint(32 * (block.hidden_states[(t + 1) * profile.features + f] - profile.feature_mean[f]) *
                               profile.feature_scale[f]) /
                32;
            rest[c] -= group.predictor.at(f, c) * x;
          }
        }
        for (int k = 0; k < group.components(); ++k) {
          double expected = 0;
          if (group.encode.empty()) {
            expected = rest[k] / group.scale[k];
          } else {
            for (int c = 0; c < count; ++c) {
              expected += WidenBf16(group.encode.values[c * group.components() + k]) * rest[c];
            }
          }
          // fp32 sums of some hundred terms below 100.
          ASSERT_NEAR(latent[k * transform.columns() + t], expected, 1e-3) << k;
        }
      }
    }
  }
}

TEST(LatentTransformTest, SynthesisInvertsAnalysisUpToRoundingWhereTheBasisIsWhole) {
  for (const int first_diagonal : {0, 2}) {
    const TestSource source({.first_diagonal_group = first_diagonal, .dropped = 0, .calibration_blocks = 1});
    const TestBlock block = source.Draw(33, 4);
    const LatentTransform transform(*source.profile(), block.shape, block.Context(1));
    std::vector<uint16_t> values = block.Prefilled(*source.profile());
    for (const LayerGroup& group : source.profile()->groups) {
      // In units far below the deviations: what fixed points round is a matter of other tests.
      SparseLatent latent{AllOf(group.components()), transform.Analyse(group, block.view()), 1e-3f};
      for (float& value : latent.values) value /= latent.unit;
      transform.Synthesise(group, latent, {block.shape, absl::MakeSpan(values)});
    }
    double error = 0;
    double square = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const double value = WidenBf16(block.values[i]);
      error += std::pow(WidenBf16(values[i]) - value, 2);
      square += value * value;
    }
    // The basis is rounded to bf16, and so are the values.
    EXPECT_LT(std::sqrt(error / square), first_diagonal == 0 ? 1e-3 : 1e-2);
  }
}

TEST(LatentTransformTest, UnusedComponentsAreZeros) {
  const TestSource source({.calibration_blocks = 1});
  const TestBlock block = source.Draw(20, 5);
  const LatentTransform transform(*source.profile(), block.shape, block.Context(1));
  for (const LayerGroup& group : source.profile()->groups) {
    std::vector<float> latent = transform.Analyse(group, block.view());
    const std::vector<int> used = {0, 2, 7};
    std::vector<float> kept;
    for (int k = 0; k < group.components(); ++k) {
      const auto row = latent.begin() + static_cast<std::ptrdiff_t>(k) * transform.columns();
      if (std::count(used.begin(), used.end(), k) == 1) {
        kept.insert(kept.end(), row, row + transform.columns());
      } else {
        std::fill(row, row + transform.columns(), 0.0f);
      }
    }
    std::vector<uint16_t> few = block.values;
    std::vector<uint16_t> all = block.values;
    SparseLatent some{used, kept};
    SparseLatent zeros{AllOf(group.components()), latent};
    transform.Synthesise(group, some, {block.shape, absl::MakeSpan(few)});
    transform.Synthesise(group, zeros, {block.shape, absl::MakeSpan(all)});
    EXPECT_EQ(few, all);
  }
}

TEST(LatentTransformTest, ChecksWhatABlockNeeds) {
  const TestSource source({.calibration_blocks = 1});
  const TestBlock block = source.Draw(6, 5);
  const LatentProfile& profile = *source.profile();
  const auto check = [&](const BlockShape& shape, const BlockContext& context) {
    return LatentTransform::CheckContext(profile, shape, context).code();
  };
  BlockContext context = block.Context(1);
  EXPECT_EQ(check(block.shape, context), StatusCode::kOk);
  BlockShape other = block.shape;
  ++other.layers;
  EXPECT_EQ(check(other, context), StatusCode::kFailedPrecondition);
  other = block.shape;
  other.kv_heads = 1;
  EXPECT_EQ(check(other, context), StatusCode::kFailedPrecondition);
  context.angles = context.angles.subspan(1);
  EXPECT_EQ(check(block.shape, context), StatusCode::kInvalidArgument);
  context = block.Context(1);
  context.hidden_states = context.hidden_states.subspan(1);
  EXPECT_EQ(check(block.shape, context), StatusCode::kInvalidArgument);
  context = block.Context(1, -1);
  EXPECT_EQ(check(block.shape, context), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace quicksave::compressor
