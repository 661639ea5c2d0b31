// A logarithmic axis of a chart: where a value is, and where its ticks are.

#ifndef QUICKSAVE_SERVER_SIDECAR_METRICS_LOG_AXIS_H_
#define QUICKSAVE_SERVER_SIDECAR_METRICS_LOG_AXIS_H_

#include <vector>

namespace quicksave::metrics {

struct Tick {
  double value = 0;
  bool labelled = false;
};

class LogAxis {
 public:
  // Covers the values from `low` to `high`, both above 0, with some room beyond, and a factor of 4 at least; `low`
  // stands near the pixel `from`, `high` near `to`, which may be the smaller one.
  LogAxis(double low, double high, double from, double to);

  // The pixel of a value above 0.
  double Position(double value) const;

  // Ticks at round numbers inside of the axis, ascending: 1 to 9 of each decade, or the powers of 10 alone where there
  // are many decades. Two to nine or so of them are labelled.
  std::vector<Tick> Ticks() const;

 private:
  double low_;  // decimal logarithms
  double high_;
  double from_;
  double to_;
};

}  // namespace quicksave::metrics

#endif  // QUICKSAVE_SERVER_SIDECAR_METRICS_LOG_AXIS_H_
