#include "compressor/entropy_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace quicksave::compressor {
namespace {

// A symbol with less than this share of one frequency unit costs less as an escape than as a frequency of 1.
constexpr double kMinimalShare = 0.35;
// Frequency of the escape in the built-in tables.
constexpr uint16_t kBuiltinEscape = 4;

// How much longer the code gets, in units of counts, when a frequency grows by `step`.
double CostOfStep(double count, int frequency, int step) {
  return count * std::log2(static_cast<double>(frequency) / (frequency + step));
}

// Moves the sum of frequencies to the total, each time where it costs least.
void BalanceFrequencies(absl::Span<const double> counts, TableFrequencies& frequencies) {
  int missing = static_cast<int>(kFrequencyTotal) - std::accumulate(frequencies.begin(), frequencies.end(), 0);
  while (missing != 0) {
    const int step = missing > 0 ? 1 : -1;
    int best = -1;
    double best_cost = 0;
    for (int s = 0; s < kSymbols; ++s) {
      if (frequencies[s] == 0 || frequencies[s] + step < 1) continue;
      const double cost = CostOfStep(counts[s], frequencies[s], step);
      if (best < 0 || cost < best_cost) {
        best = s;
        best_cost = cost;
      }
    }
    frequencies[best] = static_cast<uint16_t>(frequencies[best] + step);
    missing -= step;
  }
}

// 1 / (1 + (d / sigma)^2 / 16)^8 in units of 2^-24, where sigma is 2^15: integers, so that every machine agrees.
uint64_t BellCurve(int64_t d) {
  const uint64_t square = static_cast<uint64_t>(d * d) >> 10;
  uint64_t power = (uint64_t{1} << 48) / ((uint64_t{1} << 24) + square);
  for (int i = 0; i < 3; ++i) power = power * power >> 24;
  return power;
}

// Lower edge of window place k, in units where sigma is 2^15: eight steps per octave.
int64_t LowerEdge(int k) { return static_cast<int64_t>(8 + k % 8) << (k / 8); }

// Weights below half a frequency unit become 0: those symbols are escapes.
void KeepLiveWeights(std::array<uint64_t, kSymbols>& weights) {
  const uint64_t total = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  for (uint64_t& weight : weights) {
    if (weight * (2 * kFrequencyTotal) < total) weight = 0;
  }
  weights[kEscapeSymbol] = 0;
}

// One unit to each live symbol, kBuiltinEscape to the escape, the rest in proportion by rounding the running sum down.
TableFrequencies ShareOut(const std::array<uint64_t, kSymbols>& weights) {
  const uint64_t total = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  const auto live = std::count_if(weights.begin(), weights.end(), [](uint64_t weight) { return weight > 0; });
  const uint64_t rest = kFrequencyTotal - kBuiltinEscape - static_cast<uint64_t>(live);
  TableFrequencies frequencies = {};
  uint64_t sum = 0;
  for (int s = 0; s < kEscapeSymbol; ++s) {
    if (weights[s] == 0) continue;
    const uint64_t before = sum * rest / total;
    sum += weights[s];
    frequencies[s] = static_cast<uint16_t>(1 + sum * rest / total - before);
  }
  frequencies[kEscapeSymbol] = kBuiltinEscape;
  return frequencies;
}

}  // namespace

const std::array<uint16_t, kMaxTables> kBuiltinMeans = {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 19, 25, 34, 52};

uint16_t ChannelModel::Pack() const {
  return static_cast<uint16_t>(table << 12 | static_cast<int>(flip_sign) << 11 | window_start);
}

ChannelModel ChannelModel::Unpack(uint16_t packed) {
  return {.table = static_cast<uint8_t>(packed >> 12),
          .flip_sign = (packed >> 11 & 1) != 0,
          .window_start = static_cast<uint16_t>(packed & 0x7ff)};
}

absl::Status ValidateFrequencies(const TableFrequencies& frequencies) {
  uint32_t total = 0;
  for (const uint16_t frequency : frequencies) {
    if (frequency >= kFrequencyTotal) return absl::InvalidArgumentError("a frequency is not below the total");
    total += frequency;
  }
  if (total != kFrequencyTotal) {
    return absl::InvalidArgumentError(absl::StrCat("frequencies add up to ", total, ", not ", kFrequencyTotal));
  }
  if (frequencies[kEscapeSymbol] == 0) return absl::InvalidArgumentError("the escape has no frequency");
  return absl::OkStatus();
}

TableFrequencies QuantizeFrequencies(absl::Span<const uint64_t> counts) {
  std::array<double, kSymbols> kept = {};
  const double total = std::max(1.0, std::accumulate(counts.begin(), counts.end(), 0.0));
  for (int s = 0; s < kSymbols; ++s) {
    const bool live = counts[s] * kFrequencyTotal / total >= kMinimalShare;
    kept[live ? s : kEscapeSymbol] += static_cast<double>(counts[s]);
  }
  TableFrequencies frequencies = {};
  for (int s = 0; s < kSymbols; ++s) {
    // Two symbols are always there, so that none takes the whole range, which the decoder's form cannot express.
    if (kept[s] == 0 && s != kEscapeSymbol && s != 0) continue;
    const double share = std::round(kept[s] * kFrequencyTotal / total);
    frequencies[s] = static_cast<uint16_t>(std::clamp(share, 1.0, kFrequencyTotal - 1.0));
  }
  BalanceFrequencies(kept, frequencies);
  return frequencies;
}

EncodeTable::EncodeTable(const TableFrequencies& frequencies) {
  uint32_t start = 0;
  for (int s = 0; s < kSymbols; ++s) {
    const uint32_t frequency = frequencies[s];
    symbols[s] = {.reciprocal = frequency == 0 ? 0 : ~uint32_t{0} / frequency,
                  .frequency = static_cast<uint16_t>(frequency),
                  .start = static_cast<uint16_t>(start)};
    start += frequency;
  }
}

DecodeTable::DecodeTable(const TableFrequencies& frequencies) {
  uint32_t slot = 0;
  for (uint32_t s = 0; s < kSymbols; ++s) {
    const uint32_t frequency = frequencies[s];
    for (uint32_t offset = 0; offset < frequency; ++offset) slots[slot++] = s | frequency << 8 | offset << 20;
  }
}

TableFrequencies BuiltinTable(size_t index) {
  const int64_t mean = static_cast<int64_t>(kBuiltinMeans[index]) << 13;
  std::array<uint64_t, kSymbols> weights = {};
  for (int k = 0; k < kWindowClasses; ++k) {
    const int64_t low = LowerEdge(k);
    const int64_t width = LowerEdge(k + 1) - low;
    const int64_t middle = low + width / 2;
    weights[k] = BellCurve(middle - mean) * static_cast<uint64_t>(width);
    weights[kWindowClasses + k] = BellCurve(middle + mean) * static_cast<uint64_t>(width);
  }
  KeepLiveWeights(weights);
  return ShareOut(weights);
}

}  // namespace quicksave::compressor
