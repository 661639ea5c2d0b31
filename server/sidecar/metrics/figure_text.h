// Numbers as reports show them.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_FIGURE_TEXT_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_FIGURE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace quicksave::metrics {

// A number to three significant digits, an integer part in full, without zeros behind the point: "0.0017", "12.5",
// "2,048", "3.2e-7".
std::string ReadableNumber(double value);

// With commas: "1,234,567".
std::string GroupedNumber(int64_t value);

// The text, or where it is longer than `length` (5 at least) its beginning and end around "...", which tells labels
// apart that end in a parameter.
std::string Shortened(absl::string_view text, size_t length);

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_FIGURE_TEXT_H_
