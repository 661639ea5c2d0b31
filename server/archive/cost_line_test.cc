#include "server/archive/cost_line.h"

#include <cmath>
#include <limits>

#include "compressor/test_blocks.h"
#include "gtest/gtest.h"

namespace quicksave::server {
namespace {

constexpr Line kPrior{1e-3, 100e-6};

class CostLineTest : public testing::Test {
 protected:
  // Measures work of some sizes, 10 per cent off either way.
  void Measure(const Line& truth, int times, double slower = 1) {
    for (int i = 0; i < times; ++i) {
      const double work = std::exp2(4 + 7 * static_cast<double>(random_.Below(1000)) / 1000);
      const double noise = 0.9 + 0.2 * static_cast<double>(random_.Below(1000)) / 1000;
      Note(work, truth.At(work) * noise * slower);
    }
  }
  void Note(double work, double seconds) {
    now_ += pace_;
    line_.Note(work, seconds, now_);
  }
  double Expect(double work) const { return line_.Expect(now_).At(work); }
  // Within a share of the time, and of what is too little work to be told from noise.
  void ExpectNear(const Line& truth, double share) const {
    for (const double work : {20, 200, 2000}) {
      EXPECT_NEAR(Expect(work), truth.At(work), share * truth.At(work + 64)) << work;
    }
  }

  CostLine line_{kPrior};
  absl::Duration pace_ = absl::Seconds(5);
  absl::Time now_ = absl::FromUnixSeconds(1'000'000);
  compressor::TestRandom random_{20261122};
};

TEST_F(CostLineTest, BeforeAnythingIsMeasuredThePriorHolds) {
  ExpectNear(kPrior, 1e-6);
  now_ += absl::Hours(1);
  ExpectNear(kPrior, 1e-6);
}

TEST_F(CostLineTest, AConstantIsLearned) {
  const Line truth{30e-3, 50e-6};
  Measure(truth, 30);
  EXPECT_NEAR(line_.Expect(now_).constant, truth.constant, 0.15 * truth.constant);
  ExpectNear(truth, 0.15);
}

TEST_F(CostLineTest, TimesOfOneSizeAreEnoughForThatSize) {
  for (int i = 0; i < 10; ++i) Note(300, 0.5);
  EXPECT_NEAR(Expect(300), 0.5, 0.05);
  EXPECT_GT(Expect(600), Expect(300));
}

TEST_F(CostLineTest, TimesOfOneSizeThatAreFarFromThePriorSettle) {
  for (const double work : {10, 300, 1000, 10000}) {
    for (const double times : {0.01, 0.15, 7.0, 100.0}) {
      CostLine line(kPrior);
      for (int i = 0; i < 200; ++i) line.Note(work, times * kPrior.At(work), now_);
      EXPECT_NEAR(line.Expect(now_).At(work) / kPrior.At(work), times, 0.01 * times) << work;
    }
  }
}

TEST_F(CostLineTest, TheSecondTimeThatSaysTheSameCounts) {
  Note(300, 10 * kPrior.At(300));
  EXPECT_NEAR(Expect(300), kPrior.At(300), 1e-9);
  Note(310, 10 * kPrior.At(310));
  EXPECT_GT(Expect(300), 5 * kPrior.At(300));
}

TEST_F(CostLineTest, OneThatIsFarOffChangesNothing) {
  Measure(kPrior, 20);
  const double before = Expect(500);
  Note(500, 50 * before);
  EXPECT_NEAR(Expect(500), before, 0.15 * before);
  Measure(kPrior, 1);
  EXPECT_NEAR(Expect(500), before, 0.15 * before);
  Note(500, before / 50);
  EXPECT_NEAR(Expect(500), before, 0.15 * before);
}

TEST_F(CostLineTest, ChangesOfTheTruthAreFollowedEitherWay) {
  Measure(kPrior, 20);
  const Line slow{20e-3, 800e-6};
  Measure(slow, 30);
  ExpectNear(slow, 0.25);
  const Line fast{0.2e-3, 20e-6};
  Measure(fast, 60);
  ExpectNear(fast, 0.25);
}

TEST_F(CostLineTest, WhatABusyMachineMadeSlowIsForgottenWithTime) {
  Measure(kPrior, 20);
  Measure(kPrior, 100, 20);
  EXPECT_GT(Expect(500), 15 * kPrior.At(500));
  now_ += absl::Minutes(30);
  ExpectNear(kPrior, 0.6);
  // It is tried again, and is what it was.
  Measure(kPrior, 3);
  ExpectNear(kPrior, 0.3);
}

TEST_F(CostLineTest, WhatIsKnownToBeFasterThanThePriorIsWhatIsReturnedTo) {
  const Line fast{0.1e-3, 10e-6};
  pace_ = absl::Minutes(1);
  Measure(fast, 120);
  Measure(fast, 4, 20);
  now_ += absl::Hours(1);
  EXPECT_LT(Expect(500), 0.5 * kPrior.At(500));
}

TEST_F(CostLineTest, WhatWasSlowForHoursIsTriedAgainAfterHours) {
  // Reading is chosen while it is expected to be sooner than the alternative.
  constexpr double kAlternative = 0.3;
  constexpr double kWork = 300;
  pace_ = absl::ZeroDuration();
  const auto use = [&](absl::Duration how_long, double slower) {
    int tried = 0;
    for (const absl::Time end = now_ + how_long; now_ < end; now_ += absl::Seconds(10)) {
      if (Expect(kWork) > kAlternative) continue;
      Note(kWork, slower * kPrior.At(kWork));
      ++tried;
    }
    return tried;
  };
  EXPECT_EQ(use(absl::Hours(1), 1), 360);
  EXPECT_LT(use(absl::Hours(4), 100), 60);
  EXPECT_GT(use(absl::Hours(4), 1), 360);
}

TEST_F(CostLineTest, ASlowTimeOfLongAgoIsNoWitness) {
  Measure(kPrior, 20);
  const double before = Expect(400);
  Note(300, 50 * kPrior.At(300));
  for (int i = 0; i < 100; ++i) Note(100, kPrior.At(100));
  Note(400, 50 * kPrior.At(400));
  EXPECT_NEAR(Expect(400), before, 0.15 * before);
}

TEST_F(CostLineTest, WhatIsNotFiniteIsLeftOut) {
  for (const double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    for (int i = 0; i < 3; ++i) {
      Note(300, bad);
      Note(bad, 1);
    }
  }
  ExpectNear(kPrior, 1e-6);
}

TEST_F(CostLineTest, NoTimeMakesItNegativeOrInfinite) {
  for (const double seconds : {0.0, 1e6, 0.0, 0.0, 1e-12, 1e6}) {
    for (const double work : {1.0, 1e6}) {
      Note(work, seconds);
      const Line line = line_.Expect(now_);
      EXPECT_GE(line.constant, 0);
      EXPECT_GE(line.per_unit, 0);
      EXPECT_LT(line.At(1e6), 1e9);
    }
  }
}

TEST_F(CostLineTest, AClockThatGoesBackIsNoHarm) {
  Measure(kPrior, 5);
  now_ -= absl::Hours(1);
  Measure(kPrior, 5);
  ExpectNear(kPrior, 0.2);
}

}  // namespace
}  // namespace quicksave::server
