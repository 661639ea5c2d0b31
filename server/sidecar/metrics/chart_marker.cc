#include "server/sidecar/metrics/chart_marker.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/types/span.h"

namespace quicksave::metrics {
namespace {

// After Okabe and Ito, "Color Universal Design", without their yellow.
constexpr const char* kColors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                   "#e69f00", "#56b4e9", "#6b4c9a", "#4d4d4d"};
constexpr size_t kColorCount = std::size(kColors);
constexpr size_t kShapeCount = 6;

using Corner = std::pair<double, double>;

std::string Polygon(double x, double y, absl::Span<const Corner> corners) {
  std::string points;
  for (const auto& [dx, dy] : corners) {
    absl::StrAppendFormat(&points, "%s%.1f,%.1f", points.empty() ? "" : " ", x + dx, y + dy);
  }
  return absl::StrCat("<polygon points=\"", points, "\"/>");
}

}  // namespace

const char* CurveColor(size_t i) { return kColors[i % kColorCount]; }

std::string CurveMarker(size_t i, double x, double y) {
  switch ((i % kColorCount + i / kColorCount) % kShapeCount) {
    case 0:
      return absl::StrFormat("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>", x, y);
    case 1:
      return Polygon(x, y, {{-4.5, -4.5}, {4.5, -4.5}, {4.5, 4.5}, {-4.5, 4.5}});
    case 2:
      return Polygon(x, y, {{0, -6}, {5.8, 4.5}, {-5.8, 4.5}});
    case 3:
      return Polygon(x, y, {{0, -6.5}, {6.5, 0}, {0, 6.5}, {-6.5, 0}});
    case 4:
      return Polygon(x, y, {{0, 6}, {5.8, -4.5}, {-5.8, -4.5}});
    default:
      return Polygon(
          x, y,
          {{-2, -6}, {2, -6}, {2, -2}, {6, -2}, {6, 2}, {2, 2}, {2, 6}, {-2, 6}, {-2, 2}, {-6, 2}, {-6, -2}, {-2, -2}});
  }
}

std::string XmlEscaped(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

}  // namespace quicksave::metrics
