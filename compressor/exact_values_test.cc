#include "compressor/exact_values.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "compressor/builtin_model.h"
#include "compressor/cpu_features.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

// What a channel is separated into, and how many values of other channels its raw bits follow.
struct Parts {
  size_t first_raw;
  std::vector<uint8_t> symbols;
  std::vector<uint8_t> raw_bits;
  std::vector<uint16_t> escapes;

  friend bool operator==(const Parts&, const Parts&) = default;
};

using Separate = decltype(SeparateValues);
using Restore = decltype(RestoreValues);

struct Channel {
  ChannelModel model;
  std::vector<uint16_t> values;
};

// Channels as a model makes them, and of random bits, which are escapes mostly.
std::vector<Channel> Channels() {
  std::vector<Channel> channels;
  for (const int tokens : {1, 2, 31, 32, 33, 37, 64, 127, 128}) {
    const BlockShape shape{.layers = 1, .kv_heads = 1, .head_dim = 8, .tokens = tokens};
    for (const auto& values : {ModelLikeValues(shape, 1), RandomBits(shape, 2)}) {
      const auto size = static_cast<size_t>(tokens);
      for (size_t c = 0; c < shape.channels(); ++c) {
        const auto channel = absl::MakeConstSpan(values).subspan(c * size, size);
        channels.push_back({EstimateBuiltinModel(channel), {channel.begin(), channel.end()}});
      }
    }
  }
  return channels;
}

Parts SeparateBy(Separate* separate, const Channel& channel, size_t first_raw) {
  const AvailableSymbols available(BuiltinTable(channel.model.table));
  const size_t size = channel.values.size();
  Parts parts{.first_raw = first_raw};
  parts.symbols.resize(size);
  parts.raw_bits.resize((first_raw + size + 1) / 2);
  parts.escapes.resize(size + kEscapesAhead);
  if (first_raw > 0) parts.raw_bits[(first_raw - 1) / 2] = 7;
  parts.escapes.resize(separate(channel.model, available, channel.values,
                                {parts.symbols.data(), parts.raw_bits.data(), first_raw}, parts.escapes.data()));
  return parts;
}

// Nothing if there are too few escapes.
std::vector<uint16_t> RestoreBy(Restore* restore, const ChannelModel& model, const Parts& parts) {
  std::vector<uint16_t> values(parts.symbols.size());
  std::string_view escapes(reinterpret_cast<const char*>(parts.escapes.data()), parts.escapes.size() * 2);
  const std::string_view raw_bits(reinterpret_cast<const char*>(parts.raw_bits.data()), parts.raw_bits.size());
  const bool good = restore(model, {parts.symbols, raw_bits, parts.first_raw}, escapes, values.data());
  return good ? values : std::vector<uint16_t>();
}

TEST(ExactValuesTest, EveryPathSeparatesAndRestoresTheSame) {
  for (const Channel& channel : Channels()) {
    for (const size_t first_raw : {0, 1, 2, 5}) {
      const Parts parts = SeparateBy(SeparateValuesPortable, channel, first_raw);
      EXPECT_EQ(SeparateBy(SeparateValues, channel, first_raw), parts);
      EXPECT_EQ(RestoreBy(RestoreValuesPortable, channel.model, parts), channel.values);
      EXPECT_EQ(RestoreBy(RestoreValues, channel.model, parts), channel.values);
      if (!HaveAvx512() || first_raw % 2 != 0) continue;
      EXPECT_EQ(SeparateBy(SeparateValuesAvx512, channel, first_raw), parts);
      EXPECT_EQ(RestoreBy(RestoreValuesAvx512, channel.model, parts), channel.values);
    }
  }
}

TEST(ExactValuesTest, EveryPathRefusesMissingEscapes) {
  for (const Channel& channel : Channels()) {
    Parts parts = SeparateBy(SeparateValuesPortable, channel, 0);
    if (parts.escapes.empty()) continue;
    parts.escapes.pop_back();
    // In memory of just this size, so that a sanitizer sees what is read beyond it.
    parts.escapes.shrink_to_fit();
    EXPECT_TRUE(RestoreBy(RestoreValuesPortable, channel.model, parts).empty());
    EXPECT_TRUE(RestoreBy(RestoreValues, channel.model, parts).empty());
  }
}

}  // namespace
}  // namespace quicksave::compressor
