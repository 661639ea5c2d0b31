// Code lengths of a channel's values under several models at a time; what ModelAdjuster's search is made of.

#ifndef QUICKSAVE_COMPRESSOR_MODEL_COSTS_H_
#define QUICKSAVE_COMPRESSOR_MODEL_COSTS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "compressor/block.h"
#include "compressor/cpu_features.h"
#include "compressor/entropy_table.h"

namespace quicksave::compressor {

// A table's window is moved by `kMinShift` classes or more, in so many ways.
inline constexpr int kMinShift = -8;
inline constexpr size_t kShifts = 16;

// Places that a value may have relative to the unmoved window: all that some shift brings inside, and one on either
// side. They are counted from the top, so that a value's code lengths under ascending shifts stand side by side, from
// its place on.
inline constexpr int kPlaces = kWindowClasses + static_cast<int>(kShifts) + 2;
// Code lengths of one sign: by place of the window's moved by kMinShift, kWindowClasses of them inside.
inline constexpr size_t kCostRow = kPlaces + kShifts;
inline constexpr size_t kFirstInside = kShifts + 1;
// Both signs; what is outside of the window has the code length of escapes. Code lengths are in quarters of a bit and
// below 64, so that four of them may be added up in a byte.
using ShiftCosts = std::array<uint8_t, 2 * kCostRow>;
// The same of all tables, side by side.
using TableCosts = std::array<std::array<uint8_t, kMaxTables>, 2 * kCostRow>;

// Of as many shifts.
using Costs = std::array<uint16_t, kShifts>;

// Where a channel's values are in rows of code lengths. Negative ones (positive ones, if the model flips signs) are in
// the second row.
struct Places {
  size_t count = 0;
  // Of the places, without the rows, and how many are not 0, where values are that are far from all windows.
  int sum = 0;
  int coded = 0;
  alignas(64) std::array<uint16_t, kMaxBlockTokens> rows;  // kCostRow more in the second row
  // The same, for AVX-512.
  alignas(64) std::array<uint8_t, kMaxBlockTokens> places;
  std::array<uint32_t, kMaxBlockTokens / 32> in_second{};  // a bit for each
};

// Of at most kMaxBlockTokens values. The costs of places are to be asked for on the same path.
void FindPlaces(absl::Span<const uint16_t> values, const ChannelModel& model, Places& places,
                CpuPath path = CpuPath::kFastest);

// The table under which the first half of the values is the shortest, windows being moved by kMinShift + shift; the
// first of them if there are several.
size_t CheapestTable(const TableCosts& costs, const Places& places, size_t shift, CpuPath path = CpuPath::kFastest);

// The code length of all values under a table whose window is moved by kMinShift + first to kMinShift + last. The
// others are right, too, or 0.
Costs CostsOfShifts(const ShiftCosts& costs, const Places& places, size_t first, size_t last,
                    CpuPath path = CpuPath::kFastest);

// For x86, only where HaveAvx512().
void FindPlacesAvx512(absl::Span<const uint16_t> values, const ChannelModel& model, Places& places);
Costs CostsOfShiftsAvx512(const ShiftCosts& costs, const Places& places, size_t first, size_t last);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_MODEL_COSTS_H_
