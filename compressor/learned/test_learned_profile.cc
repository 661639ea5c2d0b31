#include "compressor/learned/test_learned_profile.h"

#include <cmath>

#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

constexpr int kHidden = 24;
constexpr int kHeads = 3;

LinearLayer RandomLinear(int inputs, int outputs, float gain, TestRandom& random) {
  LinearLayer layer{.weight = {.inputs = inputs, .outputs = outputs}};
  const float deviation = gain / std::sqrt(static_cast<float>(inputs));
  for (int i = 0; i < inputs * outputs; ++i) layer.weight.values.push_back(NarrowToBf16(deviation * random.Normal()));
  for (int o = 0; o < outputs; ++o) layer.bias.push_back(0.1f * random.Normal());
  return layer;
}

NormLayer RandomNorm(int width, TestRandom& random) {
  NormLayer layer;
  for (int i = 0; i < width; ++i) {
    layer.gain.push_back(1 + 0.2f * random.Normal());
    layer.shift.push_back(0.2f * random.Normal());
  }
  return layer;
}

AttentionLayer RandomAttention(TestRandom& random) {
  return {.heads = kHeads,
          .norm = RandomNorm(kHidden, random),
          .query_key_value = RandomLinear(kHidden, 3 * kHidden, 1, random),
          .output = RandomLinear(kHidden, kHidden, 1, random)};
}

GroupNetwork RandomNetwork(int inputs, int outputs, float gain, TestRandom& random) {
  return {.first = RandomLinear(inputs, kHidden, 1, random),
          .norm = RandomNorm(kHidden, random),
          .second = RandomLinear(kHidden, outputs, gain, random)};
}

}  // namespace

std::shared_ptr<const LearnedProfile> RandomLearnedProfile(const TestSource& source, Architecture architecture,
                                                           uint64_t seed) {
  TestRandom random(seed);
  LearnedProfile profile{.base = *source.profile(), .architecture = architecture};
  for (size_t g = 0; g < profile.base.groups.size(); ++g) {
    const int width = profile.base.groups[g].components() / 3;
    profile.sigma.emplace_back(width, 4.0f);
    profile.encoders.push_back(RandomNetwork(profile.EncoderInputs(g), width, 4, random));
    profile.decoders.push_back(RandomNetwork(profile.DecoderInputs(g), profile.base.groups[g].components(), 1, random));
    if (architecture != Architecture::kRecurrent) continue;
    std::vector<float>& decay = profile.decay.emplace_back();
    for (int i = 0; i < width; ++i) decay.push_back(0.05f * static_cast<float>(random.Below(20)) - 0.5f);
  }
  if (architecture == Architecture::kUnified) {
    profile.encoder_attention = RandomAttention(random);
    profile.decoder_attention = RandomAttention(random);
  }
  return std::make_shared<const LearnedProfile>(std::move(profile));
}

}  // namespace quicksave::compressor
