#include "compressor/latent/quantiser.h"

namespace quicksave::compressor {
namespace {

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
