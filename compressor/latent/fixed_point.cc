#include "compressor/latent/fixed_point.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace quicksave::compressor {
namespace {

// The exponent of the largest magnitude that a byte holds, and two bytes, of which the lower one is signed as well.
constexpr int kByteExponent = 6;
constexpr int kTwoBytesExponent = kByteExponent + 8;
// Larger magnitudes count as this.
constexpr float kLargestMagnitude = 1 << 26;
constexpr int kQuads = kExponentInputs / kQuad;

// Rows of `used`, and so of x, that share their exponents.
struct Rows {
  size_t first = 0;
  size_t count = 0;
  std::array<float, kColumnGroup> largest{};  // magnitude, of each column
};

// Of a group of columns, `x` being its first one.
std::vector<Rows> RowsByExponent(absl::Span<const int> used, const float* x, int columns) {
  std::vector<Rows> all;
  for (size_t i = 0; i < used.size(); ++i) {
    if (i == 0 || used[i] / kExponentInputs != used[i - 1] / kExponentInputs) all.push_back({.first = i});
    ++all.back().count;
    float* const largest = all.back().largest.data();
    const float* const row = x + i * columns;
    for (int c = 0; c < kColumnGroup; ++c) {
      const float magnitude = std::abs(row[c]) < kLargestMagnitude ? std::abs(row[c]) : kLargestMagnitude;
      // What is no number counts as 0.
      const float number = row[c] == row[c] ? magnitude : 0;
      largest[c] = largest[c] < number ? number : largest[c];
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
PerColumn CommonExponents(const std::vector<Rows>& all) {
  PerColumn exponents;
  for (int c = 0; c < kColumnGroup; ++c) {
    double sum = 0;
    for (const Rows& rows : all) sum += static_cast<double>(rows.largest[c]) + 1;
    exponents[c] = kFinestExponent;
    // 128 and not 127 makes room for rounding.
    while (std::ldexp(sum * kExponentInputs * 128, exponents[c]) >= 0x1p31) --exponents[c];
  }
  return exponents;
}

// Of each input of an exponent's a row of bytes.
using Bytes = std::array<std::array<int8_t, kColumnGroup>, kExponentInputs>;

// Rounds a row to multiples of 1 / scale, of two the even one, in two bytes.
void RoundRow(const float* from, const std::array<float, kColumnGroup>& scales, int8_t* low, int8_t* high) {
  // Adding and subtracting it leaves no bits behind the point.
  constexpr float kNoFraction = 3 << 22;
  for (int c = 0; c < kColumnGroup; ++c) {
    const float value = from[c] != from[c] ? 0 : from[c];
    const float above = value < -kLargestMagnitude ? -kLargestMagnitude : value;
    const float within = above > kLargestMagnitude ? kLargestMagnitude : above;
    const auto integer = static_cast<int32_t>((within * scales[c] + kNoFraction) - kNoFraction);
    low[c] = static_cast<int8_t>(integer);
    high[c] = static_cast<int8_t>((integer + 128) >> 8);
  }
}

// Appends what is not zero, as a plane of its own where the last one has other shifts.
void AddPlane(const Bytes& bytes, int first_input, const PerColumn& shifts, std::vector<FixedPlane>& planes) {
  if (planes.empty() || planes.back().shifts != shifts) planes.push_back({.shifts = shifts});
  FixedPlane& plane = planes.back();
  for (int q = 0; q < kQuads; ++q) {
    std::array<uint32_t, kColumnGroup> words{};
    for (int i = 0; i < kQuad; ++i) {
      const std::array<int8_t, kColumnGroup>& row = bytes[q * kQuad + i];
      for (int c = 0; c < kColumnGroup; ++c) words[c] |= uint32_t{static_cast<uint8_t>(row[c])} << (8 * i);
      for (int c = 0; c < kColumnGroup; ++c) plane.sums[c] += row[c];
    }
    uint32_t any = 0;
    for (const uint32_t word : words) any |= word;
    if (any == 0) continue;
    plane.quads.push_back(static_cast<uint32_t>(first_input / kQuad + q));
    plane.values.insert(plane.values.end(), words.begin(), words.end());
  }
}

FixedPointGroup GroupOf(absl::Span<const int> used, const float* x, int columns, int least_exponent) {
  const std::vector<Rows> all = RowsByExponent(used, x, columns);
  FixedPointGroup group{.exponents = CommonExponents(all)};
  for (const Rows& rows : all) {
    std::array<float, kColumnGroup> scales;
    PerColumn low_shifts;
    PerColumn high_shifts;
    bool has_high = false;
    for (int c = 0; c < kColumnGroup; ++c) {
      const int common = group.exponents[c];
      int exponent = FinestExponent(rows.largest[c], kByteExponent, common);
      if (exponent < std::min(least_exponent, common)) {
        exponent = FinestExponent(rows.largest[c], kTwoBytesExponent, common);
        has_high = true;
      }
      scales[c] = std::ldexp(1.0f, exponent);
      low_shifts[c] = common - exponent;
      high_shifts[c] = common - exponent + 8;
    }
    Bytes low{};
    Bytes high{};
    for (size_t i = rows.first; i < rows.first + rows.count; ++i) {
      const int to = used[i] % kExponentInputs;
      RoundRow(x + i * columns, scales, low[to].data(), high[to].data());
    }
    const int first_input = used[rows.first] / kExponentInputs * kExponentInputs;
    AddPlane(low, first_input, low_shifts, group.planes);
    if (has_high) AddPlane(high, first_input, high_shifts, group.planes);
  }
  return group;
}

}  // namespace

std::vector<FixedPointGroup> ToFixedPoint(absl::Span<const int> used, const float* x, int columns, int least_exponent) {
  std::vector<FixedPointGroup> groups;
  for (int first = 0; first < columns; first += kColumnGroup) {
    groups.push_back(GroupOf(used, x + first, columns, least_exponent));
  }
  return groups;
}

}  // namespace quicksave::compressor
