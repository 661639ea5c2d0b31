#include "compressor/latent/quantiser.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compressor/latent/quantiser.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace quicksave::compressor::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Returns how many values it did: whole vectors.
size_t ReconstructImpl(absl::Span<const uint8_t> symbols, const SigmaClass& statistics, float* to) {
  static_assert(kCentroids == 3);
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<uint8_t, decltype(d)> bytes;
  const auto one = hn::Set(d, statistics.centroids[0]);
  const auto two = hn::Set(d, statistics.centroids[1]);
  const auto more = hn::Set(d, statistics.centroids[2]);
  size_t t = 0;
  for (; t + hn::Lanes(d) <= symbols.size(); t += hn::Lanes(d)) {
    const auto symbol = hn::PromoteTo(di, hn::LoadU(bytes, symbols.data() + t));
    const auto q = hn::ConvertTo(d, hn::Sub(symbol, hn::Set(di, kZeroSymbol)));
    const auto magnitude = hn::Abs(q);
    const auto from_two = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 3.0f)), two, more);
    const auto centroid = hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, 2.0f)), one, from_two);
    const auto value = hn::Xor(hn::Add(magnitude, centroid), hn::And(q, hn::SignBit(d)));
    hn::StoreU(hn::IfThenZeroElse(hn::Eq(q, hn::Zero(d)), value), d, to + t);
  }
  return t;
}

}  // namespace quicksave::compressor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quicksave::compressor {
namespace {

HWY_EXPORT(ReconstructImpl);

// A class with fewer values borrows from its neighbours.
constexpr uint64_t kEnoughValues = 20'000;

}  // namespace

std::vector<CodedComponent> CodedComponents(absl::Span<const float> sigma, float step) {
  std::vector<CodedComponent> coded;
  for (size_t i = 0; i < sigma.size(); ++i) {
    const int sigma_class = SigmaClassOf(sigma[i], step);
    if (sigma_class >= 0) coded.push_back({.index = static_cast<int>(i), .sigma_class = sigma_class});
  }
  return coded;
}

void ReconstructSymbols(absl::Span<const uint8_t> symbols, const SigmaClass& statistics, float* to) {
  const size_t done = HWY_DYNAMIC_DISPATCH(ReconstructImpl)(symbols, statistics, to);
  for (size_t t = done; t < symbols.size(); ++t) to[t] = Reconstruct(symbols[t] - kZeroSymbol, statistics);
}

ClassStatistics::ClassStatistics() : counts_(kSigmaClasses) {}

void ClassStatistics::Add(absl::Span<const float> values, float sigma, float step) {
  const int sigma_class = SigmaClassOf(sigma, step);
  if (sigma_class < 0) return;
  Counts& counts = counts_[sigma_class];
  const float inverse = 1 / step;
  for (const float value : values) {
    const int32_t q = Quantise(value, inverse);
    ++counts.symbols[SymbolOf(q)];
    const int magnitude = std::abs(q);
    // What the integers cannot reach says nothing of where the others lie.
    const double offset = std::min<double>(std::abs(static_cast<double>(value) * inverse), kLargestInteger) - magnitude;
    counts.squares += offset * offset;
    if (magnitude == 0) continue;
    const int place = std::min(magnitude, kCentroids) - 1;
    ++counts.magnitudes[place];
    counts.offsets[place] += offset;
  }
  counts.values += values.size();
}

std::vector<SigmaClass> ClassStatistics::Build() const {
  std::vector<SigmaClass> classes(kSigmaClasses);
  for (int i = 0; i < kSigmaClasses; ++i) {
    Counts sum = counts_[i];
    for (int reach = 1; sum.values < kEnoughValues && reach < kSigmaClasses; ++reach) {
      for (const int j : {i - reach, i + reach}) {
        if (j < 0 || j >= kSigmaClasses) continue;
        const Counts& other = counts_[j];
        for (int s = 0; s < kSymbols; ++s) sum.symbols[s] += other.symbols[s];
        for (int m = 0; m < kCentroids; ++m) {
          sum.magnitudes[m] += other.magnitudes[m];
          sum.offsets[m] += other.offsets[m];
        }
        sum.values += other.values;
        sum.squares += other.squares;
      }
    }
    SigmaClass& built = classes[i];
    // Signs are as good as random: counting both for each makes the rare symbols' counts surer.
    std::vector<uint64_t> symbols = sum.symbols;
    for (int q = 1; q <= kZeroSymbol; ++q) {
      const uint64_t both = sum.symbols[kZeroSymbol - q] + sum.symbols[kZeroSymbol + q];
      symbols[kZeroSymbol - q] = symbols[kZeroSymbol + q] = (both + 1) / 2;
    }
    built.frequencies = QuantizeFrequencies(symbols);
    double gained = 0;
    for (int m = 0; m < kCentroids; ++m) {
      if (sum.magnitudes[m] == 0) continue;
      const double offset = sum.offsets[m] / static_cast<double>(sum.magnitudes[m]);
      built.centroids[m] = static_cast<float>(offset);
      gained += offset * offset * static_cast<double>(sum.magnitudes[m]);
    }
    if (sum.values > 0) built.error = static_cast<float>((sum.squares - gained) / static_cast<double>(sum.values));
  }
  return classes;
}

}  // namespace quicksave::compressor
#endif
