#include "server/sidecar/metrics/state_distance.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/sidecar/metrics/metric_input.h"

namespace quicksave::metrics {
namespace {

absl::Status CheckShape(const Rows& rows) {
  if (rows.width > 0 && rows.values.size() % rows.width == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(rows.values.size(), " values do not make rows of ", rows.width, " values"));
}

absl::Status CheckSameShape(const Rows& reference, const Rows& candidate) {
  if (absl::Status status = CheckShape(reference); !status.ok()) return status;
  if (absl::Status status = CheckSameCount("columns", reference.width, candidate.width); !status.ok()) return status;
  return CheckPair(reference.values, candidate.values);
}

double SquaredDifference(absl::Span<const float> x, absl::Span<const float> y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = double{x[i]} - double{y[i]};
    sum += difference * difference;
  }
  return sum;
}

double Product(absl::Span<const float> x, absl::Span<const float> y) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += double{x[i]} * double{y[i]};
  return sum;
}

std::vector<double> ColumnMeans(const Rows& rows) {
  std::vector<double> means(rows.width);
  for (size_t i = 0; i < rows.values.size(); ++i) means[i % rows.width] += rows.values[i];
  for (double& mean : means) mean /= static_cast<double>(rows.count());
  return means;
}

double CosineOfRow(absl::Span<const float> x, absl::Span<const float> y) {
  const double norms = std::sqrt(Product(x, x)) * std::sqrt(Product(y, y));
  if (norms > 0) return std::clamp(Product(x, y) / norms, -1.0, 1.0);
  const auto is_zero = [](float value) { return value == 0; };
  return std::all_of(x.begin(), x.end(), is_zero) && std::all_of(y.begin(), y.end(), is_zero) ? 1 : 0;
}

// Vectors of one length, each contiguous: the rows of a centred matrix, or its columns.
struct Vectors {
  std::vector<double> values;
  size_t length = 0;

  size_t count() const { return values.size() / length; }
  const double* at(size_t i) const { return values.data() + i * length; }
};

Vectors CentredVectors(const Rows& rows, bool columns) {
  const std::vector<double> means = ColumnMeans(rows);
  const size_t count = rows.count();
  Vectors vectors{std::vector<double>(rows.values.size()), columns ? count : rows.width};
  for (size_t row = 0; row < count; ++row) {
    for (size_t column = 0; column < rows.width; ++column) {
      const size_t to = columns ? column * count + row : row * rows.width + column;
      vectors.values[to] = rows.values[row * rows.width + column] - means[column];
    }
  }
  return vectors;
}

double Dot(const double* x, const double* y, size_t length) {
  // Independent sums, since the compiler may not reorder one.
  double sums[8] = {};
  size_t i = 0;
  for (; i + 8 <= length; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) sums[lane] += x[i + lane] * y[i + lane];
  }
  for (; i < length; ++i) sums[0] += x[i] * y[i];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Calls use(i, j) for all pairs, in tiles of j that stay in the cache while i runs.
template <typename Use>
void ForTiledPairs(size_t rows, size_t columns, const Use& use) {
  constexpr size_t kTile = 16;
  for (size_t from = 0; from < columns; from += kTile) {
    const size_t to = std::min(columns, from + kTile);
    for (size_t i = 0; i < rows; ++i) {
      for (size_t j = from; j < to; ++j) use(i, j);
    }
  }
}

struct Alignment {
  double xx = 0;  // |X'X|^2
  double yy = 0;  // |Y'Y|^2
  double xy = 0;  // |Y'X|^2
};

// Through the products of columns, three matrices of widths^2.
Alignment AlignColumns(const Vectors& x, const Vectors& y) {
  const auto squared_products = [](const Vectors& a, const Vectors& b) {
    double sum = 0;
    ForTiledPairs(a.count(), b.count(), [&](size_t i, size_t j) {
      const double product = Dot(a.at(i), b.at(j), a.length);
      sum += product * product;
    });
    return sum;
  };
  return {squared_products(x, x), squared_products(y, y), squared_products(x, y)};
}

// Through the products of rows, two matrices of rows^2: |Y'X|^2 is the inner product of XX' and YY'.
Alignment AlignRows(const Vectors& x, const Vectors& y) {
  Alignment sums;
  ForTiledPairs(x.count(), x.count(), [&](size_t i, size_t j) {
    const double of_x = Dot(x.at(i), x.at(j), x.length);
    const double of_y = Dot(y.at(i), y.at(j), y.length);
    sums.xx += of_x * of_x;
    sums.yy += of_y * of_y;
    sums.xy += of_x * of_y;
  });
  return sums;
}

bool ColumnsAreCheaper(size_t rows, size_t x_width, size_t y_width) {
  const double p = static_cast<double>(x_width);
  const double q = static_cast<double>(y_width);
  return p * p + q * q + p * q <= static_cast<double>(rows) * (p + q);
}

absl::Status CheckForCka(const Rows& reference, const Rows& candidate) {
  for (const Rows& rows : {reference, candidate}) {
    if (absl::Status status = CheckShape(rows); !status.ok()) return status;
  }
  if (absl::Status status = CheckSameCount("rows", reference.count(), candidate.count()); !status.ok()) return status;
  if (absl::Status status = CheckNumbers("reference", reference.values); !status.ok()) return status;
  if (absl::Status status = CheckNumbers("candidate", candidate.values); !status.ok()) return status;
  if (reference.count() < 2) return absl::InvalidArgumentError("CKA of fewer than two rows is not defined");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<double> MeanSquaredError(absl::Span<const float> reference, absl::Span<const float> candidate) {
  if (absl::Status status = CheckPair(reference, candidate); !status.ok()) return status;
  return SquaredDifference(reference, candidate) / static_cast<double>(reference.size());
}

absl::StatusOr<double> RelativeMse(absl::Span<const float> reference, absl::Span<const float> candidate) {
  if (absl::Status status = CheckPair(reference, candidate); !status.ok()) return status;
  const double energy = Product(reference, reference);
  if (energy == 0) return absl::InvalidArgumentError("a relative error against a reference of zeros is not defined");
  return SquaredDifference(reference, candidate) / energy;
}

absl::StatusOr<double> FractionOfVarianceUnexplained(const Rows& reference, const Rows& candidate) {
  if (absl::Status status = CheckSameShape(reference, candidate); !status.ok()) return status;
  const std::vector<double> means = ColumnMeans(reference);
  double variance = 0;
  for (size_t i = 0; i < reference.values.size(); ++i) {
    const double difference = reference.values[i] - means[i % reference.width];
    variance += difference * difference;
  }
  if (variance == 0) return absl::InvalidArgumentError("all rows of the reference are equal: no variance to explain");
  return SquaredDifference(reference.values, candidate.values) / variance;
}

absl::StatusOr<double> CosineSimilarity(const Rows& reference, const Rows& candidate) {
  if (absl::Status status = CheckSameShape(reference, candidate); !status.ok()) return status;
  double sum = 0;
  for (size_t from = 0; from < reference.values.size(); from += reference.width) {
    sum +=
        CosineOfRow(reference.values.subspan(from, reference.width), candidate.values.subspan(from, reference.width));
  }
  return sum / static_cast<double>(reference.count());
}

absl::StatusOr<double> LinearCka(const Rows& reference, const Rows& candidate) {
  if (absl::Status status = CheckForCka(reference, candidate); !status.ok()) return status;
  const bool columns = ColumnsAreCheaper(reference.count(), reference.width, candidate.width);
  const Vectors x = CentredVectors(reference, columns);
  const Vectors y = CentredVectors(candidate, columns);
  const Alignment sums = columns ? AlignColumns(x, y) : AlignRows(x, y);
  if (sums.xx == 0 || sums.yy == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("all rows of the ", sums.xx == 0 ? "reference" : "candidate", " are equal: CKA is not defined"));
  }
  return std::clamp(sums.xy / (std::sqrt(sums.xx) * std::sqrt(sums.yy)), 0.0, 1.0);
}

}  // namespace quicksave::metrics
