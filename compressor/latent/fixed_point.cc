#include "compressor/latent/fixed_point.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace quicksave::compressor {
namespace {

constexpr int kLargestByte = 127;
// Of two bytes, the lower of which is signed as well.
constexpr int kLargestOfTwo = kLargestByte * 256;
// One byte must have this many bits behind the point, or two are used.
constexpr int kLeastExponent = 3;
// Larger ones count as this.
constexpr float kLargestMagnitude = 1 << 26;
constexpr int kQuad = 4;
constexpr int kQuads = kExponentInputs / kQuad;

// The rows of `used`, and so of x, that share an exponent.
struct Rows {
  size_t first = 0;
  size_t count = 0;
  float largest = 0;  // magnitude
};

// The largest magnitude, none above kLargestMagnitude. Not a number counts as 0.
float LargestMagnitude(const float* x, size_t count) {
  // Magnitudes are ordered as their bits are, of which the compiler makes vectors.
  constexpr int32_t kInfinity = 0x7f800000;
  int32_t largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]) & 0x7fffffff;
    const int32_t number = bits > kInfinity ? 0 : bits;
    largest = largest < number ? number : largest;
  }
  return std::min(std::bit_cast<float>(largest), kLargestMagnitude);
}

std::vector<Rows> RowsByExponent(absl::Span<const int> used, const float* x, int columns) {
  std::vector<Rows> all;
  for (size_t i = 0; i < used.size(); ++i) {
    if (i == 0 || used[i] / kExponentInputs != used[i - 1] / kExponentInputs) all.push_back({.first = i});
    ++all.back().count;
  }
  for (Rows& rows : all) rows.largest = LargestMagnitude(x + rows.first * columns, rows.count * columns);
  return all;
}

// The finest exponent, not above `most`, at which `magnitude` is no larger than `largest`.
int FinestExponent(float magnitude, int largest, int most) {
  int exponent = most;
  while (std::ldexp(magnitude, exponent) > static_cast<float>(largest)) --exponent;
  return exponent;
}

// The finest exponent at which no sum of products can overflow.
int CommonExponent(const std::vector<Rows>& all) {
  double sum = 0;
  for (const Rows& rows : all) sum += static_cast<double>(rows.largest) + 1;
  int exponent = kFinestExponent;
  while (std::ldexp(sum * kExponentInputs * kLargestByte, exponent) >= 0x1p31) --exponent;
  return exponent;
}

// Multiples of 2^-exponent nearest to the values, of two the even one; there are none above kLargestOfTwo.
void RoundRow(const float* from, int count, int exponent, int32_t* to) {
  // Adding and subtracting it leaves no bits behind the point.
  constexpr float kNoFraction = 3 << 22;
  const float scale = std::ldexp(1.0f, exponent);
  for (int i = 0; i < count; ++i) {
    const float value = from[i] != from[i] ? 0 : from[i];
    const float within = std::min(std::max(value, -kLargestMagnitude), kLargestMagnitude) * scale;
    to[i] = static_cast<int32_t>((within + kNoFraction) - kNoFraction);
  }
}

// Of each input of the exponent's a row of bytes: [kExponentInputs, columns].
using Bytes = std::vector<int8_t>;

FixedPlane PlaneOf(const Bytes& bytes, int first_input, int columns, int exponent) {
  FixedPlane plane{.exponent = exponent, .sums = std::vector<int32_t>(columns)};
  // Room for all quads of each column; what is found is moved together afterwards.
  std::vector<FixedQuad> found(static_cast<size_t>(columns) * (kQuads + 1));
  std::vector<uint32_t> counts(columns);
  std::vector<uint32_t> row(columns);
  for (int q = 0; q < kQuads; ++q) {
    const int8_t* values = bytes.data() + static_cast<size_t>(q) * kQuad * columns;
    std::fill(row.begin(), row.end(), 0);
    for (int i = 0; i < kQuad; ++i, values += columns) {
      for (int c = 0; c < columns; ++c) row[c] |= uint32_t{static_cast<uint8_t>(values[c])} << (8 * i);
      for (int c = 0; c < columns; ++c) plane.sums[c] += values[c];
    }
    for (int c = 0; c < columns; ++c) {
      // No branch: whether a quad is zero is hard to foresee.
      found[static_cast<size_t>(c) * (kQuads + 1) + counts[c]] = {static_cast<uint32_t>(first_input / kQuad + q),
                                                                  row[c]};
      counts[c] += row[c] != 0 ? 1 : 0;
    }
  }
  for (int c = 0; c < columns; ++c) {
    plane.begins.push_back(static_cast<uint32_t>(plane.quads.size()));
    const auto begin = found.begin() + static_cast<std::ptrdiff_t>(c) * (kQuads + 1);
    plane.quads.insert(plane.quads.end(), begin, begin + counts[c]);
  }
  plane.begins.push_back(static_cast<uint32_t>(plane.quads.size()));
  return plane;
}

// The rows' values in bytes, those of two bytes with the upper one in `high`.
void ToBytes(absl::Span<const int> used, const Rows& rows, const float* x, int columns, int exponent, Bytes& low,
             Bytes* high) {
  std::vector<int32_t> values(columns);
  for (size_t i = rows.first; i < rows.first + rows.count; ++i) {
    RoundRow(x + i * columns, columns, exponent, values.data());
    const size_t to = static_cast<size_t>(used[i] % kExponentInputs) * columns;
    for (int c = 0; c < columns; ++c) low[to + c] = static_cast<int8_t>(values[c]);
    if (high == nullptr) continue;
    for (int c = 0; c < columns; ++c) (*high)[to + c] = static_cast<int8_t>((values[c] - low[to + c]) / 256);
  }
}

// Two planes of equal exponent as one.
FixedPlane Joined(const FixedPlane& a, const FixedPlane& b) {
  FixedPlane both{.exponent = a.exponent, .sums = a.sums};
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

// Planes by ascending exponent. Those with few quads become one, so that sums are touched less often; those with many
// do not, so that the weights of one stay in the cache.
std::vector<FixedPlane> InOrder(std::vector<FixedPlane> planes, int columns) {
  std::stable_sort(planes.begin(), planes.end(),
                   [](const FixedPlane& a, const FixedPlane& b) { return a.exponent < b.exponent; });
  std::vector<FixedPlane> joined;
  for (FixedPlane& plane : planes) {
    const bool fits = !joined.empty() && joined.back().exponent == plane.exponent &&
                      joined.back().quads.size() + plane.quads.size() <= static_cast<size_t>(kQuads) * columns;
    if (fits) {
      joined.back() = Joined(joined.back(), plane);
    } else {
      joined.push_back(std::move(plane));
    }
  }
  return joined;
}

}  // namespace

FixedPointColumns ToFixedPoint(absl::Span<const int> used, const float* x, int columns) {
  const std::vector<Rows> all = RowsByExponent(used, x, columns);
  FixedPointColumns fixed{.exponent = CommonExponent(all)};
  const size_t size = static_cast<size_t>(kExponentInputs) * columns;
  for (const Rows& rows : all) {
    const int first_input = used[rows.first] / kExponentInputs * kExponentInputs;
    const int exponent = FinestExponent(rows.largest, kLargestByte, fixed.exponent);
    if (exponent >= std::min(kLeastExponent, fixed.exponent)) {
      Bytes bytes(size);
      ToBytes(used, rows, x, columns, exponent, bytes, nullptr);
      fixed.planes.push_back(PlaneOf(bytes, first_input, columns, exponent));
      continue;
    }
    const int finer = FinestExponent(rows.largest, kLargestOfTwo, fixed.exponent);
    Bytes low(size);
    Bytes high(size);
    ToBytes(used, rows, x, columns, finer, low, &high);
    fixed.planes.push_back(PlaneOf(low, first_input, columns, finer));
    fixed.planes.push_back(PlaneOf(high, first_input, columns, finer - 8));
  }
  fixed.planes = InOrder(std::move(fixed.planes), columns);
  return fixed;
}

}  // namespace quicksave::compressor
