#include "server/archive/cost_line.h"

#include <algorithm>
#include <cmath>

namespace quicksave::server {
namespace {

// Of the weight of a time, what the next one leaves.
constexpr double kKeep = 0.8;
// A time is recent for so long, and in as long again the line goes most of the way to the calm one.
constexpr absl::Duration kRecent = absl::Minutes(5);
// In which the calm line goes most of the way to where times have been.
constexpr absl::Duration kLasting = absl::Hours(1);
// Of the calm line, a time moves as much as stands for the time in which nothing was measured before it, but no more
// than this, and slower ones a share of that.
constexpr absl::Duration kMostOfOne = absl::Minutes(10);
constexpr double kSlower = 0.1;
// A time is no witness for another one that comes so many times later: the machine was well in between.
constexpr int64_t kWitnesses = 32;
// Errors count in proportion to the time, which has a constant like that of so much work in it.
constexpr double kLeastWork = 64;
// As if so much of a time's weight were known at 0 and here: of work of one size alone, no line could be told.
constexpr double kFixedWeight = 0.1;
constexpr double kFixedWork = 512;
// Below, a ratio of times says nothing.
constexpr double kLeastSeconds = 1e-9;

// What is left of the latest time's say.
double LeftOf(absl::Time noted, absl::Time now) {
  return std::min(1.0, std::exp(1 - absl::FDivDuration(now - noted, kRecent)));
}

double ScaleOf(double work) { return 1 / ((work + kLeastWork) * (work + kLeastWork)); }

// Moves a line a part of the way to `seconds` at `work`, in a direction that is 1 there.
void Move(double work, double seconds, double part, const Line& direction, Line& line) {
  const double by = part * (seconds - line.At(work));
  const double there = line.At(work) + by;
  line = {line.constant + by * direction.constant, line.per_unit + by * direction.per_unit};
  if (line.constant < 0) line = {0, there / work};
  if (line.per_unit < 0) line = {there, 0};
}

}  // namespace

void CostLine::Information::Fade(double factor) {
  for (double* sum : {&weight, &one, &x, &xx}) *sum *= factor;
}

void CostLine::Information::Add(double work, double scaled) {
  one += scaled;
  x += scaled * work;
  xx += scaled * work * work;
}

CostLine::Step CostLine::Information::StepAt(double work) const {
  Information all = *this;
  for (const double fixed : {0.0, kFixedWork}) all.Add(fixed, kFixedWeight * one / weight);
  const Line direction{all.xx - all.x * work, all.one * work - all.x};
  const double there = direction.At(work);
  return {.direction = {direction.constant / there, direction.per_unit / there},
          .part = ScaleOf(work) * there / (all.one * all.xx - all.x * all.x)};
}

Line CostLine::CalmAt(absl::Time now) const {
  // Nothing was measured yet, and the clock may go back.
  const absl::Duration silence = std::max(count_ == 0 ? absl::ZeroDuration() : now - noted_, absl::ZeroDuration());
  const double left = std::exp(-absl::FDivDuration(silence, kLasting));
  const auto faded = [left](double calm, double prior) { return calm > prior ? prior + left * (calm - prior) : calm; };
  return {faded(calm_.constant, prior_.constant), faded(calm_.per_unit, prior_.per_unit)};
}

Line CostLine::Expect(absl::Time now) const {
  const double left = LeftOf(noted_, now);
  const Line calm = CalmAt(now);
  return {calm.constant + left * (recent_.constant - calm.constant),
          calm.per_unit + left * (recent_.per_unit - calm.per_unit)};
}

double CostLine::Confirm(const Timed& timed, const Line& expected) {
  const auto ratio = [&](const Timed& one) { return one.seconds / std::max(expected.At(one.work), kLeastSeconds); };
  Timed& last = latest_[std::clamp(std::ilogb(timed.work), 0, static_cast<int>(latest_.size()) - 1)];
  std::array<double, 3> ratios = {1, last.work > 0 && timed.number - last.number <= kWitnesses ? ratio(last) : 1,
                                  ratio(timed)};
  last = timed;
  std::sort(ratios.begin(), ratios.end());
  return ratios[1] * std::max(expected.At(timed.work), kLeastSeconds);
}

void CostLine::Note(double work, double seconds, absl::Time now) {
  if (!std::isfinite(work) || !std::isfinite(seconds)) return;
  recent_ = Expect(now);
  calm_ = CalmAt(now);
  const double usual = Confirm({work, seconds, count_++}, recent_);
  known_.Fade(kKeep * LeftOf(noted_, now));
  known_.Add(work, ScaleOf(work));
  known_.weight += 1;
  const Step step = known_.StepAt(work);
  Move(work, usual, step.part, step.direction, recent_);
  const absl::Duration since = std::clamp(now - noted_, absl::ZeroDuration(), kMostOfOne);
  const double part = 1 - std::exp(-absl::FDivDuration(since, kLasting));
  Move(work, usual, usual > calm_.At(work) ? kSlower * part : part, step.direction, calm_);
  noted_ = now;
}

}  // namespace quicksave::server
