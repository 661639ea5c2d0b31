// Clusters channels by their distributions, as k-means does with code length for a distance: each channel joins the
// table that codes it in the fewest bits, after moving its window by a few classes, and each table becomes its
// channels' sum.

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/exact_profile.h"

namespace quicksave::compressor {
namespace {

// Magnitudes from 2^-22 up to 2^10 are counted, eight classes to the octave.
constexpr int kFirstCountedClass = (127 - 22) * 8;
constexpr int kCountedClasses = 256;
constexpr size_t kCountsPerChannel = 2 * kCountedClasses;
constexpr int kMaxStart = kCountedClasses - kWindowClasses;
constexpr int kRounds = 10;
// The window begins this many classes below the channel's median at first.
constexpr int kClassesBelowMedian = 96;
constexpr int kLargestMove = 2;
constexpr size_t kFingerprintLimit = 4096;
// Bits that an escaped value costs beside its symbol, and the unit of code lengths.
constexpr uint64_t kEscapeBits = 16;
constexpr uint64_t kLengthUnit = 256;

using Lengths = std::array<uint32_t, kSymbols>;
using Counts = std::array<uint64_t, kSymbols>;

// A channel's counts and how it is coded at present. Windows here start at 0 to kMaxStart, from kFirstCountedClass.
struct Channel {
  const uint32_t* counts = nullptr;
  uint64_t total = 0;
  bool flip = false;
  int start = 0;
  size_t table = 0;

  // Counts of symbols 0-127 if `negative` is false, else of 128-255, for a window start.
  const uint32_t* Window(bool negative, int window_start) const {
    return counts + ((negative != flip) ? kCountedClasses : 0) + window_start;
  }
};

uint64_t Sum(const uint32_t* counts, int n) { return std::accumulate(counts, counts + n, uint64_t{0}); }

// The first counted class that has half of the values at or below it.
int MedianClass(const Channel& channel) {
  uint64_t below = 0;
  for (int k = 0; k < kCountedClasses; ++k) {
    below += channel.counts[k] + channel.counts[kCountedClasses + k];
    if (2 * below >= channel.total) return k;
  }
  return kCountedClasses / 2;
}

Channel MakeChannel(const uint32_t* counts, uint64_t total) {
  Channel channel{.counts = counts, .total = total};
  channel.flip = Sum(counts + kCountedClasses, kCountedClasses) > Sum(counts, kCountedClasses);
  channel.start = std::clamp(MedianClass(channel) - kClassesBelowMedian, 0, kMaxStart);
  return channel;
}

// Adds the channel's values as symbols; those of the escape symbol's own class are escapes, too.
void AddSymbols(const Channel& channel, Counts& counts) {
  uint64_t inside = 0;
  for (int k = 0; k < kWindowClasses; ++k) {
    const uint64_t positive = channel.Window(false, channel.start)[k];
    const uint64_t negative = channel.Window(true, channel.start)[k];
    inside += positive + negative;
    counts[k] += positive;
    counts[kWindowClasses + k] += negative;
  }
  counts[kEscapeSymbol] += channel.total - inside;
}

Lengths CodeLengths(const TableFrequencies& frequencies) {
  const auto bits = [](uint32_t frequency) {
    return static_cast<uint32_t>(std::lround(kLengthUnit * (kFrequencyBits - std::log2(frequency))));
  };
  const uint32_t escape = bits(frequencies[kEscapeSymbol]) + kEscapeBits * kLengthUnit;
  Lengths lengths;
  for (int s = 0; s < kSymbols; ++s) lengths[s] = frequencies[s] == 0 ? escape : bits(frequencies[s]);
  lengths[kEscapeSymbol] = escape;
  return lengths;
}

uint64_t WindowCost(const uint32_t* counts, const uint32_t* lengths, uint64_t& inside) {
  uint64_t cost = 0;
  for (int k = 0; k < kWindowClasses; ++k) {
    cost += uint64_t{counts[k]} * lengths[k];
    inside += counts[k];
  }
  return cost;
}

uint64_t Cost(const Channel& channel, int start, const Lengths& lengths) {
  uint64_t inside = 0;
  uint64_t cost = WindowCost(channel.Window(false, start), lengths.data(), inside);
  cost += WindowCost(channel.Window(true, start), lengths.data() + kWindowClasses, inside);
  return cost + (channel.total - inside) * lengths[kEscapeSymbol];
}

// Chooses the cheapest table and window start near the present one.
void Reassign(absl::Span<const Lengths> tables, Channel& channel) {
  const int low = std::max(0, channel.start - kLargestMove);
  const int high = std::min(kMaxStart, channel.start + kLargestMove);
  uint64_t best = ~uint64_t{0};
  for (int start = low; start <= high; ++start) {
    for (size_t t = 0; t < tables.size(); ++t) {
      const uint64_t cost = Cost(channel, start, tables[t]);
      if (cost >= best) continue;
      best = cost;
      channel.start = start;
      channel.table = t;
    }
  }
}

// First guess: channels in the order of how one-sided and how narrow they are, in equal parts.
void AssignInitially(size_t tables, std::vector<Channel>& channels) {
  const auto key = [](const Channel& channel) {
    const uint64_t majority = Sum(channel.Window(false, 0), kCountedClasses);
    const int median = MedianClass(channel);
    uint64_t near = 0;
    for (int k = std::max(0, median - 4); k <= std::min(kCountedClasses - 1, median + 4); ++k) {
      near += channel.counts[k] + channel.counts[kCountedClasses + k];
    }
    return std::pair(majority * 8 / std::max<uint64_t>(1, channel.total), near);
  };
  std::vector<std::pair<std::pair<uint64_t, uint64_t>, size_t>> order;
  for (size_t c = 0; c < channels.size(); ++c) order.emplace_back(key(channels[c]), c);
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < order.size(); ++i) channels[order[i].second].table = i * tables / order.size();
}

std::vector<TableFrequencies> MakeTables(size_t tables, absl::Span<const Channel> channels) {
  std::vector<Counts> counts(tables);
  for (const Channel& channel : channels) AddSymbols(channel, counts[channel.table]);
  std::vector<TableFrequencies> frequencies;
  for (const Counts& table : counts) frequencies.push_back(QuantizeFrequencies(table));
  return frequencies;
}

}  // namespace

ExactProfileBuilder::ExactProfileBuilder(std::string model_fingerprint)
    : model_fingerprint_(std::move(model_fingerprint)) {}

absl::Status ExactProfileBuilder::AddBlock(BlockView block) {
  if (absl::Status status = block.Validate(); !status.ok()) return status;
  BlockShape expected = shape_;
  expected.tokens = block.shape.tokens;
  if (tokens_ == 0) {
    shape_ = block.shape;
    counts_.assign(shape_.channels() * kCountsPerChannel, 0);
    outside_.assign(shape_.channels(), 0);
  } else if (block.shape != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("calibration block of ", block.shape.DebugString(), " after one of ", shape_.DebugString()));
  }
  const auto tokens = static_cast<size_t>(block.shape.tokens);
  for (size_t c = 0; c < shape_.channels(); ++c) {
    for (const uint16_t value : block.values.subspan(c * tokens, tokens)) {
      const auto place = static_cast<uint32_t>((value >> kRawBits & (kMagnitudeClasses - 1)) - kFirstCountedClass);
      const bool inside = place < kCountedClasses;
      const size_t sign = value >> 15;
      uint32_t& count = inside ? counts_[c * kCountsPerChannel + sign * kCountedClasses + place] : outside_[c];
      ++count;
    }
  }
  tokens_ += block.shape.tokens;
  return absl::OkStatus();
}

absl::StatusOr<ExactProfile> ExactProfileBuilder::Build() const {
  if (tokens_ == 0) return absl::FailedPreconditionError("a profile needs calibration blocks");
  if (model_fingerprint_.size() > kFingerprintLimit) return absl::InvalidArgumentError("model fingerprint too long");
  std::vector<Channel> channels;
  for (size_t c = 0; c < shape_.channels(); ++c) {
    channels.push_back(MakeChannel(counts_.data() + c * kCountsPerChannel, static_cast<uint64_t>(tokens_)));
  }
  const size_t table_count = std::min(kMaxTables, channels.size());
  AssignInitially(table_count, channels);
  for (int round = 0; round < kRounds; ++round) {
    std::vector<Lengths> lengths;
    for (const TableFrequencies& table : MakeTables(table_count, channels)) lengths.push_back(CodeLengths(table));
    for (Channel& channel : channels) Reassign(lengths, channel);
  }
  ExactProfile profile;
  profile.model_fingerprint_ = model_fingerprint_;
  profile.layers_ = shape_.layers;
  profile.kv_heads_ = shape_.kv_heads;
  profile.head_dim_ = shape_.head_dim;
  profile.tables_ = MakeTables(table_count, channels);
  for (const Channel& channel : channels) {
    profile.channels_.push_back({.table = static_cast<uint8_t>(channel.table),
                                 .flip_sign = channel.flip,
                                 .window_start = static_cast<uint16_t>(kFirstCountedClass + channel.start)});
  }
  profile.id_ = ComputeDigest(profile.Serialize());
  return profile;
}

}  // namespace quicksave::compressor
