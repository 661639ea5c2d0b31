#include "compressor/model_adjuster.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace quicksave::compressor {
namespace {

// Code lengths are in quarters of a bit and below 64, so that four of them may be added up in a byte.
constexpr double kUnitsPerBit = 4;
constexpr double kLongest = 63;
constexpr double kEscapeBits = 16;
// An adjustment must save more than its own 8 bits.
constexpr int kAdjustmentCost = 32;
constexpr size_t kLanes = 16;

using ByteLanes = uint8_t __attribute__((vector_size(kLanes)));
using HalfLanes = uint8_t __attribute__((vector_size(kLanes / 2)));
using WordLanes = uint16_t __attribute__((vector_size(kLanes)));

uint8_t CodeLength(const TableFrequencies& frequencies, int symbol) {
  const bool escape = symbol == kEscapeSymbol || frequencies[symbol] == 0;
  const double frequency = frequencies[escape ? kEscapeSymbol : symbol];
  const double bits = kFrequencyBits - std::log2(frequency) + (escape ? kEscapeBits : 0);
  return static_cast<uint8_t>(std::min(kLongest, std::round(bits * kUnitsPerBit)));
}

inline ByteLanes Row(const uint8_t* rows, size_t stride, uint16_t index) {
  ByteLanes row;
  std::memcpy(&row, rows + stride * index, sizeof(row));
  return row;
}

inline WordLanes Widen(const ByteLanes& bytes, size_t half) {
  HalfLanes lanes;
  std::memcpy(&lanes, reinterpret_cast<const char*>(&bytes) + half * sizeof(lanes), sizeof(lanes));
  return __builtin_convertvector(lanes, WordLanes);
}

// The lane-wise sum of the rows of 16 bytes that begin at rows[kStride * indices[i]].
template <size_t kStride>
std::array<uint16_t, kLanes> SumRows(const uint8_t* rows, absl::Span<const uint16_t> indices) {
  WordLanes low = {};
  WordLanes high = {};
  size_t i = 0;
  const auto add = [&](ByteLanes bytes) {
    low += Widen(bytes, 0);
    high += Widen(bytes, 1);
  };
  for (; i + 4 <= indices.size(); i += 4) {
    const uint16_t* const four = indices.data() + i;
    add((Row(rows, kStride, four[0]) + Row(rows, kStride, four[1])) +
        (Row(rows, kStride, four[2]) + Row(rows, kStride, four[3])));
  }
  for (; i < indices.size(); ++i) add(Row(rows, kStride, indices[i]));
  std::array<uint16_t, kLanes> sums;
  std::memcpy(sums.data(), &low, sizeof(low));
  std::memcpy(sums.data() + kLanes / 2, &high, sizeof(high));
  return sums;
}

template <size_t kCount>
size_t Cheapest(const std::array<uint16_t, kCount>& costs, size_t count) {
  return static_cast<size_t>(std::min_element(costs.begin(), costs.begin() + static_cast<ptrdiff_t>(count)) -
                             costs.begin());
}

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

ModelAdjuster::Costs ModelAdjuster::ShiftCosts(size_t table, absl::Span<const uint16_t> places) const {
  return SumRows<1>(by_shift_[table].data(), places);
}

ModelAdjuster::Costs ModelAdjuster::TableCosts(int shift, absl::Span<const uint16_t> places) const {
  return SumRows<kMaxTables>(by_table_[static_cast<size_t>(shift - ModelAdjustment::kMinShift)].data(), places);
}

std::optional<ModelAdjustment> ModelAdjuster::Search(absl::Span<const uint16_t> values,
                                                     const ChannelModel& model) const {
  Places places;
  const uint16_t flip = model.flip_sign ? 1 : 0;
  const auto base = static_cast<uint16_t>(1 - ModelAdjustment::kMinShift - model.window_start);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto above = static_cast<uint16_t>((values[i] >> kRawBits & (kMagnitudeClasses - 1)) + base);
    const auto from_top = static_cast<uint16_t>(kPlaces - 1 - std::min<uint16_t>(above, kPlaces - 1));
    places[i] = static_cast<uint16_t>(from_top + (values[i] >> 15 ^ flip) * kRow);
  }
  const absl::Span<const uint16_t> used(places.data(), values.size());
  const Costs unmoved = ShiftCosts(model.table, used);
  const int first_shift = static_cast<int>(Cheapest(unmoved, kShifts)) + ModelAdjustment::kMinShift;
  const size_t table = Cheapest(TableCosts(first_shift, used), tables_);
  const Costs moved = ShiftCosts(table, used);
  const size_t best = Cheapest(moved, kShifts);
  const ModelAdjustment adjustment{.table = static_cast<uint8_t>(table),
                                   .shift = static_cast<int>(best) + ModelAdjustment::kMinShift};
  const bool pays = moved[best] + kAdjustmentCost < unmoved[static_cast<size_t>(-ModelAdjustment::kMinShift)];
  if (!pays || !adjustment.Apply(model, tables_).has_value()) return std::nullopt;
  return adjustment;
}

}  // namespace quicksave::compressor
