#include "server/sidecar/metrics/rate_distortion.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/sidecar/metrics/rate_distortion_chart.h"
#include "server/sidecar/metrics/rate_distortion_table.h"
#include "server/sidecar/metrics/report_testing.h"

namespace quicksave::metrics {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Content(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void ExpectRefused(const absl::Status& status, const std::string& message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(RateDistortionJsonTest, EveryFigureComesBackAsItWas) {
  RateDistortionReport report = SmallReport();
  report.remarks = {"one", "\"two\""};
  report.points[1].effective_ratio = std::nextafter(1.88, 2);
  report.points[1].mean_kl = std::numeric_limits<double>::denorm_min();
  report.points[1].sidecar_bytes = std::numeric_limits<int64_t>::max();
  for (const bool whole : {true, false}) {
    if (!whole) {
      report.noise_floor_kl.reset();
      report.controls.clear();
      report.remarks.clear();
    }
    const std::string json = ReportToJson(report).value();
    const absl::StatusOr<RateDistortionReport> read = ReportFromJson(json);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, report);
    EXPECT_EQ(ReportToJson(*read).value(), json);
  }
}

TEST(RateDistortionJsonTest, AnIntegerIsANumberToo) {
  const std::string json = ReportToJson(SmallReport()).value();
  const std::string edited = absl::StrReplaceAll(json, {{"\"encode_mb_per_s\": 405.5", "\"encode_mb_per_s\": 405"}});
  ASSERT_NE(edited, json);
  EXPECT_EQ(ReportFromJson(edited)->points[0].encode_mb_per_s, 405);
}

TEST(RateDistortionJsonTest, SaysWhatIsWrong) {
  const std::string json = ReportToJson(SmallReport()).value();
  const struct {
    const char* from;
    const char* to;
    const char* message;
  } cases[] = {
      {"\"version\": 1", "\"version\": 2", "report: version is not one that this program reads"},
      {"\"version\": 1", "\"version\": null", "report: version is not an integer"},
      {"\"model\"", "\"modell\"", "report: model is missing"},
      {"\"points\"", "\"point\"", "report: points is missing"},
      {"\"controls\": [", "\"controls\": 3, \"old\": [", "report: controls is not an array"},
      {"\"points\": [", "\"points\": [7, ", "point 0: codec cannot be read: not an object"},
      {"\"codec\": \"exact\"", "\"codec\": 5", "point 0: codec is not a string"},
      {"\"step\": 0.30000000000000004", "\"step\": \"0.3\"", "point 0: step is not a number"},
      {"\"scored_tokens\": 1024", "\"scored_tokens\": 1024.5", "point 0: scored_tokens is not an integer"},
      {"\"scored_tokens\": 1024", "\"scored_tokens\": 9223372036854775808", "point 0: scored_tokens is not an integer"},
      {"\"mean_kl\": 0.84", "\"mean_kl\": -1", "control 1: mean_kl is -1"},
      {"\"noise_floor_kl\": 0.0017", "\"noise_floor_kl\": []", "report: noise_floor_kl is not a number"},
      {"\"controls\"", "\"remarks\": 1, \"controls\"", "report: remarks is not an array"},
      {"\"controls\"", "\"remarks\": [\"a\", 1], \"controls\"", "report: remarks are not all strings"},
  };
  for (const auto& [from, to, message] : cases) {
    const std::string edited = absl::StrReplaceAll(json, {{from, to}});
    ASSERT_NE(edited, json) << from;
    ExpectRefused(ReportFromJson(edited).status(), message);
  }
  ExpectRefused(ReportFromJson("").status(), "not JSON");
  ExpectRefused(ReportFromJson(json.substr(0, json.size() / 2)).status(), "not JSON");
  ExpectRefused(ReportFromJson("[1]").status(), "not an object");
}

TEST(RateDistortionReportTest, NoWriterTakesNonsense) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<const char*, std::function<void(RateDistortionReport&)>> cases[] = {
      {"no points", [](auto& report) { report.points.clear(); }},
      {"report: machine is not printable", [](auto& report) { report.machine = "a\nb"; }},
      {"report: noise_floor_kl is nan", [&](auto& report) { report.noise_floor_kl = nan; }},
      {"report: remark is not printable",
       [](auto& report) {
         report.remarks = {"fine", "a\tb"};
       }},
      {"control 0: name is empty", [](auto& report) { report.controls[0].name.clear(); }},
      {"point 2: codec is empty", [](auto& report) { report.points[2].codec.clear(); }},
      {"point 2: text_kind is not printable", [](auto& report) { report.points[2].text_kind = "caf\xc3\xa9"; }},
      {"point 1: effective_ratio is 0", [](auto& report) { report.points[1].effective_ratio = 0; }},
      {"point 1: nominal_ratio is inf", [](auto& report) { report.points[1].nominal_ratio = HUGE_VAL; }},
      {"point 1: mean_kl is -", [](auto& report) { report.points[1].mean_kl = -1e-9; }},
      {"point 1: p99_kl is nan", [&](auto& report) { report.points[1].p99_kl = nan; }},
      {"point 1: top_1_agreement is 98.4", [](auto& report) { report.points[1].top_1_agreement = 98.4; }},
      {"point 1: perplexity_ratio is inf", [](auto& report) { report.points[1].perplexity_ratio = HUGE_VAL; }},
      {"point 1: step is -1", [](auto& report) { report.points[1].step = -1; }},
      {"point 1: scored_tokens is -1", [](auto& report) { report.points[1].scored_tokens = -1; }},
  };
  for (const auto& [message, spoil] : cases) {
    RateDistortionReport report = SmallReport();
    spoil(report);
    ExpectRefused(CheckReport(report), message);
    ExpectRefused(ReportToJson(report).status(), message);
    ExpectRefused(ReportToMarkdown(report).status(), message);
    ExpectRefused(DrawCharts(report).status(), message);
  }
}

TEST(RateDistortionReportTest, PanelsAndCodecsAreInOrderOfAppearance) {
  RateDistortionReport report = SmallReport();
  report.points.push_back(report.points[0]);
  report.points.back().text_kind = "python-code";
  report.points.push_back(report.points.back());
  report.points.back().text_kind = "Python code";
  report.points.back().context_tokens = 512;
  const std::vector<RateDistortionPanel> panels = PanelsOf(report);
  ASSERT_EQ(panels.size(), 4u);
  EXPECT_EQ(panels[0].file_name, "rate_distortion_prose_2048.svg");
  EXPECT_EQ(panels[0].points.size(), 5u);
  EXPECT_EQ(panels[1].file_name, "rate_distortion_python_code_2048.svg");
  EXPECT_EQ(panels[1].text_kind, "Python code");
  EXPECT_EQ(panels[2].file_name, "rate_distortion_python_code_2048_2.svg");
  EXPECT_EQ(panels[3].file_name, "rate_distortion_python_code_512.svg");
  EXPECT_THAT(CodecsOf(report), ElementsAre("exact", "q8_0 <8.5 bits> & \"scale\"", "latent n=6"));
}

class WriteReportTest : public ::testing::Test {
 protected:
  WriteReportTest() { std::filesystem::remove_all(folder_); }
  ~WriteReportTest() override { std::filesystem::remove_all(folder_); }

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) /
      ("quicksave_report_" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + "_" +
       std::to_string(reinterpret_cast<uintptr_t>(this)));
};

TEST_F(WriteReportTest, WritesAllFilesIntoANewFolder) {
  const RateDistortionReport report = SmallReport();
  const absl::Status status = WriteReport(report, (folder_ / "inner").string());
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(ReportFromJson(Content(folder_ / "inner" / "rate_distortion.json")).value(), report);
  EXPECT_EQ(Content(folder_ / "inner" / "rate_distortion.md"), ReportToMarkdown(report).value());
  const std::vector<Chart> charts = DrawCharts(report).value();
  for (const Chart& chart : charts) {
    EXPECT_EQ(Content(folder_ / "inner" / chart.file_name), chart.svg);
  }
}

TEST_F(WriteReportTest, SaysWhatCannotBeWritten) {
  std::filesystem::create_directories(folder_ / "rate_distortion.md");
  const absl::Status status = WriteReport(SmallReport(), folder_.string());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr((folder_ / "rate_distortion.md").string()));
  const std::string below_a_file = (folder_ / "rate_distortion.json" / "folder").string();
  EXPECT_EQ(WriteReport(SmallReport(), below_a_file).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace quicksave::metrics
