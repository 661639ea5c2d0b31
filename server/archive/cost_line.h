#ifndef QUICKSAVE_SERVER_ARCHIVE_COST_LINE_H_
#define QUICKSAVE_SERVER_ARCHIVE_COST_LINE_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace quicksave::server {

// Seconds that work takes: a constant, and so many for each unit.
struct Line {
  double constant = 0;
  double per_unit = 0;
  double At(double work) const { return constant + per_unit * work; }
};

// Learns such a line from times that were measured on a machine that is sometimes busy. Not thread-safe.
//
// It is recursive least squares with exponential forgetting (Åström and Wittenmark, Adaptive Control, 1995, section
// 2.2). What a time adds is the median of three: what it is to what was expected, what the last time of such work is to
// that, and 1. So one that is far off changes nothing, and a second one that agrees does.
//
// With time the line returns to the *calm* line, which moves over hours, and to slower times yet more slowly (so it is
// an expectile, Newey and Powell, Econometrica, 1987); and where that is slower than the prior, it returns to the prior
// over hours without a measurement. So what a busy machine made look slow, and was chosen no more, looks fast enough to
// be tried again after some minutes, or, where it was slow for hours, after hours.
class CostLine {
 public:
  explicit CostLine(Line prior) : prior_(prior), calm_(prior), recent_(prior) {}

  // What is expected now. Neither number is below 0.
  Line Expect(absl::Time now) const;

  // Takes in that `work`, above 0, took `seconds`, which are not negative. What is not finite is left out.
  void Note(double work, double seconds, absl::Time now);

 private:
  struct Timed {
    double work = 0;  // 0: none
    double seconds = 0;
    int64_t number = 0;  // how many there were before it
  };
  // How a time moves a line: in a direction that is 1 at its work, and small where the line is known well, a part of
  // the way.
  struct Step {
    Line direction;
    double part;
  };
  // Sums over the work that was timed, of weights, and of weights in proportion to the square of its time.
  struct Information {
    double weight = 0;
    double one = 0;
    double x = 0;
    double xx = 0;

    void Fade(double factor);
    void Add(double work, double scaled);
    // For `work` that was added.
    Step StepAt(double work) const;
  };

  // What is to be learned of a time, given what is expected.
  double Confirm(const Timed& timed, const Line& expected);
  Line CalmAt(absl::Time now) const;

  Line prior_;
  Line calm_;
  Line recent_;
  Information known_;
  absl::Time noted_ = absl::InfinitePast();
  int64_t count_ = 0;             // of times
  std::array<Timed, 24> latest_;  // of work from each power of two on to the next
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_COST_LINE_H_
