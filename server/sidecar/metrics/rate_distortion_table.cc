#include "server/sidecar/metrics/rate_distortion_table.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "server/sidecar/metrics/figure_text.h"

namespace quicksave::metrics {
namespace {

// Text that Markdown shows as it is.
std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"\\", "\\\\"}, {"|", "\\|"}, {"<", "&lt;"}, {"*", "\\*"}, {"_", "\\_"}, {"`", "\\`"}, {"[", "\\["}});
}

std::string Line(const std::vector<std::string>& cells) {
  return absl::StrCat("| ", absl::StrJoin(cells, " | "), " |\n");
}

std::string IfMeasured(double value) { return value == 0 ? "-" : ReadableNumber(value); }

std::string PointLine(const RateDistortionPoint& point) {
  return Line({Escaped(point.codec), GroupedNumber(point.split_layers), IfMeasured(point.step),
               absl::StrFormat("%.2fx", point.effective_ratio), absl::StrFormat("%.2fx", point.nominal_ratio),
               ReadableNumber(point.mean_kl), ReadableNumber(point.p99_kl),
               absl::StrFormat("%.1f%%", 100 * point.top_1_agreement), absl::StrFormat("%.4f", point.perplexity_ratio),
               ReadableNumber(point.bytes_per_token), IfMeasured(point.encode_mb_per_s),
               IfMeasured(point.decode_mb_per_s), GroupedNumber(point.sidecar_bytes),
               GroupedNumber(point.scored_tokens)});
}

std::string PanelSection(const RateDistortionPanel& panel) {
  const std::string title =
      absl::StrCat(Escaped(panel.text_kind), ", ", GroupedNumber(panel.context_tokens), " tokens of context");
  std::string section = absl::StrCat("\n## ", title, "\n\n![Effective ratio and mean KL](", panel.file_name, ")\n\n");
  section += Line({"codec", "n", "step", "effective", "nominal", "mean KL", "p99 KL", "top-1", "perplexity ratio",
                   "bytes/token", "encode MB/s", "decode MB/s", "sidecar bytes", "scored tokens"});
  section += "|---|";
  for (int column = 1; column < 14; ++column) section += "---:|";
  section += "\n";
  for (const RateDistortionPoint& point : panel.points) section += PointLine(point);
  return section;
}

}  // namespace

absl::StatusOr<std::string> ReportToMarkdown(const RateDistortionReport& report) {
  if (absl::Status status = CheckReport(report); !status.ok()) return status;
  std::string text = "# Rate and distortion\n\n";
  absl::StrAppend(&text, "- Model: ", Escaped(report.model), "\n- Machine: ", Escaped(report.machine),
                  "\n- Command: ", Escaped(report.command), "\n");
  if (report.noise_floor_kl.has_value()) {
    absl::StrAppend(&text, "- Noise floor: mean KL ", ReadableNumber(*report.noise_floor_kl),
                    " of the live state under other arithmetic\n");
  }
  for (const NegativeControl& control : report.controls) {
    absl::StrAppend(&text, "- Negative control: ", Escaped(control.name), ", mean KL ", ReadableNumber(control.mean_kl),
                    "\n");
  }
  for (const std::string& remark : report.remarks) absl::StrAppend(&text, "- ", Escaped(remark), "\n");
  if (const absl::Status status = CheckNegativeControls(report.controls); !status.ok()) {
    absl::StrAppend(&text, "\n**Not to be relied on**: ", Escaped(status.message()), ".\n");
  }
  absl::StrAppend(&text,
                  "\nRatios are raw bf16 K and V over what is stored: effective counts everything but the sidecar, ",
                  "nominal the coded symbols alone. KL in nats.\n");
  for (const RateDistortionPanel& panel : PanelsOf(report)) text += PanelSection(panel);
  return text;
}

}  // namespace quicksave::metrics
