#include "compressor/latent/fixed_point.h"

#include <algorithm>
#include <bit>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compressor/latent/fixed_point.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_CC_
#define QUICKSAVE_COMPRESSOR_LATENT_FIXED_POINT_CC_
namespace quicksave::compressor {

// Larger magnitudes count as this.
inline constexpr float kLargestMagnitude = 1 << 26;
inline constexpr int kQuads = kExponentInputs / kQuad;

using FloatPerColumn = std::array<float, kColumnGroup>;

// Inputs that share their exponents, of a group of columns.
struct FixedSegment {
  absl::Span<const int> used;  // of kExponentInputs that follow each other, ascending
  const float* x;              // the first one's first column
  size_t stride;               // floats from input to input
};

}  // namespace quicksave::compressor
#endif

HWY_BEFORE_NAMESPACE();
namespace quicksave::compressor::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::CappedTag<float, 16>;
using Integers = hn::RebindToSigned<Floats>;
using Words = hn::RebindToUnsigned<Floats>;

// What is no number counts as 0.
HWY_INLINE hn::Vec<Floats> NumbersAt(const float* x) {
  const Floats d;
  const auto value = hn::LoadU(d, x);
  const auto number = hn::IfThenElseZero(hn::Eq(value, value), value);
  return hn::Max(hn::Set(d, -kLargestMagnitude), hn::Min(number, hn::Set(d, kLargestMagnitude)));
}

// The largest magnitude in each column.
void LargestImpl(const FixedSegment& segment, FloatPerColumn& largest) {
  const Floats d;
  for (size_t c = 0; c < kColumnGroup; c += hn::Lanes(d)) {
    auto most = hn::Zero(d);
    const float* x = segment.x + c;
    for (size_t i = 0; i < segment.used.size(); ++i, x += segment.stride) most = hn::Max(most, hn::Abs(NumbersAt(x)));
    hn::StoreU(most, d, largest.data() + c);
  }
}

// A plane that quads are appended to. Those that are zero are overwritten by the next one.
class PlaneWriter {
 public:
  explicit PlaneWriter(FixedPlane& plane) : plane_(plane), next_(plane.values.size()) {
    plane_.values.resize(next_ + size_t{kQuads} * kColumnGroup);
  }
  ~PlaneWriter() { plane_.values.resize(next_); }
  PlaneWriter(const PlaneWriter&) = delete;
  PlaneWriter& operator=(const PlaneWriter&) = delete;

  uint32_t* words() { return plane_.values.data() + next_; }
  void Keep(uint32_t quad) {
    plane_.quads.push_back(quad);
    next_ += kColumnGroup;
  }

 private:
  FixedPlane& plane_;
  size_t next_;
};

// Rounds the segment to multiples of 1 / scale, of two the even one, and appends one signed byte of it to a plane.
template <bool kIsHigh>
void AddByte(const FixedSegment& segment, const FloatPerColumn& scales, FixedPlane& plane) {
  const Floats d;
  const Integers di;
  const Words dw;
  PlaneWriter writer(plane);
  for (size_t i = 0; i < segment.used.size();) {
    const int quad = segment.used[i] / kQuad;
    size_t end = i + 1;
    while (end < segment.used.size() && segment.used[end] / kQuad == quad) ++end;
    auto any = hn::Zero(dw);
    for (size_t c = 0; c < kColumnGroup; c += hn::Lanes(d)) {
      const auto scale = hn::LoadU(d, scales.data() + c);
      auto words = hn::Zero(dw);
      auto sum = hn::LoadU(di, plane.sums.data() + c);
      for (size_t row = i; row < end; ++row) {
        auto byte = hn::NearestInt(hn::Mul(NumbersAt(segment.x + row * segment.stride + c), scale));
        const auto high = hn::ShiftRight<8>(hn::Add(byte, hn::Set(di, 128)));
        byte = kIsHigh ? high : hn::Sub(byte, hn::ShiftLeft<8>(high));
        sum = hn::Add(sum, byte);
        const auto low_bits = hn::And(hn::BitCast(dw, byte), hn::Set(dw, 0xff));
        words = hn::Or(words, hn::ShiftLeftSame(low_bits, 8 * (segment.used[row] % kQuad)));
      }
      hn::StoreU(words, dw, writer.words() + c);
      hn::StoreU(sum, di, plane.sums.data() + c);
      any = hn::Or(any, words);
    }
    if (!hn::AllTrue(dw, hn::Eq(any, hn::Zero(dw)))) writer.Keep(quad);
    i = end;
  }
}

void AddLowByteImpl(const FixedSegment& segment, const FloatPerColumn& scales, FixedPlane& plane) {
  AddByte<false>(segment, scales, plane);
}
void AddHighByteImpl(const FixedSegment& segment, const FloatPerColumn& scales, FixedPlane& plane) {
  AddByte<true>(segment, scales, plane);
}

}  // namespace quicksave::compressor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::compressor {
namespace {

HWY_EXPORT(LargestImpl);
HWY_EXPORT(AddLowByteImpl);
HWY_EXPORT(AddHighByteImpl);

// The exponent of the largest magnitude that a byte holds, and two bytes, of which the lower one is signed as well.
constexpr int kByteExponent = 6;
constexpr int kTwoBytesExponent = kByteExponent + 8;

// Of a group of columns, `x` being its first one.
std::vector<FixedSegment> SegmentsOf(absl::Span<const int> used, const float* x, size_t stride) {
  std::vector<FixedSegment> segments;
  for (size_t first = 0; first < used.size();) {
    size_t end = first + 1;
    while (end < used.size() && used[end] / kExponentInputs == used[first] / kExponentInputs) ++end;
    segments.push_back({.used = used.subspan(first, end - first), .x = x + first * stride, .stride = stride});
    first = end;
  }
  return segments;
}

// The largest exponent, at most `most`, at which a magnitude is no larger than 127/128 of 2^(exponent_of_limit + 1).
int FinestExponent(float magnitude, int exponent_of_limit, int most) {
  constexpr uint32_t kMantissaOfLimit = 0x7e0000;
  const auto bits = std::bit_cast<uint32_t>(magnitude);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  return std::min(exponent_of_limit - exponent - ((bits & 0x7fffff) > kMantissaOfLimit ? 1 : 0), most);
}

// 2^exponent, for exponents of normal numbers.
float PowerOfTwo(int exponent) { return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23); }

// Of each column the finest exponent at which no sum of products can overflow.
PerColumn CommonExponents(const std::vector<FloatPerColumn>& largest) {
  PerColumn exponents;
  for (int c = 0; c < kColumnGroup; ++c) {
    double sum = 0;
    for (const FloatPerColumn& one : largest) sum += static_cast<double>(one[c]) + 1;
    exponents[c] = kFinestExponent;
    // 128 and not 127 makes room for rounding.
    for (sum *= kExponentInputs * 128 * PowerOfTwo(kFinestExponent); sum >= 0x1p31; sum /= 2) --exponents[c];
  }
  return exponents;
}

// The last plane where it has these shifts, otherwise a new one.
FixedPlane& PlaneWith(const PerColumn& shifts, std::vector<FixedPlane>& planes) {
  if (planes.empty() || planes.back().shifts != shifts) planes.push_back({.shifts = shifts});
  return planes.back();
}

FixedPointGroup GroupOf(absl::Span<const int> used, const float* x, int columns, int least_exponent) {
  const std::vector<FixedSegment> segments = SegmentsOf(used, x, columns);
  std::vector<FloatPerColumn> largest(segments.size());
  for (size_t i = 0; i < segments.size(); ++i) HWY_DYNAMIC_DISPATCH(LargestImpl)(segments[i], largest[i]);
  FixedPointGroup group{.exponents = CommonExponents(largest)};
  for (size_t i = 0; i < segments.size(); ++i) {
    FloatPerColumn scales;
    PerColumn low_shifts;
    PerColumn high_shifts;
    bool has_high = false;
    for (int c = 0; c < kColumnGroup; ++c) {
      const int common = group.exponents[c];
      int exponent = FinestExponent(largest[i][c], kByteExponent, common);
      if (exponent < std::min(least_exponent, common)) {
        exponent = FinestExponent(largest[i][c], kTwoBytesExponent, common);
        has_high = true;
      }
      scales[c] = PowerOfTwo(exponent);
      low_shifts[c] = common - exponent;
      high_shifts[c] = common - exponent + 8;
    }
    HWY_DYNAMIC_DISPATCH(AddLowByteImpl)(segments[i], scales, PlaneWith(low_shifts, group.planes));
    if (!has_high) continue;
    HWY_DYNAMIC_DISPATCH(AddHighByteImpl)(segments[i], scales, PlaneWith(high_shifts, group.planes));
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
#endif
