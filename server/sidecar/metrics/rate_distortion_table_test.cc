#include "server/sidecar/metrics/rate_distortion_table.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/sidecar/metrics/report_testing.h"

namespace quicksave::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(RateDistortionTableTest, AllOfItAsItIsWritten) {
  RateDistortionReport report = SmallReport();
  report.points = {report.points[0], report.points[1]};
  report.points[0].split_layers = 0;
  report.points[0].step = 0;
  report.points[0].encode_mb_per_s = 0;
  EXPECT_EQ(ReportToMarkdown(report).value(),
            R"(# Rate and distortion

- Model: SmolLM2-135M-Instruct
- Machine: 2 cores of an Intel(R) Xeon(R)
- Command: evaluate --kinds=prose,code
- Noise floor: mean KL 0.0017 of the live state under other arithmetic
- Negative control: zeroed, mean KL 4.46
- Negative control: another node's, mean KL 0.84

Ratios are raw bf16 K and V over what is stored: effective counts everything but the sidecar, nominal the coded symbols alone. KL in nats.

## prose, 2,048 tokens of context

![Effective ratio and mean KL](rate_distortion_prose_2048.svg)

| codec | n | step | effective | nominal | mean KL | p99 KL | top-1 | perplexity ratio | bytes/token | encode MB/s | decode MB/s | sidecar bytes | scored tokens |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| exact | 0 | - | 1.56x | 1.95x | 0 | 0 | 98.4% | 1.0039 | 14,807 | - | 779 | 52,428,800 | 1,024 |
| q8\_0 &lt;8.5 bits> & "scale" | 6 | 0.3 | 1.88x | 2.35x | 9e-5 | 0.0009 | 98.4% | 1.0039 | 12,255 | 406 | 779 | 52,428,800 | 1,024 |
)");
}

TEST(RateDistortionTableTest, RemarksStandBeforeTheFigures) {
  RateDistortionReport report = SmallReport();
  report.remarks = {"the floor is of 1 piece", "2 < 3 pieces of *prose*"};
  const std::string text = ReportToMarkdown(report).value();
  EXPECT_THAT(text, HasSubstr("\n- the floor is of 1 piece\n- 2 &lt; 3 pieces of \\*prose\\*\n"));
  EXPECT_LT(text.find("the floor is of"), text.find("## prose"));
}

TEST(RateDistortionTableTest, EachPanelHasItsTable) {
  const std::string text = ReportToMarkdown(SmallReport()).value();
  EXPECT_THAT(text, HasSubstr("## prose, 2,048"));
  EXPECT_THAT(text, HasSubstr("## Python code, 2,048"));
  EXPECT_LT(text.find("| latent n=6 | 6 | 0.3 | 8.95x | 11.19x | 0.0006 |"), text.find("## Python code"));
  EXPECT_GT(text.find("| latent n=6 | 6 | 0.3 | 8.95x | 11.19x | 0.0007 |"), text.find("## Python code"));
}

TEST(RateDistortionTableTest, ACellCannotEndEarly) {
  RateDistortionReport report = SmallReport();
  report.points[0].codec = "a|b *c*";
  EXPECT_THAT(ReportToMarkdown(report).value(), HasSubstr("| a\\|b \\*c\\* |"));
}

TEST(RateDistortionTableTest, SaysWhenControlsDidNotFail) {
  RateDistortionReport report = SmallReport();
  EXPECT_THAT(ReportToMarkdown(report).value(), Not(HasSubstr("Not to be relied on")));
  report.controls[1].mean_kl = 0.001;
  EXPECT_THAT(ReportToMarkdown(report).value(), HasSubstr("**Not to be relied on**: the negative control"));
  report.controls.clear();
  EXPECT_THAT(ReportToMarkdown(report).value(), HasSubstr("**Not to be relied on**: no negative control was run."));
}

}  // namespace
}  // namespace quicksave::metrics
