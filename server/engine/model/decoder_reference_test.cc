// The decoder against the reference decoder, on small random models of many shapes.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/model/decoder.h"
#include "server/engine/model/reference_decoder.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/difference.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

struct Case {
  const char* name;
  TinyModelOptions options;
};

class DecoderReferenceTest : public testing::TestWithParam<Case> {};

// The decoder rounds to bf16, by up to 2^-8 of the value, what goes into products and the cache. A logit, whose
// deviation is about 2 here, is a sum over such: an rms of a few times 2^-8, and outliers of some deviations among up
// to 100,000 logits. Seen: rms up to 0.024, largest 0.16. A wrong rotation, head or layer gives differences above 1.
constexpr double kRmsBound = 0.05;
constexpr double kLargestBound = 0.35;

TEST_P(DecoderReferenceTest, LogitsKeysAndValuesAreThoseOfTheReference) {
  const TinyModel model(GetParam().options);
  const auto reference = ReferenceDecoder::Load(model.dir());
  ASSERT_TRUE(reference.ok()) << reference.status();
  ThreadPool threads(2);
  const auto decoder = Decoder::Load(model.dir(), &threads);
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const KvShape shape = (*decoder)->kv_shape();
  const auto pool = PagePool::Create({.shape = shape, .memory_bytes = 64 * shape.page_bytes(), .poison = true});
  ASSERT_TRUE(pool.ok()) << pool.status();

  for (const int count : {1, 2, 16, 17, 300}) {
    SCOPED_TRACE(testing::Message() << count << " tokens");
    const std::vector<int32_t> tokens = RandomTokens(count, GetParam().options.vocab_size, 7 + count);
    const ReferenceDecoder::Output expected = (*reference)->Run(tokens);
    Sequence sequence;
    const std::vector<float> logits = FeedTokens(**decoder, **pool, sequence, tokens, LogitsWanted::kAll);
    const Difference difference = Compare(logits, expected.logits);
    std::cout << count << " tokens: rms " << difference.rms << ", largest " << difference.largest << "\n";
    EXPECT_LT(difference.rms, kRmsBound);
    EXPECT_LT(difference.largest, kLargestBound);
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

INSTANTIATE_TEST_SUITE_P(
    Shapes, DecoderReferenceTest,
    testing::Values(Case{"Plain", {}}, Case{"UntiedHead", {.tied_head = false}},
                    Case{"ThreeShards", {.tied_head = false, .shards = 3}}, Case{"RopeScaling", {.llama3_rope = true}},
                    Case{"NoGroups", {.query_heads = 3, .kv_heads = 3}},
                    Case{"OneKvHeadForFive", {.query_heads = 5, .kv_heads = 1}},
                    Case{"SevenQueriesForEachOfTwo", {.query_heads = 14, .kv_heads = 2, .head_dim = 32}},
                    Case{"HeadsWiderThanHidden", {.hidden_size = 32, .head_dim = 64}},
                    Case{"HeadsOf96", {.hidden_size = 96, .query_heads = 2, .kv_heads = 1, .head_dim = 96}},
                    Case{"HeadsOf256", {.query_heads = 2, .kv_heads = 1, .head_dim = 256}},
                    Case{"OddVocabulary", {.intermediate_size = 160, .vocab_size = 333}},
                    Case{"OneLayer", {.layers = 1, .vocab_size = 7}}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(DecoderReferenceTest, RopeScalingMatters) {
  const TinyModel plain({});
  const TinyModel scaled({.llama3_rope = true});
  const std::vector<int32_t> tokens = RandomTokens(200, 300, 5);
  const auto a = ReferenceDecoder::Load(plain.dir());
  const auto b = ReferenceDecoder::Load(scaled.dir());
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_GT(Compare((*a)->Logits(tokens), (*b)->Logits(tokens)).rms, 10 * kRmsBound);
}

TEST(DecoderLoadTest, RefusesWeightsThatDoNotFitTheConfiguration) {
  const TinyModelOptions options;
  ThreadPool threads(1);
  const auto load = [&](const std::function<void(std::map<std::string, TestTensor>&)>& change) {
    const TestFolder folder;
    folder.Write("config.json", TinyConfig(options).dump());
    std::map<std::string, TestTensor> weights = TinyWeights(options);
    change(weights);
    folder.Write("model.safetensors", SafetensorsBytes(weights));
    return Decoder::Load(folder.path(), &threads).status();
  };
  EXPECT_TRUE(load([](auto&) {}).ok());
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  absl::Status status = load([&](auto& weights) { weights.erase(name); });
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(name));
  status = load([&](auto& weights) { weights[name].shape = {64, 96}; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(name));
  status = load([&](auto& weights) { weights[name].dtype = "F16"; });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("F16"));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("--weights=fp32"));
  // Of a norm it is not an error: it is read as fp32 anyway.
  EXPECT_TRUE(load([&](auto& weights) { weights["model.norm.weight"].dtype = "F16"; }).ok());
}

}  // namespace
}  // namespace quicksave::engine
