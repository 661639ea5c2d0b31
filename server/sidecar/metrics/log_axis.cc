#include "server/sidecar/metrics/log_axis.h"

#include <algorithm>
#include <cmath>

#include "absl/types/span.h"

namespace quicksave::metrics {
namespace {

constexpr double kLeastDecades = 0.60206;  // a factor of 4
constexpr double kRoom = 0.06;             // of the range, beyond each end

// Leading digits that are labelled on an axis of so many decades.
absl::Span<const int> LabelledDigits(double decades) {
  static constexpr int kOneDecade[] = {1, 2, 3, 4, 5, 6, 8};
  static constexpr int kFewDecades[] = {1, 2, 5};
  static constexpr int kManyDecades[] = {1};
  if (decades <= 1.2) return kOneDecade;
  if (decades <= 2.5) return kFewDecades;
  return kManyDecades;
}

}  // namespace

LogAxis::LogAxis(double low, double high, double from, double to)
    : low_(std::log10(low)), high_(std::log10(high)), from_(from), to_(to) {
  const double missing = std::max(0.0, kLeastDecades - (high_ - low_));
  const double room = kRoom * (high_ - low_ + missing) + missing / 2;
  low_ -= room;
  high_ += room;
}

double LogAxis::Position(double value) const {
  return from_ + (std::log10(value) - low_) / (high_ - low_) * (to_ - from_);
}

std::vector<Tick> LogAxis::Ticks() const {
  const double decades = high_ - low_;
  const int labelled_every = std::max(1, static_cast<int>(std::ceil(decades / 10)));
  const int digits = decades > 4 ? 1 : 9;
  const absl::Span<const int> labelled = LabelledDigits(decades);
  std::vector<Tick> ticks;
  for (int exponent = static_cast<int>(std::floor(low_)); exponent <= high_; ++exponent) {
    for (int digit = 1; digit <= digits; ++digit) {
      // Dividing by a power of 10 gives the nearest double of 0.003, multiplying by 0.001 may not.
      const double value = exponent < 0 ? digit / std::pow(10.0, -exponent) : digit * std::pow(10.0, exponent);
      if (std::log10(value) < low_ || std::log10(value) > high_) continue;
      const bool has_label =
          exponent % labelled_every == 0 && std::find(labelled.begin(), labelled.end(), digit) != labelled.end();
      ticks.push_back({value, has_label});
    }
  }
  return ticks;
}

}  // namespace quicksave::metrics
