// Forward passes on the device under test give the bits of those on the CPU: K, V, logits and hidden states, for models
// of every family and every format of weights, in mixed batches.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/model/decoder.h"
#include "server/engine/model/device_check.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/device_under_test.h"
#include "server/engine/testing/recorded_family.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

// A decoder, its memory, and what was computed in it.
class Engine {
 public:
  Engine(std::unique_ptr<Decoder> decoder, int pages) : decoder_(std::move(decoder)) {
    const KvShape shape = decoder_->kv_shape();
    pool_ = PagePool::Create({.shape = shape,
                              .memory_bytes = pages * shape.page_bytes(),
                              .poison = true,
                              .memory = &decoder_->device().memory()})
                .value();
  }

  Decoder& decoder() { return *decoder_; }

  // Feeds each text in chunks of these sizes, all texts side by side, with hidden states of all layers.
  void Feed(const std::vector<std::vector<int32_t>>& texts, const std::vector<int>& chunks) {
    const std::vector<int> layers = AllTapLayers(decoder_->config());
    sequences_.resize(texts.size());
    taps_.assign(texts.size(), Taps({.layers = layers, .all_tokens = true}, decoder_->config().hidden_size));
    for (size_t step = 0; step < chunks.size(); ++step) {
      std::vector<FedSlice> fed;
      for (size_t i = 0; i < texts.size(); ++i) {
        const auto part =
            absl::MakeConstSpan(texts[i]).subspan(sequences_[i].length(), chunks[(step + i) % chunks.size()]);
        if (!part.empty()) fed.push_back(AppendSlice(*pool_, sequences_[i], part, LogitsWanted::kAll, &taps_[i]));
      }
      std::vector<Slice> slices;
      for (const FedSlice& part : fed) slices.push_back(part.slice);
      const absl::Span<const float> logits = decoder_->Forward(slices);
      logits_.insert(logits_.end(), logits.begin(), logits.end());
    }
  }

  // The first layers of one more text, as a split replay computes them, beside a token of the first text.
  std::vector<uint16_t> Replay(const std::vector<int32_t>& text, int split) {
    Sequence sequence;
    FedSlice first = AppendSlice(*pool_, sequences_[0], absl::MakeConstSpan(text).first(1), LogitsWanted::kLast);
    FedSlice replay = AppendSlice(*pool_, sequence, text, LogitsWanted::kNone);
    replay.slice.split = split;
    const std::vector<Slice> slices = {first.slice, replay.slice};
    const absl::Span<const float> logits = decoder_->Forward(slices);
    logits_.insert(logits_.end(), logits.begin(), logits.end());
    return KeyValueBits(sequence, 0, split + 1);
  }

  void ExpectSame(const Engine& other) const {
    EXPECT_TRUE(SameBits(logits_, other.logits_));
    for (size_t i = 0; i < sequences_.size(); ++i) {
      EXPECT_EQ(KeyValueBits(sequences_[i]), KeyValueBits(other.sequences_[i])) << "text " << i;
      ASSERT_EQ(taps_[i].extent(), other.taps_[i].extent());
      for (int token = 0; token < taps_[i].extent().token_count; ++token) {
        ASSERT_TRUE(SameTaps(taps_[i], other.taps_[i], token)) << "text " << i << ", token " << token;
      }
    }
  }

 private:
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<PagePool> pool_;
  std::vector<Sequence> sequences_;
  std::vector<Taps> taps_;
  std::vector<float> logits_;
};

std::unique_ptr<Decoder> LoadOn(std::unique_ptr<Device> device, const std::string& dir, ThreadPool& threads,
                                WeightFormat format) {
  return Decoder::Load(dir, std::move(device), &threads, format).value();
}

// "plain", or a family of tests/reference/families.
class DecoderDeviceTest : public testing::TestWithParam<std::tuple<std::string, WeightFormat>> {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = MakeDeviceUnderTest();
    if (IsMissing(device.status())) GTEST_SKIP() << device.status().message();
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  ThreadPool threads_{2};
  std::unique_ptr<Device> device_;
};

TEST_P(DecoderDeviceTest, GivesTheBitsOfTheCpu) {
  const auto& [name, format] = GetParam();
  const TinyModel plain({.layers = 3, .query_heads = 6, .kv_heads = 2, .tied_head = false, .llama3_rope = true});
  const std::unique_ptr<RecordedFamily> family = name == "plain" ? nullptr : std::make_unique<RecordedFamily>(name);
  const std::string& dir = family ? family->dir() : plain.dir();
  Engine cpu(Decoder::Load(dir, &threads_, format).value(), 100);
  Engine other(LoadOn(std::move(device_), dir, threads_, format), 100);
  EXPECT_EQ(other.decoder().weight_bytes(), cpu.decoder().weight_bytes());

  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::vector<std::vector<int32_t>> texts;
  for (const int length : {70, 33, 16, 1}) texts.push_back(RandomTokens(length, 300, seed + texts.size()));
  const std::vector<int32_t> replayed = RandomTokens(40, 300, seed + 9);
  std::vector<std::vector<uint16_t>> replays;
  for (Engine* engine : {&cpu, &other}) {
    engine->Feed(texts, {30, 1, 17, 1, 25, 1});
    replays.push_back(engine->Replay(replayed, 1));
  }
  other.ExpectSame(cpu);
  EXPECT_EQ(replays[0], replays[1]);
  EXPECT_EQ(CheckDevice(other.decoder(), &threads_), absl::OkStatus());
}

std::vector<std::string> AllFamilies() {
  std::vector<std::string> names = RecordedFamily::Names();
  names.emplace_back("plain");
  return names;
}

INSTANTIATE_TEST_SUITE_P(
    All, DecoderDeviceTest,
    testing::Combine(testing::ValuesIn(AllFamilies()),
                     testing::Values(WeightFormat::kBf16, WeightFormat::kInt8, WeightFormat::kFp32)),
    [](const auto& test) { return std::get<0>(test.param) + "_" + WeightFormatName(std::get<1>(test.param)); });

// All of the real model.
class RealModelDeviceTest : public testing::TestWithParam<WeightFormat> {};

TEST_P(RealModelDeviceTest, GivesTheBitsOfTheCpu) {
  absl::StatusOr<std::unique_ptr<Device>> device = MakeDeviceUnderTest();
  if (IsMissing(device.status())) GTEST_SKIP() << device.status().message();
  ASSERT_TRUE(device.ok()) << device.status();
  ThreadPool threads(2);
  Engine cpu(Decoder::Load(QUICKSAVE_MODEL_DIR, &threads, GetParam()).value(), 8);
  Engine other(LoadOn(*std::move(device), QUICKSAVE_MODEL_DIR, threads, GetParam()), 8);
  const std::vector<std::vector<int32_t>> texts = {RandomTokens(24, 49152, 1), RandomTokens(5, 49152, 2)};
  for (Engine* engine : {&cpu, &other}) engine->Feed(texts, {20, 2, 1, 1});
  other.ExpectSame(cpu);
}

INSTANTIATE_TEST_SUITE_P(All, RealModelDeviceTest,
                         testing::Values(WeightFormat::kBf16, WeightFormat::kInt8, WeightFormat::kFp32),
                         [](const auto& test) { return WeightFormatName(test.param); });

}  // namespace
}  // namespace quicksave::engine
