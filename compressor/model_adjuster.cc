#include "compressor/model_adjuster.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace quicksave::compressor {
namespace {

constexpr double kUnitsPerBit = 4;
constexpr double kLongest = 63;
constexpr double kEscapeBits = 16;
// An adjustment must save more than its own 8 bits.
constexpr int kAdjustmentCost = 32;
// The shift that does nothing.
constexpr int kUnmoved = -kMinShift;
// Shifts that are tried on either side of the one that was guessed.
constexpr int kReach = 1;
constexpr size_t kTried = 2 * kReach + 1;

uint8_t CodeLength(const TableFrequencies& frequencies, int symbol) {
  const bool escape = symbol == kEscapeSymbol || frequencies[symbol] == 0;
  const double frequency = frequencies[escape ? kEscapeSymbol : symbol];
  const double bits = kFrequencyBits - std::log2(frequency) + (escape ? kEscapeBits : 0);
  return static_cast<uint8_t>(std::min(kLongest, std::round(bits * kUnitsPerBit)));
}

ShiftCosts CostsOf(const TableFrequencies& frequencies) {
  ShiftCosts costs;
  for (size_t i = 0; i < costs.size(); ++i) {
    const int place = kWindowClasses - 1 - (static_cast<int>(i % kCostRow) - static_cast<int>(kFirstInside));
    const bool inside = place >= 0 && place < kWindowClasses;
    const int symbol = (i < kCostRow ? 0 : kWindowClasses) + place;
    costs[i] = CodeLength(frequencies, inside ? symbol : kEscapeSymbol);
  }
  return costs;
}

// The mean place of a table's symbols under an unmoved window, escapes left out.
double MeanPlace(const TableFrequencies& frequencies) {
  double sum = 0;
  double total = 0;
  for (int symbol = 0; symbol < kEscapeSymbol; ++symbol) {
    const int place = kWindowClasses - 1 - symbol % kWindowClasses + static_cast<int>(kFirstInside) - kUnmoved;
    sum += static_cast<double>(frequencies[symbol]) * place;
    total += frequencies[symbol];
  }
  return total > 0 ? sum / total : 0;
}

// Asks for values that are needed soon.
void Prefetch(absl::Span<const uint16_t> values, size_t first, size_t count) {
  constexpr size_t kCacheLine = 64 / sizeof(uint16_t);
  const size_t end = std::min(first + count, values.size());
  for (; first < end; first += kCacheLine) __builtin_prefetch(&values[first]);
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

ModelAdjuster::ModelAdjuster(absl::Span<const TableFrequencies> tables) : by_table_() {
  // A table that is not there is never cheaper than the first one, even if all values are escapes.
  for (auto& row : by_table_) row.fill(static_cast<uint8_t>(kLongest));
  for (size_t t = 0; t < tables.size(); ++t) {
    by_shift_.push_back(CostsOf(tables[t]));
    shifts_at_zero_.push_back(MeanPlace(tables[t]) + kUnmoved + 0.5);
    for (size_t i = 0; i < by_table_.size(); ++i) by_table_[i][t] = by_shift_[t][i];
  }
}

void ModelAdjuster::Search(absl::Span<const uint16_t> values, size_t tokens, absl::Span<const ChannelModel> models,
                           absl::Span<std::optional<ModelAdjustment>> found, CpuPath path) const {
  // Step by step for some channels at a time: each step waits for the one before, but not for other channels.
  constexpr size_t kChannels = 8;
  std::array<Places, kChannels> places;
  std::array<ModelAdjustment, kChannels> best;
  std::array<size_t, kChannels> guesses;
  std::array<int, kChannels> saved;
  for (size_t begin = 0; begin < models.size(); begin += kChannels) {
    const size_t count = std::min(kChannels, models.size() - begin);
    for (size_t i = 0; i < count; ++i) {
      const ChannelModel& model = models[begin + i];
      Prefetch(values, (begin + i + kChannels) * tokens, tokens);
      FindPlaces(values.subspan((begin + i) * tokens, tokens), model, places[i], path);
      // Larger values have places further up, which are lower numbers.
      const double mean = static_cast<double>(places[i].sum) / std::max(places[i].coded, 1);
      guesses[i] = std::clamp(static_cast<int>(shifts_at_zero_[model.table] - mean), 0, static_cast<int>(kShifts) - 1);
    }
    for (size_t i = 0; i < count; ++i) {
      best[i].table = static_cast<uint8_t>(CheapestTable(by_table_, places[i], guesses[i], path));
    }
    for (size_t i = 0; i < count; ++i) {
      const size_t first = std::clamp(static_cast<int>(guesses[i]) - kReach, 0, static_cast<int>(kShifts - kTried));
      const Costs moved = CostsOfShifts(by_shift_[best[i].table], places[i], first, first + kTried - 1, path);
      size_t shift = first;
      for (size_t j = first + 1; j < first + kTried; ++j) shift = moved[j] < moved[shift] ? j : shift;
      best[i].shift = static_cast<int>(shift) + kMinShift;
      saved[i] = -moved[shift];
    }
    for (size_t i = 0; i < count; ++i) {
      saved[i] += CostsOfShifts(by_shift_[models[begin + i].table], places[i], kUnmoved, kUnmoved, path)[kUnmoved];
    }
    for (size_t i = 0; i < count; ++i) {
      const bool pays = saved[i] > kAdjustmentCost && best[i].Apply(models[begin + i], by_shift_.size()).has_value();
      found[begin + i] = pays ? std::optional(best[i]) : std::nullopt;
    }
  }
}

}  // namespace quicksave::compressor
