#include "server/engine/model/decoder.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/engine/sequence.h"
#include "server/engine/testing/decoder_feed.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

// The real model, loaded once for all tests of this file.
class DecoderTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    threads_ = new ThreadPool(2);
    auto decoder = Decoder::Load(QUICKSAVE_MODEL_DIR, threads_);
    ASSERT_TRUE(decoder.ok()) << decoder.status();
    decoder_ = decoder->release();
    auto pool = PagePool::Create({.shape = decoder_->kv_shape(), .memory_bytes = size_t{1} << 30, .poison = true});
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_ = pool->release();
    std::ifstream file(QUICKSAVE_SOURCE_DIR "/tests/reference/smollm2_logits.json");
    reference_ = new Json(Json::parse(file));
  }
  static void TearDownTestSuite() {
    delete reference_;
    delete pool_;
    delete decoder_;
    delete threads_;
  }

  static std::vector<float> Feed(Sequence& sequence, absl::Span<const int32_t> tokens, LogitsWanted wanted,
                                 int chunk = 128) {
    return FeedTokens(*decoder_, *pool_, sequence, tokens, wanted, chunk);
  }

  static ThreadPool* threads_;
  static Decoder* decoder_;
  static PagePool* pool_;
  static Json* reference_;
};
ThreadPool* DecoderTest::threads_;
Decoder* DecoderTest::decoder_;
PagePool* DecoderTest::pool_;
Json* DecoderTest::reference_;

// Largest difference of two log-probabilities at one position, over the reference's likeliest 64 and 512 random tokens.
double LargestDifference(absl::Span<const float> logits, const Json& record, const Json& sample_ids) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float value : logits) sum += std::exp(value - largest);
  const double log_sum = largest + std::log(sum);
  double difference = 0;
  const auto compare = [&](int id, double value) {
    const double theirs = value - record["log_sum_exp"].get<double>();
    difference = std::max(difference, std::abs(logits[id] - log_sum - theirs));
  };
  for (size_t i = 0; i < record["top_ids"].size(); ++i) compare(record["top_ids"][i], record["top_values"][i]);
  for (size_t i = 0; i < sample_ids.size(); ++i) compare(sample_ids[i], record["sample_values"][i]);
  return difference;
}

TEST_F(DecoderTest, LogitsAreThoseOfTransformers) {
  // The engine rounds to bf16 what goes into products and the KV cache and keeps the rest in fp32, so it must be much
  // nearer to fp32 than transformers' own bf16 is (up to 1.1 in a log-probability on these prompts). Bounds: about
  // twice what was seen, 0.14 and 0.51.
  for (const Json& prompt : (*reference_)["prompts"]) {
    const auto tokens = prompt["token_ids"].get<std::vector<int32_t>>();
    Sequence sequence;
    const std::vector<float> logits = Feed(sequence, tokens, LogitsWanted::kAll);
    const size_t vocab = decoder_->config().vocab_size;
    for (const auto& [precision, bound] : {std::pair("float32", 0.25), std::pair("bfloat16", 1.0)}) {
      for (const Json& record : prompt[precision]) {
        const size_t position = record["position"];
        const double difference = LargestDifference(absl::MakeConstSpan(logits).subspan(position * vocab, vocab),
                                                    record, (*reference_)["sample_ids"]);
        EXPECT_LT(difference, bound) << tokens.size() << " tokens, position " << position << ", " << precision;
      }
    }
  }
}

TEST_F(DecoderTest, PrefillDecodeAndBatchGiveTheSameBits) {
  const auto tokens = (*reference_)["prompts"][5]["token_ids"].get<std::vector<int32_t>>();
  ASSERT_GE(tokens.size(), 300u);
  const auto prompt = absl::MakeConstSpan(tokens).subspan(0, 150);

  Sequence whole;
  const std::vector<float> expected = Feed(whole, prompt, LogitsWanted::kAll, 150);
  const std::vector<uint16_t> expected_kv = KeyValueBits(whole);

  Sequence decoded;
  EXPECT_TRUE(SameBits(expected, Feed(decoded, prompt, LogitsWanted::kAll, 1)));
  EXPECT_EQ(expected_kv, KeyValueBits(decoded));

  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int threads : {1, 2}) {
    // The prompt in random chunks, beside random other sequences.
    ThreadPool other_threads(threads);
    auto other_decoder = Decoder::Load(QUICKSAVE_MODEL_DIR, &other_threads);
    ASSERT_TRUE(other_decoder.ok());
    Sequence mixed;
    std::vector<Sequence> others(3);
    std::vector<float> logits;
    while (mixed.length() < static_cast<int>(prompt.size())) {
      std::vector<FedSlice> feds;
      feds.reserve(4);
      for (Sequence& other : others) {
        const size_t begin = random() % 100;
        feds.push_back(AppendSlice(*pool_, other, absl::MakeConstSpan(tokens).subspan(begin, 1 + random() % 9),
                                   LogitsWanted::kLast));
      }
      const size_t own = random() % 4;
      feds.insert(feds.begin() + own,
                  AppendSlice(*pool_, mixed, prompt.subspan(mixed.length(), 1 + random() % 40), LogitsWanted::kAll));
      std::vector<Slice> slices;
      for (const FedSlice& fed : feds) slices.push_back(fed.slice);
      const auto rows = (*other_decoder)->Forward(slices);
      const size_t vocab = decoder_->config().vocab_size;
      const auto mine = rows.subspan(own * vocab, slices[own].tokens.size() * vocab);
      logits.insert(logits.end(), mine.begin(), mine.end());
    }
    EXPECT_TRUE(SameBits(expected, logits));
    EXPECT_EQ(expected_kv, KeyValueBits(mixed));
  }
}

TEST_F(DecoderTest, SplitReplayGivesTheBitsOfTheWholePass) {
  const auto tokens = (*reference_)["prompts"][5]["token_ids"].get<std::vector<int32_t>>();
  const auto prompt = absl::MakeConstSpan(tokens).subspan(0, 150);
  Sequence whole;
  Feed(whole, prompt, LogitsWanted::kNone, 150);
  const Taps hidden_states = CaptureTaps(*decoder_, *pool_, prompt, AllTapLayers(decoder_->config()));
  const int layers = decoder_->config().layers;
  for (const int split : {0, layers / 4, layers - 1}) {
    for (const size_t chunk : {150, 41}) {
      Sequence sequence;
      Taps taps({.layers = {split}, .all_tokens = true}, decoder_->config().hidden_size);
      for (size_t begin = 0; begin < prompt.size(); begin += chunk) {
        FedSlice fed = AppendSlice(*pool_, sequence, prompt.subspan(begin, chunk), LogitsWanted::kNone, &taps);
        fed.slice.split = split;
        EXPECT_TRUE(decoder_->Forward({fed.slice}).empty());
      }
      EXPECT_EQ(KeyValueBits(sequence, 0, split + 1), KeyValueBits(whole, 0, split + 1)) << split;
      EXPECT_TRUE(SameBits(TapRows(taps, 0), TapRows(hidden_states, split))) << split;
    }
  }
}

TEST_F(DecoderTest, AnsweringAChatGivesTheTokensOfTransformers) {
  const Json& chat = (*reference_)["chat"];
  const auto tokens = chat["token_ids"].get<std::vector<int32_t>>();
  const auto expected = chat["continuation"]["float32"]["token_ids"].get<std::vector<int32_t>>();
  Sequence sequence;
  std::vector<float> logits = Feed(sequence, tokens, LogitsWanted::kLast);
  std::vector<int32_t> answer;
  while (answer.size() < 8) {
    answer.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits = Feed(sequence, {answer.back()}, LogitsWanted::kLast);
  }
  EXPECT_THAT(answer, testing::ElementsAreArray(expected.begin(), expected.begin() + 8));
}

TEST_F(DecoderTest, BranchesDoNotDisturbEachOther) {
  const auto tokens = (*reference_)["prompts"][3]["token_ids"].get<std::vector<int32_t>>();
  Sequence trunk;
  Feed(trunk, absl::MakeConstSpan(tokens).subspan(0, 100), LogitsWanted::kNone);
  const std::vector<uint16_t> before = KeyValueBits(trunk);
  Sequence left = trunk;
  Sequence right = trunk;
  const std::vector<float> left_logits = Feed(left, {5, 6, 7}, LogitsWanted::kLast);
  Feed(right, {8, 9, 10, 11}, LogitsWanted::kLast);
  EXPECT_EQ(before, KeyValueBits(trunk));
  right.Truncate(100);
  EXPECT_TRUE(SameBits(left_logits, Feed(right, {5, 6, 7}, LogitsWanted::kLast)));
  EXPECT_EQ(KeyValueBits(left), KeyValueBits(right));
  // All full pages are shared still: 6 of 100 tokens' 7.
  for (int i = 0; i < 6; ++i) EXPECT_EQ(left.pages()[i].data(), trunk.pages()[i].data());
  EXPECT_NE(left.pages()[6].data(), trunk.pages()[6].data());
}

}  // namespace
}  // namespace quicksave::engine
