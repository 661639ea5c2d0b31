#include "compressor/model_costs.h"

#include <algorithm>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quicksave::compressor {
namespace {

constexpr size_t kLanes = 16;
static_assert(kShifts == kLanes && kMaxTables == kLanes);

using ByteLanes = uint8_t __attribute__((vector_size(kLanes)));
using WordLanes = uint16_t __attribute__((vector_size(2 * kLanes)));

QUICKSAVE_INLINE void FindRows(absl::Span<const uint16_t> values, const ChannelModel& model, Places& places) {
  // Added to a magnitude class, makes it the place counted from the bottom.
  const auto base = static_cast<uint16_t>(1 - kMinShift - model.window_start);
  const auto flip = static_cast<uint16_t>(model.flip_sign ? 1 : 0);
  const auto last = static_cast<uint16_t>(kPlaces - 1);
  uint16_t* const rows = places.rows.data();
  int sum = 0;
  int coded = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto above = static_cast<uint16_t>((values[i] >> kRawBits & (kMagnitudeClasses - 1)) + base);
    const auto place = static_cast<uint16_t>(last - std::min<uint16_t>(above, last));
    rows[i] = static_cast<uint16_t>(place + (values[i] >> 15 ^ flip) * kCostRow);
    sum += place;
    coded += place != 0 ? 1 : 0;
  }
  places.count = values.size();
  places.sum = sum;
  places.coded = coded;
}

absl::Span<const uint16_t> RowsOf(const Places& places) { return {places.rows.data(), places.count}; }
absl::Span<const uint16_t> FirstHalf(const Places& places) { return {places.rows.data(), (places.count + 1) / 2}; }

QUICKSAVE_INLINE ByteLanes Row(const uint8_t* bytes) {
  ByteLanes row;
  std::memcpy(&row, bytes, sizeof(row));
  return row;
}

// The lane-wise sum of the rows of 16 bytes that begin at rows[kStride * indices[i]].
template <size_t kStride>
Costs SumRowsPortable(const uint8_t* rows, absl::Span<const uint16_t> indices) {
  WordLanes sums = {};
  size_t i = 0;
  for (; i + 4 <= indices.size(); i += 4) {
    const uint16_t* const four = indices.data() + i;
    const ByteLanes sum = (Row(rows + kStride * four[0]) + Row(rows + kStride * four[1])) +
                          (Row(rows + kStride * four[2]) + Row(rows + kStride * four[3]));
    sums += __builtin_convertvector(sum, WordLanes);
  }
  for (; i < indices.size(); ++i) sums += __builtin_convertvector(Row(rows + kStride * indices[i]), WordLanes);
  Costs costs;
  std::memcpy(costs.data(), &sums, sizeof(sums));
  return costs;
}

#if defined(__x86_64__)
bool IsWide(CpuPath path) { return (path == CpuPath::kFastest || path == CpuPath::kAvx512) && HaveAvx512(); }

QUICKSAVE_AVX2 void FindRowsAvx2(absl::Span<const uint16_t> values, const ChannelModel& model, Places& places) {
  FindRows(values, model, places);
}

QUICKSAVE_AVX2 QUICKSAVE_INLINE __m128i LoadRow(const uint8_t* row) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row));
}

template <size_t kStride>
QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i SumFour(const uint8_t* rows, const uint16_t* indices) {
  const __m128i front = _mm_add_epi8(LoadRow(rows + kStride * indices[0]), LoadRow(rows + kStride * indices[1]));
  const __m128i back = _mm_add_epi8(LoadRow(rows + kStride * indices[2]), LoadRow(rows + kStride * indices[3]));
  // The compilers do not find the instruction that widens 16 lanes.
  return _mm256_cvtepu8_epi16(_mm_add_epi8(front, back));
}

template <size_t kStride>
QUICKSAVE_AVX2 QUICKSAVE_INLINE __m256i SumRowsAvx2(const uint8_t* rows, absl::Span<const uint16_t> indices) {
  __m256i sums = _mm256_setzero_si256();
  const uint16_t* next = indices.data();
  const uint16_t* const end = next + indices.size();
  for (; end - next >= 8; next += 8) {
    const __m256i four = SumFour<kStride>(rows, next);
    sums = _mm256_add_epi16(sums, _mm256_add_epi16(four, SumFour<kStride>(rows, next + 4)));
  }
  for (; next != end; ++next) sums = _mm256_add_epi16(sums, _mm256_cvtepu8_epi16(LoadRow(rows + kStride * *next)));
  return sums;
}

QUICKSAVE_AVX2 Costs CostsOfShiftsAvx2(const ShiftCosts& costs, absl::Span<const uint16_t> places) {
  Costs sums;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums.data()), SumRowsAvx2<1>(costs.data(), places));
  return sums;
}

// Without branches, which would be mispredicted.
QUICKSAVE_AVX2 size_t CheapestTableAvx2(const uint8_t* rows, absl::Span<const uint16_t> places) {
  const __m256i sums = SumRowsAvx2<kMaxTables>(rows, places);
  const __m128i front = _mm_minpos_epu16(_mm256_castsi256_si128(sums));
  const __m128i back = _mm_minpos_epu16(_mm256_extracti128_si256(sums, 1));
  const bool in_front = _mm_extract_epi16(front, 0) <= _mm_extract_epi16(back, 0);
  return static_cast<size_t>(in_front ? _mm_extract_epi16(front, 1) : _mm_extract_epi16(back, 1) + kLanes / 2);
}
#endif

}  // namespace

void FindPlaces(absl::Span<const uint16_t> values, const ChannelModel& model, Places& places, CpuPath path) {
#if defined(__x86_64__)
  if (IsWide(path)) return FindPlacesAvx512(values, model, places);
  if (path != CpuPath::kPortable && HaveAvx2()) return FindRowsAvx2(values, model, places);
#endif
  FindRows(values, model, places);
}

size_t CheapestTable(const TableCosts& costs, const Places& places, size_t shift, CpuPath path) {
  const uint8_t* const rows = costs[shift].data();
#if defined(__x86_64__)
  if (path != CpuPath::kPortable && HaveAvx2()) return CheapestTableAvx2(rows, FirstHalf(places));
#endif
  const auto sums = SumRowsPortable<kMaxTables>(rows, FirstHalf(places));
  return static_cast<size_t>(std::min_element(sums.begin(), sums.end()) - sums.begin());
}

Costs CostsOfShifts(const ShiftCosts& costs, const Places& places, size_t first, size_t last, CpuPath path) {
#if defined(__x86_64__)
  if (IsWide(path)) return CostsOfShiftsAvx512(costs, places, first, last);
  if (path != CpuPath::kPortable && HaveAvx2()) return CostsOfShiftsAvx2(costs, RowsOf(places));
#endif
  return SumRowsPortable<1>(costs.data(), RowsOf(places));
}

}  // namespace quicksave::compressor
