#include "server/sidecar/metrics/figure_text.h"

#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quicksave::metrics {
namespace {

std::string WithoutTrailingZeros(std::string number) {
  if (number.find('.') == std::string::npos) return number;
  number.erase(number.find_last_not_of('0') + 1);
  if (number.back() == '.') number.pop_back();
  return number;
}

}  // namespace

std::string ReadableNumber(double value) {
  const double size = std::abs(value);
  if (size == 0) return "0";
  // From 999.5 on not all digits of the integer are among the three, but people want to read them.
  if (size >= 999.5 && size < 1e15) return GroupedNumber(std::llround(value));
  const std::string text = absl::StrFormat("%.2e", value);
  const size_t e = text.find('e');
  const int exponent = static_cast<int>(std::strtol(text.c_str() + e + 1, nullptr, 10));
  const bool as_decimal = exponent >= -4 && exponent < 3;
  if (as_decimal) return WithoutTrailingZeros(absl::StrFormat("%.*f", 2 - exponent, value));
  return absl::StrCat(WithoutTrailingZeros(text.substr(0, e)), "e", exponent);
}

std::string GroupedNumber(int64_t value) {
  const std::string digits = absl::StrCat(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    const bool group_begins = (digits.size() - i) % 3 == 0 && i > (value < 0 ? 1u : 0u);
    if (group_begins) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

std::string Shortened(absl::string_view text, size_t length) {
  if (text.size() <= length) return std::string(text);
  const size_t kept = length - 3;
  return absl::StrCat(text.substr(0, kept - kept / 2), "...", text.substr(text.size() - kept / 2));
}

}  // namespace quicksave::metrics
