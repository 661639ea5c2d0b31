#include "server/engine/testing/difference.h"

#include <cmath>
#include <limits>

#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/testing/decoder_feed.h"

namespace quicksave::engine {

Difference Compare(absl::Span<const float> a, absl::Span<const float> b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (a.size() != b.size()) return {kInfinity, kInfinity};
  Difference difference;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(double{a[i]} - b[i]);
    difference.rms += d * d;
    // NaN must not get lost.
    if (!(d <= difference.largest)) difference.largest = d;
  }
  difference.rms = std::sqrt(difference.rms / static_cast<double>(a.size()));
  return difference;
}

double RelativeRms(absl::Span<const float> a, absl::Span<const float> b) {
  return Compare(a, b).rms / Compare(b, std::vector<float>(b.size(), 0)).rms;
}

std::vector<float> LayerOf(const Sequence& sequence, const KvShape& shape, int layer, bool values) {
  const std::vector<uint16_t> bits = KeyValueBits(sequence);
  const size_t half = size_t(shape.kv_heads) * shape.head_dim;
  std::vector<float> rows;
  for (int token = 0; token < sequence.length(); ++token) {
    const size_t begin = ((size_t(token) * shape.layers + layer) * 2 + (values ? 1 : 0)) * half;
    for (size_t i = 0; i < half; ++i) rows.push_back(cpu::Bf16ToFloat(bits[begin + i]));
  }
  return rows;
}

}  // namespace quicksave::engine
