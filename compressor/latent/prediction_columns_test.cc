#include "compressor/latent/prediction_columns.h"

#include <gtest/gtest.h>

#include <vector>

#include "compressor/latent/instruction_sets.h"

namespace quicksave::compressor {
namespace {

LatentProfile TwoFeatures() { return {.features = 2, .feature_mean = {1, 2}, .feature_scale = {0.5f, 2}}; }

TEST(PredictionColumnsTest, FeaturesAreStandardised) {
  const std::vector<float> hidden = {9, 9, 3, 4, 5, 2};  // [3 tokens, 2]
  const PredictionColumns columns(hidden, 2, 1, 2);
  ASSERT_EQ(columns.count(), 32);
  const std::vector<float> features = columns.Features(TwoFeatures(), hidden);
  ASSERT_EQ(features.size(), 64U);
  EXPECT_EQ(features[0], 1);
  EXPECT_EQ(features[1], 2);
  EXPECT_EQ(features[32], 4);
  EXPECT_EQ(features[33], 0);
  EXPECT_EQ(features[2], 0) << "padding";
}

// Hidden states of 100 tokens, of which `distinct` differ, after one that is not asked for.
std::vector<float> HiddenStates(int distinct) {
  std::vector<float> hidden = {1000, 1000};
  for (int t = 0; t < 100; ++t) {
    hidden.push_back(static_cast<float>(t * 7 % distinct));
    hidden.push_back(3);
  }
  return hidden;
}

TEST(PredictionColumnsTest, EqualOnesHaveOneColumn) {
  EXPECT_EQ(PredictionColumns(HiddenStates(100), 2, 1, 100).count(), 128);
  EXPECT_EQ(PredictionColumns(HiddenStates(97), 2, 1, 100).count(), 128) << "no fewer once they are padded";
  EXPECT_EQ(PredictionColumns(HiddenStates(96), 2, 1, 100).count(), 96);
  EXPECT_EQ(PredictionColumns(HiddenStates(65), 2, 1, 100).count(), 96);
  EXPECT_EQ(PredictionColumns(HiddenStates(1), 2, 1, 100).count(), 32);
  EXPECT_EQ(PredictionColumns({}, 0, 1, 100).count(), 128) << "nothing to predict from";
  EXPECT_EQ(PredictionColumns(HiddenStates(5), 2, 1, 0).count(), 0);
}

TEST(PredictionColumnsTest, EachTokenGetsWhatIsForItsHiddenState) {
  for (const int64_t target : ProductTargets()) {
    const ScopedProductTarget scoped(target);
    for (const int distinct : {96, 64, 33, 31, 1}) {
      const std::vector<float> hidden = HiddenStates(distinct);
      const PredictionColumns columns(hidden, 2, 1, 100);
      const std::vector<float> features = columns.Features(TwoFeatures(), hidden);
      std::vector<float> all(3, 17);  // of another size
      columns.ForEachToken(features, all);
      ASSERT_EQ(all.size(), 256U);
      for (int t = 0; t < 100; ++t) {
        ASSERT_EQ(all[t], (hidden[2 + 2 * t] - 1) / 2) << distinct << " distinct, token " << t;
        ASSERT_EQ(all[128 + t], 2);
      }
    }
  }
}

}  // namespace
}  // namespace quicksave::compressor
