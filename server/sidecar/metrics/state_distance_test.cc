#include "server/sidecar/metrics/state_distance.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/sidecar/metrics/recorded_metrics_testing.h"

namespace quicksave::metrics {
namespace {

using ::testing::HasSubstr;

struct Matrix {
  std::vector<float> values;
  size_t width;

  Rows rows() const { return {.values = values, .width = width}; }
};

Matrix RandomMatrix(size_t rows, size_t width, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Matrix matrix{std::vector<float>(rows * width), width};
  for (float& value : matrix.values) value = normal(random);
  return matrix;
}

// Rotates the plane of each pair of neighbouring columns, then reverses their order: an orthogonal matrix.
Matrix Rotated(const Matrix& matrix) {
  Matrix rotated = matrix;
  for (size_t row = 0; row < matrix.rows().count(); ++row) {
    const float* from = matrix.values.data() + row * matrix.width;
    float* to = rotated.values.data() + row * matrix.width;
    for (size_t i = 0; i + 1 < matrix.width; i += 2) {
      const float angle = 0.7F + static_cast<float>(i);
      to[matrix.width - 1 - i] = std::cos(angle) * from[i] - std::sin(angle) * from[i + 1];
      to[matrix.width - 2 - i] = std::sin(angle) * from[i] + std::cos(angle) * from[i + 1];
    }
  }
  return rotated;
}

Matrix Mapped(const Matrix& matrix, float factor, float offset) {
  Matrix mapped = matrix;
  for (float& value : mapped.values) value = factor * value + offset;
  return mapped;
}

void ExpectRefused(const absl::StatusOr<double>& result, const std::string& message) {
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << result.status();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(message));
}

class RecordedStateTest : public ::testing::TestWithParam<const char*> {
 protected:
  RecordedStateTest() : record_(RecordedMetrics()["states"][GetParam()]) {
    reference_ = {record_["reference"].get<std::vector<float>>(), record_["width"]};
    candidate_ = {record_["candidate"].get<std::vector<float>>(), record_["candidate_width"]};
  }

  void ExpectRecorded(const char* figure, const absl::StatusOr<double>& result) const {
    ASSERT_TRUE(result.ok()) << result.status();
    const double recorded = record_[figure];
    EXPECT_NEAR(*result, recorded, kRoundingTolerance * std::abs(recorded)) << figure;
  }

  nlohmann::json record_;
  Matrix reference_;
  Matrix candidate_;
};

TEST_P(RecordedStateTest, FiguresAreThoseOfTorchAndNumpy) {
  ExpectRecorded("cka", LinearCka(reference_.rows(), candidate_.rows()));
  if (reference_.width != candidate_.width) return;
  ExpectRecorded("mse", MeanSquaredError(reference_.values, candidate_.values));
  ExpectRecorded("relative_mse", RelativeMse(reference_.values, candidate_.values));
  ExpectRecorded("fraction_of_variance_unexplained",
                 FractionOfVarianceUnexplained(reference_.rows(), candidate_.rows()));
  ExpectRecorded("cosine", CosineSimilarity(reference_.rows(), candidate_.rows()));
}

INSTANTIATE_TEST_SUITE_P(Shapes, RecordedStateTest, ::testing::Values("tall", "tall_unequal", "wide", "wide_unequal"));

TEST(StateDistanceTest, AStateIsAtNoDistanceFromItself) {
  for (const Matrix& x : {RandomMatrix(50, 8, 1), RandomMatrix(5, 40, 2)}) {
    EXPECT_EQ(MeanSquaredError(x.values, x.values).value(), 0);
    EXPECT_EQ(RelativeMse(x.values, x.values).value(), 0);
    EXPECT_EQ(FractionOfVarianceUnexplained(x.rows(), x.rows()).value(), 0);
    EXPECT_NEAR(CosineSimilarity(x.rows(), x.rows()).value(), 1, kRoundingTolerance);
    EXPECT_NEAR(LinearCka(x.rows(), x.rows()).value(), 1, kRoundingTolerance);
  }
}

TEST(StateDistanceTest, ZerosHaveRelativeErrorOneAndTheMeanRowLeavesAllVariance) {
  const Matrix x = Mapped(RandomMatrix(30, 4, 3), 1, 5);
  const std::vector<float> zeros(x.values.size());
  EXPECT_EQ(RelativeMse(x.values, zeros).value(), 1);
  Matrix means = x;
  for (size_t column = 0; column < x.width; ++column) {
    double sum = 0;
    for (size_t i = column; i < x.values.size(); i += x.width) sum += x.values[i];
    for (size_t i = column; i < x.values.size(); i += x.width) means.values[i] = static_cast<float>(sum / 30);
  }
  // The mean row is rounded to float, which moves it by 3e-7 at most.
  EXPECT_NEAR(FractionOfVarianceUnexplained(x.rows(), means.rows()).value(), 1, 1e-9);
  EXPECT_LT(RelativeMse(x.values, means.values).value(), 0.1);
}

TEST(StateDistanceTest, ErrorsScaleAsTheirDefinitionsSay) {
  const Matrix x = RandomMatrix(20, 6, 4);
  const Matrix y = RandomMatrix(20, 6, 5);
  const Matrix x4 = Mapped(x, 4, 0);
  const Matrix y4 = Mapped(y, 4, 0);
  // A factor of a power of two rounds nothing.
  EXPECT_DOUBLE_EQ(MeanSquaredError(x4.values, y4.values).value(), 16 * MeanSquaredError(x.values, y.values).value());
  EXPECT_DOUBLE_EQ(RelativeMse(x4.values, y4.values).value(), RelativeMse(x.values, y.values).value());
  EXPECT_DOUBLE_EQ(CosineSimilarity(x.rows(), y4.rows()).value(), CosineSimilarity(x.rows(), y.rows()).value());
  EXPECT_NEAR(CosineSimilarity(x.rows(), Mapped(x, -0.5, 0).rows()).value(), -1, kRoundingTolerance);
}

TEST(StateDistanceTest, ZeroRowsHaveACosine) {
  const std::vector<float> zero_then_one = {0, 0, 1, 0};
  const std::vector<float> zeros(4);
  EXPECT_EQ(CosineSimilarity({zero_then_one, 2}, {zero_then_one, 2}).value(), 1);
  EXPECT_EQ(CosineSimilarity({zero_then_one, 2}, {zeros, 2}).value(), 0.5);
}

TEST(LinearCkaTest, RotatingShiftingAndScalingChangeNothing) {
  for (const size_t rows : {200, 12}) {  // through columns, through rows
    const Matrix x = RandomMatrix(rows, 16, 6);
    const Matrix y = RandomMatrix(rows, 16, 7);
    const double cka = LinearCka(x.rows(), y.rows()).value();
    EXPECT_LT(cka, 0.9);
    // The changed matrices are rounded to float.
    EXPECT_NEAR(LinearCka(x.rows(), Rotated(y).rows()).value(), cka, 1e-6);
    EXPECT_NEAR(LinearCka(Mapped(x, -3, 10).rows(), y.rows()).value(), cka, 1e-6);
    EXPECT_NEAR(LinearCka(x.rows(), Rotated(x).rows()).value(), 1, 1e-6);
    EXPECT_NEAR(LinearCka(y.rows(), x.rows()).value(), cka, kRoundingTolerance);
  }
}

TEST(LinearCkaTest, OneLoudDirectionHidesThatAllOthersAreLost) {
  Matrix x = RandomMatrix(400, 32, 8);
  for (size_t i = 0; i < x.values.size(); i += x.width) x.values[i] *= 100;
  Matrix only_loud = x;
  for (size_t i = 0; i < x.values.size(); ++i) {
    if (i % x.width != 0) only_loud.values[i] = 0;
  }
  EXPECT_GT(LinearCka(x.rows(), only_loud.rows()).value(), 0.999);
  EXPECT_GT(CosineSimilarity(x.rows(), only_loud.rows()).value(), 0.95);
}

TEST(LinearCkaTest, FewRowsOfManyColumnsLookAlikeWhateverTheyAre) {
  EXPECT_GT(LinearCka(RandomMatrix(8, 2000, 9).rows(), RandomMatrix(8, 2000, 10).rows()).value(), 0.98);
  EXPECT_LT(LinearCka(RandomMatrix(2000, 8, 9).rows(), RandomMatrix(2000, 8, 10).rows()).value(), 0.02);
}

TEST(StateDistanceTest, RefusesWhatIsNotDefined) {
  const Matrix x = RandomMatrix(4, 3, 11);
  const Matrix zeros{std::vector<float>(12), 3};
  const Matrix constant{std::vector<float>(12, 0.1F), 3};
  ExpectRefused(RelativeMse(zeros.values, x.values), "reference of zeros");
  ExpectRefused(FractionOfVarianceUnexplained(constant.rows(), x.rows()), "no variance");
  ExpectRefused(LinearCka(constant.rows(), x.rows()), "the reference are equal");
  ExpectRefused(LinearCka(x.rows(), constant.rows()), "the candidate are equal");
  ExpectRefused(LinearCka({x.rows().values.first(3), 3}, {x.rows().values.first(3), 3}), "fewer than two rows");
}

TEST(StateDistanceTest, RefusesOtherSizesAndShapes) {
  const std::vector<float> twelve(12, 1);
  const std::vector<float> eight(8, 1);
  const std::string sizes = "the reference has 12 values, the candidate 8";
  ExpectRefused(MeanSquaredError(twelve, eight), sizes);
  ExpectRefused(RelativeMse(twelve, eight), sizes);
  ExpectRefused(CosineSimilarity({twelve, 4}, {eight, 4}), sizes);
  ExpectRefused(FractionOfVarianceUnexplained({twelve, 4}, {eight, 4}), sizes);
  ExpectRefused(CosineSimilarity({twelve, 4}, {twelve, 3}), "4 columns, the candidate 3");
  ExpectRefused(LinearCka({twelve, 4}, {eight, 4}), "3 rows, the candidate 2");
  ExpectRefused(LinearCka({twelve, 5}, {twelve, 5}), "12 values do not make rows of 5");
  ExpectRefused(CosineSimilarity({twelve, 0}, {twelve, 0}), "rows of 0 values");
}

TEST(StateDistanceTest, RefusesEmptyInputAndWhatIsNoNumber) {
  const std::vector<float> good(6, 1);
  ExpectRefused(MeanSquaredError({}, {}), "no values");
  ExpectRefused(LinearCka({{}, 3}, {{}, 3}), "no values");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> values = good;
    values[4] = bad;
    ExpectRefused(MeanSquaredError(values, good), "value 4 of the reference");
    ExpectRefused(RelativeMse(good, values), "value 4 of the candidate");
    ExpectRefused(FractionOfVarianceUnexplained({good, 3}, {values, 3}), "value 4 of the candidate");
    ExpectRefused(CosineSimilarity({good, 3}, {values, 3}), "value 4 of the candidate");
    ExpectRefused(LinearCka({values, 3}, {good, 3}), "value 4 of the reference");
  }
}

}  // namespace
}  // namespace quicksave::metrics
