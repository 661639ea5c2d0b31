#include "server/sidecar/metrics/divergence.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/sidecar/metrics/recorded_metrics_testing.h"

namespace quicksave::metrics {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const absl::StatusOr<double>& result, const std::string& message) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(message));
}

TEST(DivergenceTest, FiguresAreThoseOfTorch) {
  const nlohmann::json record = RecordedMetrics()["logits"];
  const size_t positions = record["reference"].size();
  ASSERT_GT(positions, 0u);
  for (size_t i = 0; i < positions; ++i) {
    const auto p = record["reference"][i].get<std::vector<float>>();
    const auto q = record["candidate"][i].get<std::vector<float>>();
    const int32_t token = record["next_tokens"][i];
    EXPECT_NEAR(KlDivergence(p, q).value(), record["kl"][i].get<double>(), kRoundingTolerance);
    EXPECT_NEAR(NegativeLogLikelihood(p, token).value(), record["reference_nll"][i].get<double>(), kRoundingTolerance);
    EXPECT_NEAR(NegativeLogLikelihood(q, token).value(), record["candidate_nll"][i].get<double>(), kRoundingTolerance);
    for (size_t k = 0; k < record["top_ks"].size(); ++k) {
      EXPECT_EQ(TopKAgreement(p, q, record["top_ks"][k]).value(), record["top_k_agreement"][i][k].get<double>());
    }
  }
  const auto reference_nll = record["reference_nll"].get<std::vector<double>>();
  const auto candidate_nll = record["candidate_nll"].get<std::vector<double>>();
  EXPECT_NEAR(PerplexityRatio(reference_nll, candidate_nll).value(), record["perplexity_ratio"].get<double>(),
              kRoundingTolerance);
}

TEST(KlDivergenceTest, IsZeroForOneDistributionHoweverItIsShifted) {
  const std::vector<float> p = {1.5F, -2, 0.25F, 8};
  EXPECT_EQ(KlDivergence(p, p).value(), 0);
  std::vector<float> shifted = p;
  for (float& logit : shifted) logit += 1024;
  EXPECT_NEAR(KlDivergence(p, shifted).value(), 0, kRoundingTolerance);
}

TEST(KlDivergenceTest, IsDirected) {
  // p = (1/2, 1/2), q = (3/4, 1/4): KL(p||q) = log(2/sqrt(3)), KL(q||p) = log(2) - H(q).
  const std::vector<float> p = {0, 0};
  const std::vector<float> q = {std::log(3.0F), 0};
  EXPECT_NEAR(KlDivergence(p, q).value(), std::log(2 / std::sqrt(3.0)), 1e-7);  // log(3) is rounded to float
  EXPECT_NEAR(KlDivergence(q, p).value(), std::log(2.0) + 0.75 * std::log(0.75) + 0.25 * std::log(0.25), 1e-7);
}

TEST(KlDivergenceTest, HugeLogitsDoNotOverflow) {
  EXPECT_NEAR(KlDivergence(std::vector<float>{1e30F, 0}, std::vector<float>{1e30F, 0}).value(), 0, 0);
  EXPECT_EQ(KlDivergence(std::vector<float>{1000, 0}, std::vector<float>{0, 1000}).value(), 1000);
}

TEST(TopKAgreementTest, TiesGoToTheLowerId) {
  const std::vector<float> tied = {1, 2, 2, 0};
  const std::vector<float> first = {0, 5, 1, 0};
  const std::vector<float> second = {0, 1, 5, 0};
  EXPECT_EQ(TopKAgreement(tied, first, 1).value(), 1);
  EXPECT_EQ(TopKAgreement(tied, second, 1).value(), 0);
  EXPECT_EQ(TopKAgreement(tied, second, 2).value(), 1);
}

TEST(PerplexityRatioTest, OneNatMoreATokenIsAFactorOfE) {
  const std::vector<double> reference = {2, 0.5, 4};
  const std::vector<double> worse = {3, 1.5, 5};
  EXPECT_DOUBLE_EQ(PerplexityRatio(reference, worse).value(), std::exp(1.0));
  EXPECT_EQ(PerplexityRatio(reference, reference).value(), 1);
  EXPECT_TRUE(std::isinf(PerplexityRatio(std::vector<double>{0.0}, std::vector<double>{1000.0}).value()));
}

TEST(FirstDivergenceTest, FindsTheFirstDifferenceOrTheEarlierEnd) {
  const std::vector<int32_t> tokens = {5, 6, 7};
  EXPECT_EQ(FirstDivergence(tokens, tokens), std::nullopt);
  EXPECT_EQ(FirstDivergence({}, {}), std::nullopt);
  EXPECT_EQ(FirstDivergence(tokens, std::vector<int32_t>{5, 9, 9}), 1);
  EXPECT_EQ(FirstDivergence(tokens, std::vector<int32_t>{5, 6}), 2);
  EXPECT_EQ(FirstDivergence(std::vector<int32_t>{5, 6}, tokens), 2);
  EXPECT_EQ(FirstDivergence({}, tokens), 0);
}

TEST(DivergenceTest, RefusesWhatIsNotDefined) {
  const std::vector<float> two = {1, 2};
  const std::vector<float> three = {1, 2, 3};
  ExpectRefused(KlDivergence(two, three), "the reference has 2 values, the candidate 3");
  ExpectRefused(KlDivergence({}, {}), "no values");
  ExpectRefused(TopKAgreement(two, three, 1), "the reference has 2 values, the candidate 3");
  ExpectRefused(TopKAgreement(two, two, 0), "k is 0, but must be in [1, 2]");
  ExpectRefused(TopKAgreement(two, two, 3), "k is 3, but must be in [1, 2]");
  ExpectRefused(NegativeLogLikelihood(two, 2), "token 2 is not among the 2 logits");
  ExpectRefused(NegativeLogLikelihood(two, -1), "token -1");
  ExpectRefused(NegativeLogLikelihood({}, 0), "no values");
  ExpectRefused(PerplexityRatio(std::vector<double>{1, 2}, std::vector<double>{1}), "2 tokens, the candidate 1");
  ExpectRefused(PerplexityRatio({}, {}), "no values");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    const std::vector<float> values = {1, bad};
    ExpectRefused(KlDivergence(two, values), "value 1 of the candidate");
    ExpectRefused(TopKAgreement(values, two, 1), "value 1 of the reference");
    ExpectRefused(NegativeLogLikelihood(values, 0), "value 1 of the logit row");
    ExpectRefused(PerplexityRatio(std::vector<double>{1, 1}, std::vector<double>{1, bad}), "value 1 of the candidate");
  }
}

}  // namespace
}  // namespace quicksave::metrics
