#include "compressor/latent/fixed_point.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace quicksave::compressor {
namespace {

// The magnitude that a byte may have has this exponent, and 127 of 128 of what is below the next one.
constexpr int kByteExponent = 6;
// Two bytes, of which the lower one is signed as well.
constexpr int kTwoBytesExponent = kByteExponent + 8;
// Larger magnitudes count as this.
constexpr float kLargestMagnitude = 1 << 26;
constexpr int kQuad = 4;
constexpr int kQuads = kExponentInputs / kQuad;

// Rows of `used`, and so of x, that share their exponents.
struct Rows {
  size_t first = 0;
  size_t count = 0;
  std::vector<float> largest;  // magnitude, of each column
};

std::vector<Rows> RowsByExponent(absl::Span<const int> used, const float* x, int columns) {
  std::vector<Rows> all;
  for (size_t i = 0; i < used.size(); ++i) {
    if (i == 0 || used[i] / kExponentInputs != used[i - 1] / kExponentInputs) {
      all.push_back({.first = i, .largest = std::vector<float>(columns)});
    }
    ++all.back().count;
    float* const largest = all.back().largest.data();
    const float* const row = x + i * columns;
    for (int c = 0; c < columns; ++c) {
      // What is no number is not larger.
      const float magnitude = std::min(std::abs(row[c]), kLargestMagnitude);
      largest[c] = largest[c] < magnitude ? magnitude : largest[c];
    }
  }
  return all;
}

// The largest exponent, at most `most`, at which a magnitude is no larger than 127/128 of 2^(exponent_of_limit + 1).
int FinestExponent(float magnitude, int exponent_of_limit, int most) {
  constexpr uint32_t kMantissaOfLimit = 0x7e0000;
  const auto bits = std::bit_cast<uint32_t>(magnitude);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  return std::min(exponent_of_limit - exponent - ((bits & 0x7fffff) > kMantissaOfLimit ? 1 : 0), most);
}

// Of each column the finest exponent at which no sum of products can overflow.
std::vector<int> CommonExponents(const std::vector<Rows>& all, int columns) {
  std::vector<int> exponents;
  for (int c = 0; c < columns; ++c) {
    double sum = 0;
    for (const Rows& rows : all) sum += static_cast<double>(rows.largest[c]) + 1;
    int exponent = kFinestExponent;
    while (std::ldexp(sum * kExponentInputs * 127, exponent) >= 0x1p31) --exponent;
    exponents.push_back(exponent);
  }
  return exponents;
}

// One byte of the numbers of kExponentInputs inputs, of each input a row: [kExponentInputs, columns].
using Bytes = std::vector<int8_t>;

// Rounds a row to multiples of 1 / scale, of two the even one, in two bytes.
void RoundRow(const float* from, absl::Span<const float> scales, int8_t* low, int8_t* high) {
  // Adding and subtracting it leaves no bits behind the point.
  constexpr float kNoFraction = 3 << 22;
  for (size_t c = 0; c < scales.size(); ++c) {
    const float value = from[c] != from[c] ? 0 : from[c];
    const float within = std::min(std::max(value, -kLargestMagnitude), kLargestMagnitude) * scales[c];
    const auto integer = static_cast<int32_t>((within + kNoFraction) - kNoFraction);
    low[c] = static_cast<int8_t>(integer);
    high[c] = static_cast<int8_t>((integer + 128) >> 8);
  }
}

FixedPlane PlaneOf(const Bytes& bytes, int first_input, std::vector<int> shifts) {
  const size_t columns = shifts.size();
  FixedPlane plane{.shifts = std::move(shifts), .sums = std::vector<int32_t>(columns)};
  // Room for all quads of each column; what is found is moved together afterwards.
  std::vector<FixedQuad> found(columns * (kQuads + 1));
  std::vector<uint32_t> counts(columns);
  std::vector<uint32_t> row(columns);
  for (int q = 0; q < kQuads; ++q) {
    const int8_t* values = bytes.data() + static_cast<size_t>(q) * kQuad * columns;
    std::fill(row.begin(), row.end(), 0);
    for (int i = 0; i < kQuad; ++i, values += columns) {
      for (size_t c = 0; c < columns; ++c) row[c] |= uint32_t{static_cast<uint8_t>(values[c])} << (8 * i);
      for (size_t c = 0; c < columns; ++c) plane.sums[c] += values[c];
    }
    const auto quad = static_cast<uint32_t>(first_input / kQuad + q);
    for (size_t c = 0; c < columns; ++c) {
      // No branch: whether a quad is zero is hard to foresee.
      found[c * (kQuads + 1) + counts[c]] = {quad, row[c]};
      counts[c] += row[c] != 0 ? 1 : 0;
    }
  }
  for (size_t c = 0; c < columns; ++c) {
    plane.begins.push_back(static_cast<uint32_t>(plane.quads.size()));
    const auto begin = found.begin() + static_cast<std::ptrdiff_t>(c * (kQuads + 1));
    plane.quads.insert(plane.quads.end(), begin, begin + counts[c]);
  }
  plane.begins.push_back(static_cast<uint32_t>(plane.quads.size()));
  return plane;
}

// Two planes of equal shifts as one.
FixedPlane Joined(const FixedPlane& a, const FixedPlane& b) {
  FixedPlane both{.shifts = a.shifts, .sums = a.sums};
  both.quads.reserve(a.quads.size() + b.quads.size());
  for (size_t c = 0; c < a.sums.size(); ++c) {
    both.begins.push_back(static_cast<uint32_t>(both.quads.size()));
    for (const FixedPlane* plane : {&a, &b}) {
      both.quads.insert(both.quads.end(), plane->quads.begin() + plane->begins[c],
                        plane->quads.begin() + plane->begins[c + 1]);
    }
    both.sums[c] += b.sums[c];
  }
  both.begins.push_back(static_cast<uint32_t>(both.quads.size()));
  return both;
}

// Planes with few quads become one, so that sums are touched less often; those with many do not, so that the weights of
// one stay in the cache.
void AddPlane(FixedPlane plane, std::vector<FixedPlane>& planes) {
  if (plane.quads.empty()) return;
  const bool joins =
      !planes.empty() && planes.back().shifts == plane.shifts &&
      planes.back().quads.size() + plane.quads.size() <= static_cast<size_t>(kQuads) * plane.shifts.size();
  if (joins) {
    planes.back() = Joined(planes.back(), plane);
  } else {
    planes.push_back(std::move(plane));
  }
}

}  // namespace

FixedPointColumns ToFixedPoint(absl::Span<const int> used, const float* x, int columns, int least_exponent) {
  const std::vector<Rows> all = RowsByExponent(used, x, columns);
  FixedPointColumns fixed{.exponents = CommonExponents(all, columns)};
  Bytes low(static_cast<size_t>(kExponentInputs) * columns);
  Bytes high(low.size());
  for (const Rows& rows : all) {
    std::vector<float> scales;
    std::vector<int> low_shifts;
    std::vector<int> high_shifts;
    for (int c = 0; c < columns; ++c) {
      const int common = fixed.exponents[c];
      int exponent = FinestExponent(rows.largest[c], kByteExponent, common);
      if (exponent < std::min(least_exponent, common)) {
        exponent = FinestExponent(rows.largest[c], kTwoBytesExponent, common);
      }
      scales.push_back(std::ldexp(1.0f, exponent));
      low_shifts.push_back(common - exponent);
      high_shifts.push_back(common - exponent + 8);
    }
    std::fill(low.begin(), low.end(), int8_t{0});
    std::fill(high.begin(), high.end(), int8_t{0});
    for (size_t i = rows.first; i < rows.first + rows.count; ++i) {
      const size_t to = static_cast<size_t>(used[i] % kExponentInputs) * columns;
      RoundRow(x + i * columns, scales, low.data() + to, high.data() + to);
    }
    const int first_input = used[rows.first] / kExponentInputs * kExponentInputs;
    AddPlane(PlaneOf(low, first_input, std::move(low_shifts)), fixed.planes);
    if (std::any_of(high.begin(), high.end(), [](int8_t byte) { return byte != 0; })) {
      AddPlane(PlaneOf(high, first_input, std::move(high_shifts)), fixed.planes);
    }
  }
  return fixed;
}

}  // namespace quicksave::compressor
