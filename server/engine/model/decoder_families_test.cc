// Each model family: the reference decoder against recorded logits of Hugging Face transformers, and the engine against
// the reference decoder, on the tiny models of tests/reference/families.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/model/decoder.h"
#include "server/engine/model/reference_decoder.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/difference.h"
#include "server/engine/testing/recorded_family.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

// The same operations in fp32 on both sides, logits below 5: only the order of sums differs. Seen: up to 5e-7.
constexpr double kFp32Bound = 2e-5;
// As in decoder_reference_test: rounding to bf16 what goes into products and the cache, by up to 2^-8 of the value.
constexpr double kRmsBound = 0.05;
constexpr double kLargestBound = 0.35;
constexpr int kPages = 64;

// NaN if one of them is.
double Larger(double a, double b) { return b <= a ? a : b; }

// The recorded rows against the reference decoder's: the largest difference.
double LargestDifference(const RecordedFamily& family) {
  const auto reference = ReferenceDecoder::Load(family.dir());
  EXPECT_TRUE(reference.ok()) << reference.status();
  if (!reference.ok()) return 0;
  double largest = 0;
  for (const Json& prompt : family.prompts()) {
    const std::vector<float> logits = (*reference)->Logits(prompt["token_ids"].get<std::vector<int32_t>>());
    for (const Json& row : prompt["rows"]) {
      const size_t begin = row["position"].get<size_t>() * family.vocab_size();
      const auto mine = absl::MakeConstSpan(logits).subspan(begin, family.vocab_size());
      largest = Larger(largest, Compare(mine, row["logits"].get<std::vector<float>>()).largest);
    }
  }
  return largest;
}

// The recorded hidden states of each prompt's last token against the reference decoder's: the largest difference, in
// units of the layer's root mean square.
double LargestDifferenceOfHiddenStates(const RecordedFamily& family) {
  const auto reference = ReferenceDecoder::Load(family.dir());
  EXPECT_TRUE(reference.ok()) << reference.status();
  if (!reference.ok()) return 0;
  double largest = 0;
  for (const Json& prompt : family.prompts()) {
    const auto tokens = prompt["token_ids"].get<std::vector<int32_t>>();
    const ReferenceDecoder::Output output = (*reference)->Run(tokens);
    const Json& layers = prompt["hidden_states"];
    // The reference decoder has one more: the last layer's before the final norm.
    EXPECT_EQ(layers.size() + 1, output.hidden_states.size());
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      const auto recorded = layers[layer].get<std::vector<float>>();
      const absl::Span<const float> all = output.hidden_states[layer];
      EXPECT_EQ(all.size(), tokens.size() * recorded.size());
      const double scale = std::sqrt(std::inner_product(recorded.begin(), recorded.end(), recorded.begin(), 0.0) /
                                     static_cast<double>(recorded.size()));
      largest = Larger(largest, Compare(all.last(recorded.size()), recorded).largest / scale);
    }
  }
  return largest;
}

class DecoderFamiliesTest : public testing::TestWithParam<std::string> {};

TEST_P(DecoderFamiliesTest, TheReferencesLogitsAreThoseOfTransformersInFp32) {
  const double largest = LargestDifference(RecordedFamily(GetParam()));
  std::cout << "largest difference " << largest << "\n";
  EXPECT_LT(largest, kFp32Bound);
}

TEST_P(DecoderFamiliesTest, TheReferencesHiddenStatesAreThoseOfTransformersInFp32) {
  const double largest = LargestDifferenceOfHiddenStates(RecordedFamily(GetParam()));
  std::cout << "largest difference " << largest << "\n";
  EXPECT_LT(largest, kFp32Bound);
}

TEST_P(DecoderFamiliesTest, TheEnginesLogitsKeysAndValuesAreNearTheReferences) {
  const RecordedFamily family(GetParam());
  const auto reference = ReferenceDecoder::Load(family.dir());
  ASSERT_TRUE(reference.ok()) << reference.status();
  ThreadPool threads(2);
  const auto decoder = Decoder::Load(family.dir(), &threads);
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const KvShape shape = (*decoder)->kv_shape();
  const auto pool = PagePool::Create({.shape = shape, .memory_bytes = kPages * shape.page_bytes(), .poison = true});
  ASSERT_TRUE(pool.ok());
  for (const int count : {1, 16, 40, 300}) {
    const std::vector<int32_t> tokens = RandomTokens(count, family.vocab_size(), 7 + count);
    const ReferenceDecoder::Output expected = (*reference)->Run(tokens);
    Sequence sequence;
    const std::vector<float> logits = FeedTokens(**decoder, **pool, sequence, tokens, LogitsWanted::kAll);
    const Difference difference = Compare(logits, expected.logits);
    std::cout << count << " tokens: rms " << difference.rms << ", largest " << difference.largest << "\n";
    EXPECT_LT(difference.rms, kRmsBound) << count;
    EXPECT_LT(difference.largest, kLargestBound) << count;
    for (int layer = 0; layer < shape.layers; ++layer) {
      EXPECT_LT(Compare(LayerOf(sequence, shape, layer, false), expected.keys[layer]).rms, kRmsBound) << layer;
      EXPECT_LT(Compare(LayerOf(sequence, shape, layer, true), expected.values[layer]).rms, kRmsBound) << layer;
    }
    const Taps taps = CaptureTaps(**decoder, **pool, tokens, AllTapLayers((*decoder)->config()));
    ASSERT_EQ(taps.layers().size(), expected.hidden_states.size());
    for (size_t layer = 0; layer < expected.hidden_states.size(); ++layer) {
      const double relative = RelativeRms(TapRows(taps, static_cast<int>(layer)), expected.hidden_states[layer]);
      std::cout << "  layer " << layer << ": relative rms " << relative << "\n";
      EXPECT_LT(relative, layer == 0 ? 1e-6 : kRmsBound) << layer;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecoderFamiliesTest, testing::ValuesIn(RecordedFamily::Names()),
                         [](const auto& tested) { return tested.param; });

// That the comparison would notice: with one setting changed, the logits are no longer transformers'.
TEST(DecoderFamiliesTest, EachSettingMatters) {
  const Json swapped = {{"full_attention", {{"rope_theta", 1e4}}}, {"sliding_attention", {{"rope_theta", 1e6}}}};
  const std::pair<const char*, Json> changes[] = {
      {"llama3", {{"rope_parameters", {{"factor", 4.0}}}}},
      {"llama_linear_rope", {{"rope_parameters", {{"factor", 2.0}}}}},
      {"mistral", {{"sliding_window", 25}}},
      {"mistral", {{"sliding_window", 23}}},
      {"qwen2_window", {{"layer_types", {"sliding_attention", "full_attention", "full_attention", "full_attention"}}}},
      {"gemma2", {{"attn_logit_softcapping", 4.0}}},
      {"gemma2", {{"final_logit_softcapping", 10.0}}},
      {"gemma2", {{"query_pre_attn_scalar", 48}}},
      {"gemma3", {{"sliding_window", 32}}},
      {"gemma3", {{"rope_parameters", swapped}}},
      {"gemma3_scaled", {{"final_logit_softcapping", 10.0}}},
  };
  for (const auto& [name, change] : changes) {
    EXPECT_GT(LargestDifference(RecordedFamily(name, change)), 100 * kFp32Bound) << name << " " << change;
    if (change.contains("final_logit_softcapping")) continue;  // after the last hidden state
    EXPECT_GT(LargestDifferenceOfHiddenStates(RecordedFamily(name, change)), 100 * kFp32Bound) << name << " " << change;
  }
}

TEST(DecoderFamiliesTest, TensorsWithoutAPlaceAreRefusedByName) {
  ThreadPool threads(1);
  const auto refusal = [&](const char* name, const Json& changes) {
    const RecordedFamily family(name, changes);
    const absl::Status status = Decoder::Load(family.dir(), &threads).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    return std::string(status.message());
  };
  using testing::HasSubstr;
  EXPECT_THAT(refusal("qwen2", {{"architectures", {"LlamaForCausalLM"}}}), HasSubstr("k_proj.bias"));
  EXPECT_THAT(refusal("qwen3", {{"architectures", {"LlamaForCausalLM"}}}), HasSubstr("k_norm.weight"));
  EXPECT_THAT(refusal("llama_biases", {{"mlp_bias", false}}), HasSubstr("down_proj.bias"));
  EXPECT_THAT(refusal("llama2", {{"num_hidden_layers", 3}}), HasSubstr("layers.3"));
}

}  // namespace
}  // namespace quicksave::engine
