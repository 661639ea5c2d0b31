// ReferenceDecoder's gradients for calibration, against finite differences.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "gtest/gtest.h"
#include "server/engine/model/reference_decoder.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

class LabelGradientsTest : public ::testing::Test {
 protected:
  LabelGradientsTest() : reference_(ReferenceDecoder::Load(model_.dir()).value()) {}

  // K and V of some tokens, the values as the model makes them; keys of a past are before RoPE, so these are other
  // ones.
  ReferenceDecoder::Past Past() const {
    std::vector<int32_t> tokens(kPast);
    std::iota(tokens.begin(), tokens.end(), 7);
    const ReferenceDecoder::Output output = reference_->Run(tokens);
    const size_t width = output.keys[0].size() / tokens.size();
    ReferenceDecoder::Past past{.tokens = kPast};
    for (int t = 0; t < kPast; ++t) {
      for (size_t layer = 0; layer < output.keys.size(); ++layer) {
        for (const auto* rows : {&output.keys[layer], &output.values[layer]}) {
          past.key_values.insert(past.key_values.end(), rows->begin() + t * width, rows->begin() + (t + 1) * width);
        }
      }
    }
    return past;
  }

  // The labels' negative log-likelihood.
  double Loss(const ReferenceDecoder::Past& past, const std::vector<int32_t>& labels) const {
    const std::vector<float> logits = reference_->LogitsAfter(past, tokens_);
    const size_t vocabulary = logits.size() / tokens_.size();
    double loss = 0;
    for (size_t t = 0; t < tokens_.size(); ++t) {
      const float* row = logits.data() + t * vocabulary;
      double sum = 0;
      for (size_t i = 0; i < vocabulary; ++i) sum += std::exp(double{row[i]});
      loss += std::log(sum) - row[labels[t]];
    }
    return loss;
  }

  static constexpr int kPast = 5;
  const std::vector<int32_t> tokens_ = {3, 250, 41};
  const TinyModel model_{{.layers = 2, .hidden_size = 32, .query_heads = 2, .kv_heads = 1, .head_dim = 16}};
  const std::unique_ptr<ReferenceDecoder> reference_;
};

TEST_F(LabelGradientsTest, AreWhatFiniteDifferencesSay) {
  const ReferenceDecoder::Past past = Past();
  const auto sample = reference_->LabelGradients(past, tokens_, 1, 5)[0];
  ASSERT_EQ(sample.labels.size(), tokens_.size());
  ASSERT_EQ(sample.gradients.size(), past.key_values.size());
  const float largest = std::abs(*std::max_element(sample.gradients.begin(), sample.gradients.end(),
                                                   [](float a, float b) { return std::abs(a) < std::abs(b); }));
  ASSERT_GT(largest, 1e-3);
  // Both layers' keys and values of all tokens: 5 tokens of 64 values each, every seventh.
  for (size_t i = 0; i < past.key_values.size(); i += 7) {
    constexpr float kStep = 0.02f;
    ReferenceDecoder::Past changed = past;
    changed.key_values[i] = past.key_values[i] + kStep;
    const double above = Loss(changed, sample.labels);
    changed.key_values[i] = past.key_values[i] - kStep;
    const double below = Loss(changed, sample.labels);
    // fp32 losses of about 17 have errors of 1e-6 each, divided by the step; and the third derivative's part.
    EXPECT_NEAR(sample.gradients[i], (above - below) / (2 * kStep), 3e-4 + 0.02 * largest) << i;
  }
}

TEST_F(LabelGradientsTest, EqualSeedsGiveEqualLabels) {
  const ReferenceDecoder::Past past = Past();
  const auto first = reference_->LabelGradients(past, tokens_, 3, 5);
  const auto again = reference_->LabelGradients(past, tokens_, 3, 5);
  const auto other = reference_->LabelGradients(past, tokens_, 3, 6);
  ASSERT_EQ(first.size(), 3u);
  int different = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].labels, again[i].labels);
    EXPECT_EQ(first[i].gradients, again[i].gradients);
    different += first[i].labels != other[i].labels ? 1 : 0;
  }
  EXPECT_GT(different, 0);
  EXPECT_NE(first[0].labels, first[1].labels);
}

// A distribution's score has mean zero: gradients of many draws cancel.
TEST_F(LabelGradientsTest, CancelOverManyDraws) {
  constexpr int kDraws = 400;
  const auto samples = reference_->LabelGradients(Past(), tokens_, kDraws, 1);
  double of_mean = 0;
  double of_all = 0;
  for (size_t i = 0; i < samples[0].gradients.size(); ++i) {
    double mean = 0;
    for (const auto& sample : samples) {
      mean += sample.gradients[i] / kDraws;
      of_all += std::pow(sample.gradients[i], 2) / kDraws;
    }
    of_mean += mean * mean;
  }
  // Of independent draws the mean has 1/400 of the square; labels that were not drawn, all of it.
  EXPECT_LT(of_mean / of_all, 4.0 / kDraws);
}

TEST_F(LabelGradientsTest, LogitsAfterAPastAreThoseOfTheWholeText) {
  // An empty past.
  const std::vector<float> whole = reference_->Logits(tokens_);
  EXPECT_EQ(reference_->LogitsAfter({}, tokens_), whole);
}

TEST_F(LabelGradientsTest, LogitsFromAHiddenStateAreThoseOfTheWholeText) {
  const ReferenceDecoder::Output output = reference_->Run(tokens_);
  // The embeddings, the residual stream after each layer, and what follows the final norm.
  ASSERT_EQ(output.hidden_states.size(), 4u);
  for (size_t i = 0; i < output.hidden_states.size(); ++i) {
    EXPECT_EQ(reference_->LogitsFrom(static_cast<int>(i), output.hidden_states[i]), output.logits) << i;
  }
}

}  // namespace
}  // namespace quicksave::engine
