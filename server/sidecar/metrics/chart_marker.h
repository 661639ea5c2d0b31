// The colour and the shape that tell one curve of a chart from another, and SVG's own needs.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_CHART_MARKER_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_CHART_MARKER_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace quicksave::metrics {

// The colour of the i-th curve, "#rrggbb": eight that people with any colour vision tell apart, all dark enough for a
// white ground; then from the beginning.
const char* CurveColor(size_t i);

// The SVG element of the i-th curve's marker around a pixel. Six shapes, which go round so that the first 48 curves
// differ in colour or in shape.
std::string CurveMarker(size_t i, double x, double y);

// Text as XML holds it, in elements and in attributes.
std::string XmlEscaped(absl::string_view text);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_CHART_MARKER_H_
