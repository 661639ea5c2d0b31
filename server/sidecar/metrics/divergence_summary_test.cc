#include "server/sidecar/metrics/divergence_summary.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"
#include "server/sidecar/metrics/recorded_metrics_testing.h"

namespace quicksave::metrics {
namespace {

// Adds the recorded positions [from, to), with their next tokens.
void AddRecorded(const nlohmann::json& record, size_t from, size_t to, DivergenceRows& rows) {
  for (size_t i = from; i < to; ++i) {
    const auto p = record["reference"][i].get<std::vector<float>>();
    const auto q = record["candidate"][i].get<std::vector<float>>();
    const absl::Status status = rows.Add(p, q, record["next_tokens"][i].get<int32_t>());
    ASSERT_TRUE(status.ok()) << status;
  }
}

// Mean over the positions of the recorded agreement for the i-th k.
double MeanAgreement(const nlohmann::json& record, size_t k) {
  double sum = 0;
  for (const auto& position : record["top_k_agreement"]) sum += position[k].get<double>();
  return sum / static_cast<double>(record["top_k_agreement"].size());
}

TEST(AggregateTest, FiguresAreThoseOfNumpy) {
  const nlohmann::json records = RecordedMetrics()["aggregates"];
  ASSERT_GT(records.size(), 1u);
  for (const auto& record : records) {
    const auto values = record["values"].get<std::vector<double>>();
    const Aggregate aggregate = AggregateOf(values).value();
    const auto expect = [&](const char* figure, double value) {
      EXPECT_NEAR(value, record[figure].get<double>(), kRoundingTolerance * value) << figure << " of " << values.size();
    };
    EXPECT_EQ(aggregate.count, values.size());
    expect("mean", aggregate.mean);
    expect("p50", aggregate.p50);
    expect("p95", aggregate.p95);
    expect("p99", aggregate.p99);
    expect("max", aggregate.max);
  }
}

TEST(AggregateTest, RefusesNoValuesAndWhatIsNoNumber) {
  EXPECT_EQ(AggregateOf({}).status().code(), absl::StatusCode::kInvalidArgument);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(AggregateOf(std::vector<double>{1, nan}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(DivergenceRowsTest, SummaryIsThatOfTorch) {
  const nlohmann::json record = RecordedMetrics()["logits"];
  ASSERT_EQ(record["top_ks"][0], 1);
  DivergenceRows rows(record["top_ks"][2]);
  AddRecorded(record, 0, record["kl"].size(), rows);
  const DivergenceSummary summary = rows.Summarize().value();
  EXPECT_EQ(summary.kl.count, record["kl"].size());
  EXPECT_NEAR(summary.kl.mean, record["mean_kl"].get<double>(), kRoundingTolerance);
  EXPECT_NEAR(summary.kl.max, record["kl"].back().get<double>(), kRoundingTolerance);
  EXPECT_NEAR(summary.top_1_agreement, MeanAgreement(record, 0), kRoundingTolerance);
  EXPECT_NEAR(summary.top_k_agreement, MeanAgreement(record, 2), kRoundingTolerance);
  EXPECT_EQ(summary.top_k, record["top_ks"][2].get<size_t>());
  ASSERT_TRUE(summary.perplexity_ratio.has_value());
  EXPECT_NEAR(*summary.perplexity_ratio, record["perplexity_ratio"].get<double>(), kRoundingTolerance);
}

TEST(DivergenceRowsTest, PartsAppendedAreTheWhole) {
  const nlohmann::json record = RecordedMetrics()["logits"];
  DivergenceRows whole;
  AddRecorded(record, 0, 7, whole);
  DivergenceRows parts;
  AddRecorded(record, 0, 3, parts);
  DivergenceRows rest;
  AddRecorded(record, 3, 7, rest);
  ASSERT_TRUE(parts.Append(rest).ok());
  const DivergenceSummary expected = whole.Summarize().value();
  const DivergenceSummary summary = parts.Summarize().value();
  EXPECT_EQ(summary.kl.count, 7u);
  EXPECT_EQ(summary.kl.mean, expected.kl.mean);
  EXPECT_EQ(summary.kl.p99, expected.kl.p99);
  EXPECT_DOUBLE_EQ(summary.top_1_agreement, expected.top_1_agreement);
  EXPECT_DOUBLE_EQ(summary.top_k_agreement, expected.top_k_agreement);
  EXPECT_DOUBLE_EQ(*summary.perplexity_ratio, *expected.perplexity_ratio);
  ASSERT_TRUE(whole.Append(whole).ok());
  EXPECT_EQ(whole.size(), 14u);
  EXPECT_EQ(DivergenceRows(5).Append(whole).code(), absl::StatusCode::kInvalidArgument);
}

TEST(DivergenceRowsTest, WithoutNextTokensThereIsNoPerplexityRatio) {
  DivergenceRows rows(1);
  ASSERT_TRUE(rows.Add(std::vector<float>{1, 2}, std::vector<float>{2, 1}).ok());
  const DivergenceSummary summary = rows.Summarize().value();
  EXPECT_FALSE(summary.perplexity_ratio.has_value());
  EXPECT_EQ(summary.top_1_agreement, 0);
}

TEST(DivergenceRowsTest, WhatIsRefusedIsNotAdded) {
  DivergenceRows rows(2);
  const std::vector<float> good = {1, 2, 3};
  const std::vector<float> bad = {1, std::numeric_limits<float>::quiet_NaN(), 3};
  EXPECT_EQ(rows.Summarize().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(rows.Add(good, bad).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(rows.Add(good, good, 3).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DivergenceRows(4).Add(good, good).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(rows.size(), 0u);
  ASSERT_TRUE(rows.Add(good, good, 0).ok());
  EXPECT_EQ(rows.Summarize()->kl.count, 1u);
  EXPECT_EQ(rows.Summarize()->perplexity_ratio, 1);
}

}  // namespace
}  // namespace quicksave::metrics
