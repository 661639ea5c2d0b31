#include "server/sidecar/metrics/rate_distortion_chart.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/sidecar/metrics/chart_marker.h"
#include "server/sidecar/metrics/figure_text.h"
#include "server/sidecar/metrics/log_axis.h"

namespace quicksave::metrics {
namespace {

// Pixels of the chart, and of the area that the curves are in.
constexpr int kWidth = 900;
constexpr int kHeight = 600;
constexpr double kLeft = 80;
constexpr double kRight = 680;
constexpr double kTop = 78;
constexpr double kBottom = 524;
constexpr double kLegend = 704;
// Height of the strip at the bottom for points of KL 0.
constexpr double kZeroStrip = 40;
// Characters that fit.
constexpr size_t kTitleLength = 70;
constexpr size_t kSubtitleLength = 64;
constexpr size_t kLegendLength = 19;

constexpr char kInk[] = "#222222";
constexpr char kFaintInk[] = "#666666";
constexpr char kGrid[] = "#e4e4e4";
constexpr char kFloorColor[] = "#b3261e";
constexpr char kFloorGround[] = "#f4f6f7";

// Indexed by the codec's place in the whole report, so that all charts agree; codecs that have no point here are empty.
using Curves = std::vector<std::vector<RateDistortionPoint>>;

Curves CurvesOf(const RateDistortionPanel& panel, const std::vector<std::string>& codecs) {
  Curves curves(codecs.size());
  for (const RateDistortionPoint& point : panel.points) {
    curves[std::find(codecs.begin(), codecs.end(), point.codec) - codecs.begin()].push_back(point);
  }
  const auto smaller = [](const RateDistortionPoint& a, const RateDistortionPoint& b) {
    return a.effective_ratio < b.effective_ratio;
  };
  for (auto& curve : curves) std::stable_sort(curve.begin(), curve.end(), smaller);
  return curves;
}

bool HasZero(const RateDistortionPanel& panel) {
  return std::any_of(panel.points.begin(), panel.points.end(), [](const auto& point) { return point.mean_kl == 0; });
}

LogAxis RatioAxis(const RateDistortionPanel& panel) {
  const auto [low, high] =
      std::minmax_element(panel.points.begin(), panel.points.end(),
                          [](const auto& a, const auto& b) { return a.effective_ratio < b.effective_ratio; });
  return LogAxis(low->effective_ratio, high->effective_ratio, kLeft, kRight);
}

LogAxis DivergenceAxis(const RateDistortionPanel& panel, std::optional<double> noise_floor, double bottom) {
  std::vector<double> values;
  for (const RateDistortionPoint& point : panel.points) values.push_back(point.mean_kl);
  values.push_back(noise_floor.value_or(0));
  std::erase(values, 0.0);
  if (values.empty()) values = {1e-4, 1};
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return LogAxis(*low, *high, bottom, kTop);
}

// Decimals where they are short, powers of 10 below.
std::string DivergenceLabel(double value) {
  static constexpr const char* kSuperscripts[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  if (value >= 0.0001) return ReadableNumber(value);
  const int exponent = static_cast<int>(std::floor(std::log10(value) + 1e-9));
  const int digit = static_cast<int>(std::lround(value / std::pow(10.0, exponent)));
  std::string label = digit == 1 ? "10⁻" : absl::StrCat(digit, "·10⁻");
  for (const char c : absl::StrCat(-exponent)) label += kSuperscripts[c - '0'];
  return label;
}

struct TextStyle {
  int size = 13;
  const char* color = kInk;
  const char* anchor = "start";
  bool bold = false;
};

// Draws one panel. Elements come in the order of painting: what is drawn later covers what was before.
class ChartPainter {
 public:
  ChartPainter(const RateDistortionPanel& panel, std::optional<double> noise_floor)
      : panel_(panel),
        noise_floor_(noise_floor.value_or(0) > 0 ? noise_floor : std::nullopt),
        has_zero_(HasZero(panel)),
        scale_bottom_(has_zero_ ? kBottom - kZeroStrip : kBottom),
        ratio_(RatioAxis(panel)),
        divergence_(DivergenceAxis(panel, noise_floor, scale_bottom_)) {}

  std::string Paint(const std::string& model, const std::vector<std::string>& codecs) {
    const Curves curves = CurvesOf(panel_, codecs);
    Begin();
    Titles(model);
    NoiseGround();
    RatioGrid();
    DivergenceGrid();
    AxisNames();
    NoiseFloor();
    for (size_t i = 0; i < curves.size(); ++i) {
      if (!curves[i].empty()) Curve(i, codecs[i], curves[i]);
    }
    Legend(codecs, curves);
    svg_ += "</svg>\n";
    return std::move(svg_);
  }

 private:
  void Begin() {
    absl::StrAppendFormat(&svg_,
                          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                          "font-family=\"'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif\" "
                          "role=\"img\">\n<title>%s</title>\n",
                          kWidth, kHeight, kWidth, kHeight, XmlEscaped(Title()));
    absl::StrAppendFormat(&svg_, "<rect width=\"%d\" height=\"%d\" fill=\"#ffffff\"/>\n", kWidth, kHeight);
  }

  std::string Title() const {
    return absl::StrCat("Rate and distortion: ", panel_.text_kind, ", ", GroupedNumber(panel_.context_tokens),
                        " tokens of context");
  }

  void Titles(const std::string& model) {
    Text(kLeft, 34, Shortened(Title(), kTitleLength), {.size = 19, .bold = true});
    const auto [least, most] =
        std::minmax_element(panel_.points.begin(), panel_.points.end(),
                            [](const auto& a, const auto& b) { return a.scored_tokens < b.scored_tokens; });
    std::string scored = GroupedNumber(least->scored_tokens);
    if (most->scored_tokens > least->scored_tokens)
      absl::StrAppend(&scored, " to ", GroupedNumber(most->scored_tokens));
    const std::string subtitle =
        absl::StrCat(model, model.empty() ? "" : ", ", scored, " scored tokens for each point");
    Text(kLeft, 57, Shortened(subtitle, kSubtitleLength), {.color = kFaintInk});
  }

  void RatioGrid() {
    for (const Tick& tick : ratio_.Ticks()) {
      const double x = ratio_.Position(tick.value);
      if (tick.labelled) {
        Line({x, kTop, x, kBottom}, kGrid);
        Text(x, kBottom + 23, ReadableNumber(tick.value) + "×", {.anchor = "middle"});
      }
      Line({x, kBottom, x, kBottom + (tick.labelled ? 6 : 3)}, kInk);
    }
    Line({kLeft, kBottom, kRight, kBottom}, kInk);
  }

  void DivergenceGrid() {
    for (const Tick& tick : divergence_.Ticks()) {
      const double y = divergence_.Position(tick.value);
      if (tick.labelled) {
        Line({kLeft, y, kRight, y}, kGrid);
        Text(kLeft - 10, y + 4.5, DivergenceLabel(tick.value), {.anchor = "end"});
      }
      Line({kLeft - (tick.labelled ? 6 : 3), y, kLeft, y}, kInk);
    }
    Line({kLeft, kTop, kLeft, scale_bottom_}, kInk);
    if (has_zero_) ZeroStrip();
  }

  // The axis is broken: a logarithm never gets to 0.
  void ZeroStrip() {
    Line({kLeft, scale_bottom_ + 8, kLeft, kBottom}, kInk);
    for (const double y : {scale_bottom_, scale_bottom_ + 8}) Line({kLeft - 6, y + 3, kLeft + 6, y - 3}, kInk);
    Line({kLeft, ZeroPosition(), kRight, ZeroPosition()}, kGrid);
    Line({kLeft - 6, ZeroPosition(), kLeft, ZeroPosition()}, kInk);
    Text(kLeft - 10, ZeroPosition() + 4.5, "0", {.anchor = "end"});
  }

  void AxisNames() {
    Text((kLeft + kRight) / 2, kBottom + 54, "effective ratio: raw bf16 K and V over everything stored",
         {.size = 14, .anchor = "middle"});
    const double middle = (kTop + kBottom) / 2;
    absl::StrAppendFormat(&svg_,
                          "<text transform=\"translate(20 %.1f) rotate(-90)\" font-size=\"14\" fill=\"%s\" "
                          "text-anchor=\"middle\">mean KL of the next token (nats)</text>\n",
                          middle, kInk);
    Text(kRight, kTop - 8, "better: right and down", {.size = 12, .color = kFaintInk, .anchor = "end"});
  }

  // Where a codec cannot be told from none.
  void NoiseGround() {
    if (!noise_floor_.has_value()) return;
    const double y = divergence_.Position(*noise_floor_);
    absl::StrAppendFormat(&svg_, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", kLeft, y,
                          kRight - kLeft, kBottom - y, kFloorGround);
  }

  void NoiseFloor() {
    if (!noise_floor_.has_value()) return;
    const double y = divergence_.Position(*noise_floor_);
    absl::StrAppendFormat(&svg_,
                          "<line class=\"noise-floor\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                          "stroke-width=\"1.5\" stroke-dasharray=\"7 4\"/>\n",
                          kLeft, y, kRight, y, kFloorColor);
  }

  void Curve(size_t i, const std::string& codec, const std::vector<RateDistortionPoint>& curve) {
    std::string points;
    std::string markers;
    for (const RateDistortionPoint& point : curve) {
      const double x = ratio_.Position(point.effective_ratio);
      const double y = DivergencePosition(point.mean_kl);
      absl::StrAppendFormat(&points, "%s%.1f,%.1f", points.empty() ? "" : " ", x, y);
      absl::StrAppend(&markers, "<g><title>", XmlEscaped(PointText(point)), "</title>", CurveMarker(i, x, y), "</g>\n");
    }
    absl::StrAppendFormat(&svg_,
                          "<g class=\"curve\" fill=\"%s\" stroke=\"#ffffff\" stroke-width=\"1\">\n<title>%s</title>\n"
                          "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2.2\" "
                          "stroke-linejoin=\"round\"/>\n%s</g>\n",
                          CurveColor(i), XmlEscaped(codec), points, CurveColor(i), markers);
  }

  // What a viewer shows when the pointer rests on a marker.
  static std::string PointText(const RateDistortionPoint& point) {
    return absl::StrFormat("%s, n %d, step %s: %.2f×, KL %s, p99 %s, top-1 %.1f%%", point.codec, point.split_layers,
                           ReadableNumber(point.step), point.effective_ratio, ReadableNumber(point.mean_kl),
                           ReadableNumber(point.p99_kl), 100 * point.top_1_agreement);
  }

  void Legend(const std::vector<std::string>& codecs, const Curves& curves) {
    double y = kTop + 6;
    Text(kLegend, y, "codec", {.size = 13, .bold = true});
    for (size_t i = 0; i < curves.size(); ++i) {
      if (curves[i].empty()) continue;
      y += LegendPitch(curves);
      absl::StrAppendFormat(&svg_,
                            "<g class=\"legend\" fill=\"%s\" stroke=\"#ffffff\" stroke-width=\"1\"><title>%s</title>"
                            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                            "stroke-width=\"2.2\"/>%s</g>\n",
                            CurveColor(i), XmlEscaped(codecs[i]), kLegend, y - 4.5, kLegend + 28, y - 4.5,
                            CurveColor(i), CurveMarker(i, kLegend + 14, y - 4.5));
      Text(kLegend + 37, y, Shortened(codecs[i], kLegendLength), {});
    }
    if (!noise_floor_.has_value()) return;
    y += 26;
    absl::StrAppendFormat(&svg_,
                          "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"1.5\" "
                          "stroke-dasharray=\"7 4\"/>\n",
                          kLegend, y - 4.5, kLegend + 28, y - 4.5, kFloorColor);
    Text(kLegend + 37, y, "noise floor " + ReadableNumber(*noise_floor_), {.color = kFloorColor});
  }

  static double LegendPitch(const Curves& curves) {
    const auto shown = std::count_if(curves.begin(), curves.end(), [](const auto& curve) { return !curve.empty(); });
    return std::min(23.0, (kBottom - kTop - 40) / static_cast<double>(shown));
  }

  double ZeroPosition() const { return kBottom - 14; }

  double DivergencePosition(double kl) const { return kl == 0 ? ZeroPosition() : divergence_.Position(kl); }

  struct Ends {
    double x1, y1, x2, y2;
  };
  void Line(const Ends& ends, const char* color) {
    absl::StrAppendFormat(&svg_, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", ends.x1,
                          ends.y1, ends.x2, ends.y2, color);
  }

  void Text(double x, double y, const std::string& text, const TextStyle& style) {
    absl::StrAppendFormat(
        &svg_, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" fill=\"%s\" text-anchor=\"%s\"%s>%s</text>\n", x, y,
        style.size, style.color, style.anchor, style.bold ? " font-weight=\"bold\"" : "", XmlEscaped(text));
  }

  const RateDistortionPanel& panel_;
  std::optional<double> noise_floor_;  // none where it is 0: nothing to draw
  bool has_zero_;
  double scale_bottom_;
  LogAxis ratio_;
  LogAxis divergence_;
  std::string svg_;
};

}  // namespace

absl::StatusOr<std::vector<Chart>> DrawCharts(const RateDistortionReport& report) {
  if (absl::Status status = CheckReport(report); !status.ok()) return status;
  const std::vector<std::string> codecs = CodecsOf(report);
  if (codecs.size() > kMostCodecs) {
    return absl::InvalidArgumentError(absl::StrCat("a chart has room for ", kMostCodecs, " codecs, but the report has ",
                                                   codecs.size(), ": make several reports"));
  }
  std::vector<Chart> charts;
  for (const RateDistortionPanel& panel : PanelsOf(report)) {
    charts.push_back({panel.file_name, ChartPainter(panel, report.noise_floor_kl).Paint(report.model, codecs)});
  }
  return charts;
}

}  // namespace quicksave::metrics
