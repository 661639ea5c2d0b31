#include "compressor/model_adjuster.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "compressor/cpu_features.h"

namespace quicksave::compressor {
namespace {

// Code lengths are in quarters of a bit and below 64, so that four of them may be added up in a byte.
constexpr double kUnitsPerBit = 4;
constexpr double kLongest = 63;
constexpr double kEscapeBits = 16;
// An adjustment must save more than its own 8 bits.
constexpr int kAdjustmentCost = 32;
constexpr size_t kLanes = 16;

using Costs = std::array<uint16_t, kLanes>;
using ByteLanes = uint8_t __attribute__((vector_size(kLanes)));
using WordLanes = uint16_t __attribute__((vector_size(2 * kLanes)));

uint8_t CodeLength(const TableFrequencies& frequencies, int symbol) {
  const bool escape = symbol == kEscapeSymbol || frequencies[symbol] == 0;
  const double frequency = frequencies[escape ? kEscapeSymbol : symbol];
  const double bits = kFrequencyBits - std::log2(frequency) + (escape ? kEscapeBits : 0);
  return static_cast<uint8_t>(std::min(kLongest, std::round(bits * kUnitsPerBit)));
}

QUICKSAVE_INLINE ByteLanes Row(const uint8_t* bytes) {
  ByteLanes row;
  std::memcpy(&row, bytes, sizeof(row));
  return row;
}

// How values become places in rows of code lengths, see ModelAdjuster.
struct PlaceRule {
  // Added to a magnitude class, makes it the place counted from the bottom.
  uint16_t base;
  uint16_t flip;
  uint16_t places;
  // Places from one sign's to the other's.
  uint16_t row;
};

QUICKSAVE_INLINE void FindPlaces(absl::Span<const uint16_t> values, const PlaceRule& rule, uint16_t* places) {
  const auto [base, flip, count, row] = rule;
  const auto last = static_cast<uint16_t>(count - 1);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto above = static_cast<uint16_t>((values[i] >> kRawBits & (kMagnitudeClasses - 1)) + base);
    const auto from_top = static_cast<uint16_t>(last - std::min<uint16_t>(above, last));
    places[i] = static_cast<uint16_t>(from_top + (values[i] >> 15 ^ flip) * row);
  }
}

// Sums of code lengths, and the index of the least: of the first of them if there are several.
struct Sums {
  Costs costs;
  size_t cheapest;
};

// The lane-wise sum of the rows of 16 bytes that begin at rows[kStride * indices[i]].
template <size_t kStride>
Sums SumRowsPortable(const uint8_t* rows, absl::Span<const uint16_t> indices) {
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
  return {costs, static_cast<size_t>(std::min_element(costs.begin(), costs.end()) - costs.begin())};
}

void FindPlacesPortable(absl::Span<const uint16_t> values, const PlaceRule& rule, uint16_t* places) {
  FindPlaces(values, rule, places);
}

// The loops over values, compiled for several instruction sets.
struct Loops {
  void (*find_places)(absl::Span<const uint16_t> values, const PlaceRule& rule, uint16_t* places);
  Sums (*sum_by_shift)(const uint8_t* rows, absl::Span<const uint16_t> places);
  Sums (*sum_by_table)(const uint8_t* rows, absl::Span<const uint16_t> places);
};

constexpr Loops kPortable = {FindPlacesPortable, SumRowsPortable<1>, SumRowsPortable<kLanes>};

#if defined(__x86_64__)
QUICKSAVE_AVX2 void FindPlacesAvx2(absl::Span<const uint16_t> values, const PlaceRule& rule, uint16_t* places) {
  FindPlaces(values, rule, places);
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

// Without branches, which would be mispredicted.
QUICKSAVE_AVX2 QUICKSAVE_INLINE size_t Cheapest(__m256i costs) {
  const __m128i front = _mm_minpos_epu16(_mm256_castsi256_si128(costs));
  const __m128i back = _mm_minpos_epu16(_mm256_extracti128_si256(costs, 1));
  const bool in_front = _mm_extract_epi16(front, 0) <= _mm_extract_epi16(back, 0);
  return static_cast<size_t>(in_front ? _mm_extract_epi16(front, 1) : _mm_extract_epi16(back, 1) + kLanes / 2);
}

template <size_t kStride>
QUICKSAVE_AVX2 Sums SumRowsAvx2(const uint8_t* rows, absl::Span<const uint16_t> indices) {
  __m256i sums = _mm256_setzero_si256();
  const uint16_t* next = indices.data();
  const uint16_t* const end = next + indices.size();
  for (; end - next >= 8; next += 8) {
    const __m256i four = SumFour<kStride>(rows, next);
    sums = _mm256_add_epi16(sums, _mm256_add_epi16(four, SumFour<kStride>(rows, next + 4)));
  }
  for (; next != end; ++next) sums = _mm256_add_epi16(sums, _mm256_cvtepu8_epi16(LoadRow(rows + kStride * *next)));
  Sums found;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(found.costs.data()), sums);
  found.cheapest = Cheapest(sums);
  return found;
}

const Loops& LoopsOf(CpuPath path) {
  static constexpr Loops kAvx2 = {FindPlacesAvx2, SumRowsAvx2<1>, SumRowsAvx2<kLanes>};
  return path != CpuPath::kPortable && HaveAvx2() ? kAvx2 : kPortable;
}
#else
const Loops& LoopsOf(CpuPath /*path*/) { return kPortable; }
#endif

}  // namespace

uint8_t ModelAdjustment::Pack() const { return static_cast<uint8_t>(table << 4 | (shift - kMinShift)); }

ModelAdjustment ModelAdjustment::Unpack(uint8_t packed) {
  return {.table = static_cast<uint8_t>(packed >> 4), .shift = (packed & 15) + kMinShift};
}

std::optional<ChannelModel> ModelAdjustment::Apply(const ChannelModel& model, size_t tables) const {
  const int start = model.window_start + shift;
  if (table >= tables || start < 0 || start > kMaxWindowStart) return std::nullopt;
  return ChannelModel{.table = table, .flip_sign = model.flip_sign, .window_start = static_cast<uint16_t>(start)};
}

ModelAdjuster::ModelAdjuster(absl::Span<const TableFrequencies> tables)
    : tables_(tables.size()), by_shift_(tables.size()), by_table_() {
  static_assert(kShifts == kLanes && kMaxTables == kLanes);
  // A table that is not there is never cheaper than the first one, even if all values are escapes.
  for (auto& row : by_table_) row.fill(static_cast<uint8_t>(kLongest));
  for (size_t t = 0; t < tables.size(); ++t) {
    for (size_t i = 0; i < 2 * kRow; ++i) {
      const int place = kPlaces - 2 - static_cast<int>(i % kRow);
      const bool inside = place >= 0 && place < kWindowClasses;
      const int symbol = (i < kRow ? 0 : kWindowClasses) + place;
      by_shift_[t][i] = CodeLength(tables[t], inside ? symbol : kEscapeSymbol);
      by_table_[i][t] = by_shift_[t][i];
    }
  }
}

std::optional<ModelAdjustment> ModelAdjuster::Search(absl::Span<const uint16_t> values, const ChannelModel& model,
                                                     CpuPath path) const {
  const Loops& loops = LoopsOf(path);
  const PlaceRule rule = {.base = static_cast<uint16_t>(1 - ModelAdjustment::kMinShift - model.window_start),
                          .flip = static_cast<uint16_t>(model.flip_sign ? 1 : 0),
                          .places = kPlaces,
                          .row = kRow};
  std::array<uint16_t, kMaxBlockTokens> room;
  loops.find_places(values, rule, room.data());
  const absl::Span<const uint16_t> places(room.data(), values.size());
  const Sums unmoved = loops.sum_by_shift(by_shift_[model.table].data(), places);
  const size_t table = loops.sum_by_table(by_table_[unmoved.cheapest].data(), places).cheapest;
  const Sums moved = table == model.table ? unmoved : loops.sum_by_shift(by_shift_[table].data(), places);
  const ModelAdjustment adjustment{.table = static_cast<uint8_t>(table),
                                   .shift = static_cast<int>(moved.cheapest) + ModelAdjustment::kMinShift};
  const int saved = unmoved.costs[-ModelAdjustment::kMinShift] - moved.costs[moved.cheapest];
  const bool pays = saved > kAdjustmentCost;
  if (!pays || !adjustment.Apply(model, tables_).has_value()) return std::nullopt;
  return adjustment;
}

}  // namespace quicksave::compressor
