#include "server/sidecar/metrics/rate_distortion_chart.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/sidecar/metrics/chart_marker.h"
#include "server/sidecar/metrics/report_testing.h"
#include "server/sidecar/metrics/xml_testing.h"

namespace quicksave::metrics {
namespace {

using ::testing::Contains;
using ::testing::Not;

using Pixel = std::pair<double, double>;

double Number(absl::string_view text) {
  double number = NAN;
  EXPECT_TRUE(absl::SimpleAtod(text, &number)) << text;
  return number;
}

// The charts of a report as trees. Charts that are no XML end the test.
std::vector<XmlElement> Drawn(const RateDistortionReport& report) {
  std::vector<XmlElement> drawn;
  const std::vector<Chart> charts = DrawCharts(report).value();
  for (const Chart& chart : charts) drawn.push_back(ParseXml(chart.svg).value());
  return drawn;
}

std::vector<const XmlElement*> OfClass(const XmlElement& svg, const std::string& element, const std::string& name) {
  std::vector<const XmlElement*> found = svg.All(element);
  std::erase_if(found, [&](const XmlElement* each) { return each->Attribute("class") != name; });
  return found;
}

// The group of a codec's curve.
const XmlElement& CurveOf(const XmlElement& svg, const std::string& codec) {
  for (const XmlElement* curve : OfClass(svg, "g", "curve")) {
    if (curve->children[0].text == codec) return *curve;
  }
  ADD_FAILURE() << "no curve of " << codec;
  return svg;
}

std::vector<Pixel> PointsOf(const XmlElement& svg, const std::string& codec) {
  std::vector<Pixel> points;
  for (const absl::string_view pair :
       absl::StrSplit(CurveOf(svg, codec).All("polyline").at(0)->Attribute("points"), ' ')) {
    const std::vector<absl::string_view> numbers = absl::StrSplit(pair, ',');
    points.emplace_back(Number(numbers.at(0)), Number(numbers.at(1)));
  }
  return points;
}

std::vector<std::string> Texts(const XmlElement& svg) {
  std::vector<std::string> texts;
  for (const XmlElement* text : svg.All("text")) texts.push_back(text->text);
  return texts;
}

TEST(XmlTest, RefusesWhatIsNotWellFormed) {
  EXPECT_TRUE(ParseXml("<a b=\"&lt;\"><c/>d&amp;</a>\n").ok());
  for (const char* bad : {"", "<a>", "<a></b>", "<a b=c/>", "<a b=\"1\" b=\"2\"/>", "<a>&</a>", "<a><</a>", "<a/><a/>",
                          "<a b=\"<\"/>", "<a b=\"1/>"}) {
    EXPECT_FALSE(ParseXml(bad).ok()) << bad;
  }
}

TEST(RateDistortionChartTest, EachCodecOfAPanelHasALineThroughItsPointsAndALegend) {
  const std::vector<XmlElement> charts = Drawn(SmallReport());
  ASSERT_EQ(charts.size(), 2u);
  const XmlElement& prose = charts[0];
  EXPECT_EQ(OfClass(prose, "g", "curve").size(), 3u);
  EXPECT_EQ(OfClass(prose, "g", "legend").size(), 3u);
  EXPECT_EQ(PointsOf(prose, "exact").size(), 1u);
  EXPECT_EQ(PointsOf(prose, "q8_0 <8.5 bits> & \"scale\"").size(), 1u);
  EXPECT_EQ(PointsOf(prose, "latent n=6").size(), 3u);
  EXPECT_EQ(CurveOf(prose, "latent n=6").All("g").size(), 3u) << "markers";
  EXPECT_EQ(OfClass(charts[1], "g", "curve").size(), 1u);
  EXPECT_EQ(PointsOf(charts[1], "latent n=6").size(), 1u);
}

TEST(RateDistortionChartTest, PointsGoRightByRatioAndUpByDivergence) {
  const XmlElement chart = Drawn(SmallReport())[0];
  const std::vector<Pixel> points = PointsOf(chart, "latent n=6");
  for (size_t i = 1; i < points.size(); ++i) {
    EXPECT_GT(points[i].first, points[i - 1].first);
    EXPECT_LT(points[i].second, points[i - 1].second);
  }
}

TEST(RateDistortionChartTest, EqualFactorsAreEqualDistances) {
  RateDistortionReport report = SmallReport();
  report.points = {PointOf("a", 2, 0.001), PointOf("a", 8, 0.01), PointOf("a", 32, 0.1)};
  const std::vector<Pixel> points = PointsOf(Drawn(report)[0], "a");
  // Pixels have one decimal.
  EXPECT_NEAR(points[1].first - points[0].first, points[2].first - points[1].first, 0.15);
  EXPECT_NEAR(points[1].second - points[0].second, points[2].second - points[1].second, 0.15);
}

TEST(RateDistortionChartTest, TicksStandWhereTheirNumbersAre) {
  RateDistortionReport report = SmallReport();
  report.points = {PointOf("a", 2, 0.001), PointOf("a", 10, 0.1)};
  const XmlElement chart = Drawn(report)[0];
  const std::vector<Pixel> points = PointsOf(chart, "a");
  const auto expect_at = [&](const char* label, const char* attribute, double pixel) {
    const std::vector<const XmlElement*> texts = chart.All("text");
    const auto found = std::find_if(texts.begin(), texts.end(), [&](const auto* text) { return text->text == label; });
    ASSERT_NE(found, texts.end()) << label;
    EXPECT_NEAR(Number((*found)->Attribute(attribute)), pixel, 0.15) << label;  // pixels have one decimal
  };
  expect_at("2×", "x", points[0].first);
  expect_at("10×", "x", points[1].first);
  // A text's base line is a little below its tick.
  expect_at("0.001", "y", points[0].second + 4.5);
  expect_at("0.1", "y", points[1].second + 4.5);
}

TEST(RateDistortionChartTest, NoiseFloorIsALineAtItsDivergence) {
  RateDistortionReport report = SmallReport();
  report.points[2].mean_kl = *report.noise_floor_kl;
  const XmlElement chart = Drawn(report)[0];
  const auto lines = OfClass(chart, "line", "noise-floor");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]->Attribute("y1"), lines[0]->Attribute("y2"));
  EXPECT_NEAR(Number(lines[0]->Attribute("y1")), PointsOf(chart, "latent n=6")[1].second, 0.01);
  EXPECT_THAT(Texts(chart), Contains("noise floor 0.0017"));
  report.noise_floor_kl.reset();
  EXPECT_TRUE(OfClass(Drawn(report)[0], "line", "noise-floor").empty());
  report.noise_floor_kl = 0;
  EXPECT_TRUE(OfClass(Drawn(report)[0], "line", "noise-floor").empty());
}

TEST(RateDistortionChartTest, NoDivergenceIsBelowAllOthers) {
  const XmlElement chart = Drawn(SmallReport())[0];
  const double zero = PointsOf(chart, "exact")[0].second;
  EXPECT_GT(zero, PointsOf(chart, "q8_0 <8.5 bits> & \"scale\"")[0].second + 10);
  EXPECT_THAT(Texts(chart), Contains("0"));
  EXPECT_THAT(Texts(Drawn(SmallReport())[1]), Not(Contains("0")));
}

TEST(RateDistortionChartTest, ACodecHasOneColourInAllCharts) {
  const std::vector<XmlElement> charts = Drawn(SmallReport());
  const std::string color = CurveOf(charts[0], "latent n=6").Attribute("fill");
  EXPECT_EQ(CurveOf(charts[1], "latent n=6").Attribute("fill"), color);
  EXPECT_NE(CurveOf(charts[0], "exact").Attribute("fill"), color);
}

TEST(RateDistortionChartTest, AxesAndTitleSayWhatTheyAre) {
  EXPECT_THAT(Texts(Drawn(SmallReport())[0]),
              ::testing::IsSupersetOf({"Rate and distortion: prose, 2,048 tokens of context",
                                       "SmolLM2-135M-Instruct, 1,024 scored tokens for each point",
                                       "mean KL of the next token (nats)",
                                       "effective ratio: raw bf16 K and V over everything stored"}));
}

TEST(RateDistortionChartTest, WhateverTheFiguresEverythingIsInside) {
  for (const auto& [ratio, kl] : {Pixel{1e-3, 1e-300}, {1, 0}, {1, 1e-16}, {1e6, 30}, {7, 0.5}}) {
    RateDistortionReport report = SmallReport();
    report.points = {PointOf("a", 1.5, 0.002), PointOf("a", ratio, kl)};
    const XmlElement chart = Drawn(report)[0];
    for (const auto& [x, y] : PointsOf(chart, "a")) {
      EXPECT_TRUE(x > 80 && x < 680 && y > 78 && y < 524) << ratio << ", " << kl << " at " << x << ", " << y;
    }
    size_t ratio_labels = 0;
    size_t end_labels = 0;
    for (const XmlElement* text : chart.All("text")) {
      ratio_labels += text->text.ends_with("×") ? 1 : 0;
      end_labels += text->Attribute("text-anchor") == "end" ? 1 : 0;
    }
    EXPECT_TRUE(ratio_labels >= 2 && ratio_labels <= 10) << ratio << ": " << ratio_labels;
    // With "better", and "0".
    EXPECT_TRUE(end_labels >= 3 && end_labels <= 13) << kl << ": " << end_labels;
  }
}

TEST(RateDistortionChartTest, TheSameReportIsTheSameBytes) {
  const std::vector<Chart> once = DrawCharts(SmallReport()).value();
  const std::vector<Chart> again = DrawCharts(ReportFromJson(ReportToJson(SmallReport()).value()).value()).value();
  ASSERT_EQ(once.size(), again.size());
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(once[i].svg, again[i].svg);
}

TEST(RateDistortionChartTest, AllCodecsFitOrAreRefused) {
  RateDistortionReport report = SmallReport();
  report.points.clear();
  for (size_t i = 0; i < kMostCodecs; ++i) report.points.push_back(PointOf(absl::StrCat("codec ", i), 2 + i, 0.01));
  const XmlElement chart = Drawn(report)[0];
  EXPECT_EQ(OfClass(chart, "g", "legend").size(), kMostCodecs);
  for (const XmlElement* text : chart.All("text")) {
    const std::string y = text->Attribute("y");
    EXPECT_LT(y.empty() ? 0 : Number(y), 590) << text->text;
  }
  report.points.push_back(PointOf("one more", 2, 0.01));
  EXPECT_EQ(DrawCharts(report).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CurveMarkerTest, TheFirst48DifferInColourOrShape) {
  std::set<std::string> styles;
  for (size_t i = 0; i < 48; ++i) styles.insert(CurveColor(i) + CurveMarker(i, 0, 0));
  EXPECT_EQ(styles.size(), 48u);
}

}  // namespace
}  // namespace quicksave::metrics
