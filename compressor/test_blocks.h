// Blocks for tests, made from a seed by integer arithmetic only, so that every machine makes the same.

#ifndef QUICKSAVE_COMPRESSOR_TEST_BLOCKS_H_
#define QUICKSAVE_COMPRESSOR_TEST_BLOCKS_H_

#include <bit>
#include <cstdint>
#include <vector>

#include "compressor/block.h"

namespace quicksave::compressor {

// SplitMix64.
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  uint64_t Below(uint64_t n) { return Next() % n; }
  // About normal with deviation 1: the sum of twelve uniform numbers.
  float Normal() {
    int64_t sum = 0;
    for (int i = 0; i < 12; ++i) sum += static_cast<int64_t>(Next() >> 48);
    return static_cast<float>(sum - 6 * 65536) / 65536.0F;
  }

 private:
  uint64_t state_;
};

inline uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Values as a model makes them: a mean and a deviation for each channel, which depend on the channel only.
inline std::vector<uint16_t> ModelLikeValues(const BlockShape& shape, uint64_t seed) {
  std::vector<uint16_t> values(shape.values());
  TestRandom channel_random(7);
  TestRandom random(seed);
  for (size_t c = 0; c < shape.channels(); ++c) {
    const float sigma = 0.125F * static_cast<float>(1 + channel_random.Below(60));
    const float mean = channel_random.Below(3) == 0 ? sigma * 2 * channel_random.Normal() : 0.0F;
    for (int t = 0; t < shape.tokens; ++t) {
      values[c * static_cast<size_t>(shape.tokens) + static_cast<size_t>(t)] = ToBf16(mean + sigma * random.Normal());
    }
  }
  return values;
}

// Every bit equally likely.
inline std::vector<uint16_t> RandomBits(const BlockShape& shape, uint64_t seed) {
  std::vector<uint16_t> values(shape.values());
  TestRandom random(seed);
  for (uint16_t& value : values) value = static_cast<uint16_t>(random.Next());
  return values;
}

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_TEST_BLOCKS_H_
