#include "server/sidecar/metrics/rate_distortion.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/sidecar/metrics/rate_distortion_chart.h"
#include "server/sidecar/metrics/rate_distortion_table.h"

namespace quicksave::metrics {
namespace {

absl::Status Refused(absl::string_view where, absl::string_view field, absl::string_view wrong) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", field, " ", wrong));
}

absl::Status CheckText(absl::string_view where, absl::string_view field, absl::string_view text) {
  if (std::all_of(text.begin(), text.end(), absl::ascii_isprint)) return absl::OkStatus();
  return Refused(where, field, "is not printable ASCII");
}

absl::Status CheckLabel(absl::string_view where, absl::string_view field, absl::string_view text) {
  if (text.empty()) return Refused(where, field, "is empty");
  return CheckText(where, field, text);
}

absl::Status CheckRange(absl::string_view where, absl::string_view field, double value, double most = HUGE_VAL) {
  if (std::isfinite(value) && value >= 0 && value <= most) return absl::OkStatus();
  return Refused(where, field, absl::StrCat("is ", value));
}

absl::Status CheckRatio(absl::string_view where, absl::string_view field, double value) {
  if (value == 0) return Refused(where, field, "is 0");
  return CheckRange(where, field, value);
}

absl::Status FirstError(std::initializer_list<absl::Status> statuses) {
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckPoint(absl::string_view where, const RateDistortionPoint& point) {
  const auto at_least_0 = [where](absl::string_view field, double value) { return CheckRange(where, field, value); };
  const auto count = [&](absl::string_view field, int64_t value) {
    return at_least_0(field, static_cast<double>(value));
  };
  return FirstError({CheckLabel(where, "codec", point.codec), CheckLabel(where, "text_kind", point.text_kind),
                     count("context_tokens", point.context_tokens), count("split_layers", point.split_layers),
                     at_least_0("step", point.step), CheckRatio(where, "effective_ratio", point.effective_ratio),
                     CheckRatio(where, "nominal_ratio", point.nominal_ratio), at_least_0("mean_kl", point.mean_kl),
                     at_least_0("p99_kl", point.p99_kl), CheckRange(where, "top_1_agreement", point.top_1_agreement, 1),
                     CheckRatio(where, "perplexity_ratio", point.perplexity_ratio),
                     at_least_0("bytes_per_token", point.bytes_per_token),
                     at_least_0("encode_mb_per_s", point.encode_mb_per_s),
                     at_least_0("decode_mb_per_s", point.decode_mb_per_s), count("sidecar_bytes", point.sidecar_bytes),
                     count("scored_tokens", point.scored_tokens)});
}

// What of the name of a kind of text can stand in a file's name.
std::string FileNamePart(absl::string_view kind) {
  std::string part = absl::AsciiStrToLower(kind);
  for (char& c : part) c = absl::ascii_isalnum(c) ? c : '_';
  return part;
}

bool HasFile(const std::vector<RateDistortionPanel>& panels, const std::string& name) {
  return std::any_of(panels.begin(), panels.end(),
                     [&](const RateDistortionPanel& panel) { return panel.file_name == name; });
}

std::string NewFileName(const std::vector<RateDistortionPanel>& panels, const RateDistortionPoint& point) {
  const std::string stem = absl::StrCat("rate_distortion_", FileNamePart(point.text_kind), "_", point.context_tokens);
  std::string name = stem + ".svg";
  for (int again = 2; HasFile(panels, name); ++again) name = absl::StrCat(stem, "_", again, ".svg");
  return name;
}

absl::Status WriteFile(const std::filesystem::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("cannot write ", path.string()));
}

}  // namespace

absl::Status CheckReport(const RateDistortionReport& report) {
  if (report.points.empty()) return absl::InvalidArgumentError("the report has no points");
  if (absl::Status status =
          FirstError({CheckText("report", "model", report.model), CheckText("report", "machine", report.machine),
                      CheckText("report", "command", report.command),
                      CheckRange("report", "noise_floor_kl", report.noise_floor_kl.value_or(0))});
      !status.ok()) {
    return status;
  }
  for (const std::string& remark : report.remarks) {
    if (absl::Status status = CheckLabel("report", "remark", remark); !status.ok()) return status;
  }
  for (size_t i = 0; i < report.controls.size(); ++i) {
    const std::string where = absl::StrCat("control ", i);
    const NegativeControl& control = report.controls[i];
    absl::Status status =
        FirstError({CheckLabel(where, "name", control.name), CheckRange(where, "mean_kl", control.mean_kl)});
    if (!status.ok()) return status;
  }
  for (size_t i = 0; i < report.points.size(); ++i) {
    if (absl::Status status = CheckPoint(absl::StrCat("point ", i), report.points[i]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::vector<RateDistortionPanel> PanelsOf(const RateDistortionReport& report) {
  std::vector<RateDistortionPanel> panels;
  for (const RateDistortionPoint& point : report.points) {
    auto panel = std::find_if(panels.begin(), panels.end(), [&](const RateDistortionPanel& other) {
      return other.text_kind == point.text_kind && other.context_tokens == point.context_tokens;
    });
    if (panel == panels.end()) {
      panels.push_back({point.text_kind, point.context_tokens, NewFileName(panels, point), {}});
      panel = panels.end() - 1;
    }
    panel->points.push_back(point);
  }
  return panels;
}

std::vector<std::string> CodecsOf(const RateDistortionReport& report) {
  std::vector<std::string> codecs;
  for (const RateDistortionPoint& point : report.points) {
    if (std::find(codecs.begin(), codecs.end(), point.codec) == codecs.end()) codecs.push_back(point.codec);
  }
  return codecs;
}

absl::Status WriteReport(const RateDistortionReport& report, const std::string& directory) {
  const absl::StatusOr<std::string> json = ReportToJson(report);
  if (!json.ok()) return json.status();
  const absl::StatusOr<std::string> markdown = ReportToMarkdown(report);
  if (!markdown.ok()) return markdown.status();
  const absl::StatusOr<std::vector<Chart>> charts = DrawCharts(report);
  if (!charts.ok()) return charts.status();
  const std::filesystem::path folder(directory);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return absl::UnavailableError(absl::StrCat("cannot make ", directory, ": ", error.message()));
  if (absl::Status status = WriteFile(folder / "rate_distortion.json", *json); !status.ok()) return status;
  if (absl::Status status = WriteFile(folder / "rate_distortion.md", *markdown); !status.ok()) return status;
  for (const Chart& chart : *charts) {
    if (absl::Status status = WriteFile(folder / chart.file_name, chart.svg); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace quicksave::metrics
