// Slices that leave a forward pass at a layer: what they computed has the bits of a whole pass, and nobody else in the
// pass sees that they left.
#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/model/decoder.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/recorded_family.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

constexpr int kVocabulary = 300;

// "plain", or a family of tests/reference/families, with weights in a format.
class SplitReplayTest : public testing::TestWithParam<std::pair<std::string, WeightFormat>> {
 protected:
  SplitReplayTest() : seed_(std::random_device()()), random_(seed_) {
    std::cout << "seed " << seed_ << "\n";
    const auto& [name, format] = GetParam();
    if (name != "plain") recorded_ = std::make_unique<RecordedFamily>(name);
    decoder_ = Decoder::Load(recorded_ ? recorded_->dir() : model_.dir(), &threads_, format).value();
    layers_ = decoder_->config().layers;
    const KvShape shape = decoder_->kv_shape();
    // Poisoned: what was never written is all ones.
    pool_ = PagePool::Create({.shape = shape, .memory_bytes = 400 * shape.page_bytes(), .poison = true}).value();
  }

  std::vector<int> Splits() const { return {0, layers_ / 2, layers_ - 1}; }
  Taps TapsOf(int layer) const { return Taps({.layers = {layer}, .all_tokens = true}, decoder_->config().hidden_size); }

  struct Whole {
    Sequence sequence;
    std::vector<float> logits;  // of all tokens
    Taps taps;                  // of all layers and tokens
  };
  Whole Compute(const std::vector<int32_t>& tokens) {
    Whole whole;
    whole.logits = FeedTokens(*decoder_, *pool_, whole.sequence, tokens, LogitsWanted::kAll, 1000);
    whole.taps = CaptureTaps(*decoder_, *pool_, tokens, AllTapLayers(decoder_->config()));
    return whole;
  }

  // Appends the rest of `tokens` to the sequence in chunks, up to the split.
  void Replay(const std::vector<int32_t>& tokens, int split, int chunk, Sequence& sequence, Taps& taps) {
    while (sequence.length() < static_cast<int>(tokens.size())) {
      const auto part = absl::MakeConstSpan(tokens).subspan(sequence.length(), chunk);
      FedSlice fed = AppendSlice(*pool_, sequence, part, LogitsWanted::kAll, &taps);
      fed.slice.split = split;
      EXPECT_TRUE(decoder_->Forward({fed.slice}).empty()) << "logits without the last layer";
    }
  }

  void ExpectReplayed(const Whole& whole, int split, int from, const Sequence& sequence, const Taps& taps) {
    ASSERT_EQ(sequence.length(), whole.sequence.length());
    EXPECT_EQ(KeyValueBits(sequence, 0, split + 1), KeyValueBits(whole.sequence, 0, split + 1));
    for (int token = from; token < sequence.length(); ++token) {
      ASSERT_TRUE(taps.Has(token));
      ASSERT_TRUE(SameBits(taps.Row(0, token), whole.taps.Row(split, token))) << token;
    }
  }

  const unsigned seed_;
  std::mt19937_64 random_;
  std::unique_ptr<RecordedFamily> recorded_;
  const TinyModel model_{{.layers = 5, .query_heads = 6, .kv_heads = 2, .vocab_size = kVocabulary, .tied_head = false}};
  ThreadPool threads_{2};
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<PagePool> pool_;
  int layers_ = 0;
};

TEST_P(SplitReplayTest, WhatIsComputedHasTheBitsOfTheWholePassAndTheRestIsLeftAlone) {
  const std::vector<int32_t> tokens = RandomTokens(150, kVocabulary, random_());
  const Whole whole = Compute(tokens);
  for (const int split : Splits()) {
    for (const int chunk : {1000, 1, 7, 1 + static_cast<int>(random_() % 60)}) {
      SCOPED_TRACE(testing::Message() << "split " << split << ", chunks of " << chunk);
      Sequence sequence;
      Taps taps = TapsOf(split);
      Replay(tokens, split, chunk, sequence, taps);
      ExpectReplayed(whole, split, 0, sequence, taps);
      const std::vector<uint16_t> rest = KeyValueBits(sequence, split + 1, layers_);
      EXPECT_THAT(rest, testing::Each(0xffff));
    }
  }
}

TEST_P(SplitReplayTest, GoesOnFromTokensThatHaveAllLayers) {
  const std::vector<int32_t> tokens = RandomTokens(60, kVocabulary, random_());
  const Whole whole = Compute(tokens);
  for (const int split : Splits()) {
    for (const int first : {4, 16, 59}) {
      Sequence sequence;
      FeedTokens(*decoder_, *pool_, sequence, absl::MakeConstSpan(tokens).subspan(0, first), LogitsWanted::kNone);
      const std::vector<uint16_t> before = KeyValueBits(sequence);
      Taps taps = TapsOf(split);
      Replay(tokens, split, 25, sequence, taps);
      ExpectReplayed(whole, split, first, sequence, taps);
      EXPECT_FALSE(taps.Has(first - 1));
      sequence.Truncate(first);
      EXPECT_EQ(KeyValueBits(sequence), before);
    }
  }
}

TEST_P(SplitReplayTest, WithTheOtherLayersFilledInTheStateGoesOnAsIfNeverLeft) {
  const std::vector<int32_t> tokens = RandomTokens(100, kVocabulary, random_());
  const std::vector<int32_t> next = RandomTokens(20, kVocabulary, random_());
  Whole whole = Compute(tokens);
  const Sequence stored = whole.sequence;
  const std::vector<float> expected = FeedTokens(*decoder_, *pool_, whole.sequence, next, LogitsWanted::kAll);
  for (const int split : Splits()) {
    Sequence sequence;
    Taps taps = TapsOf(split);
    Replay(tokens, split, 40, sequence, taps);
    const size_t replayed = decoder_->kv_shape().key_offset(split + 1);
    for (size_t i = 0; i < sequence.pages().size(); ++i) {
      const PageRef& page = sequence.pages()[i];
      std::memcpy(page.data() + replayed, stored.pages()[i].data() + replayed, page.size() - replayed);
    }
    EXPECT_TRUE(SameBits(FeedTokens(*decoder_, *pool_, sequence, next, LogitsWanted::kAll), expected)) << split;
    EXPECT_EQ(KeyValueBits(sequence), KeyValueBits(whole.sequence)) << split;
  }
}

TEST_P(SplitReplayTest, SlicesOfAnySplitsSideBySideDoNotChangeEachOther) {
  // Nothing, and each split twice, the smallest last, as Forward wants them.
  std::vector<std::optional<int>> splits = {std::nullopt, std::nullopt};
  for (int split = layers_ - 1; split >= 0; --split) splits.insert(splits.end(), 2, split);
  struct Replayed {
    std::vector<int32_t> tokens;
    std::optional<int> split;
    Sequence sequence;
    Taps taps;
    std::vector<float> logits;
  };
  std::vector<Replayed> all;
  for (const std::optional<int> split : splits) {
    const int count = 1 + static_cast<int>(random_() % 100);
    all.push_back({RandomTokens(count, kVocabulary, random_()), split, {}, TapsOf(split.value_or(layers_)), {}});
  }
  const auto left = [](const Replayed& one) { return one.tokens.size() - one.sequence.length(); };
  while (std::any_of(all.begin(), all.end(), [&](const Replayed& one) { return left(one) > 0; })) {
    std::vector<Replayed*> parts;
    for (Replayed& one : all) {
      if (left(one) > 0 && random_() % 3 != 0) parts.push_back(&one);
    }
    std::vector<FedSlice> fed;
    std::vector<Slice> slices;
    for (Replayed* one : parts) {
      const auto tokens = absl::MakeConstSpan(one->tokens).subspan(one->sequence.length(), 1 + random_() % 40);
      fed.push_back(AppendSlice(*pool_, one->sequence, tokens, LogitsWanted::kAll, &one->taps));
      fed.back().slice.split = one->split;
    }
    for (const FedSlice& part : fed) slices.push_back(part.slice);
    absl::Span<const float> logits = decoder_->Forward(slices);
    for (size_t i = 0; i < parts.size() && !parts[i]->split; ++i) {
      const size_t size = slices[i].tokens.size() * kVocabulary;
      ASSERT_GE(logits.size(), size);
      parts[i]->logits.insert(parts[i]->logits.end(), logits.begin(), logits.begin() + size);
      logits.remove_prefix(size);
    }
    EXPECT_TRUE(logits.empty());
  }
  for (const Replayed& one : all) {
    SCOPED_TRACE(testing::Message() << one.tokens.size() << " tokens, split " << one.split.value_or(-1));
    const Whole whole = Compute(one.tokens);
    if (one.split) {
      ExpectReplayed(whole, *one.split, 0, one.sequence, one.taps);
      EXPECT_THAT(KeyValueBits(one.sequence, *one.split + 1, layers_), testing::Each(0xffff));
    } else {
      EXPECT_EQ(KeyValueBits(one.sequence), KeyValueBits(whole.sequence));
      EXPECT_EQ(TapRows(one.taps, 0), TapRows(whole.taps, layers_));
      EXPECT_TRUE(SameBits(one.logits, whole.logits));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, SplitReplayTest,
    testing::Values(std::pair("plain", WeightFormat::kBf16), std::pair("plain", WeightFormat::kInt8),
                    std::pair("plain", WeightFormat::kFp32), std::pair("llama_biases", WeightFormat::kBf16),
                    std::pair("mistral", WeightFormat::kBf16), std::pair("qwen2", WeightFormat::kBf16),
                    std::pair("qwen3", WeightFormat::kBf16), std::pair("gemma2", WeightFormat::kBf16),
                    std::pair("gemma3", WeightFormat::kBf16), std::pair("gemma3", WeightFormat::kInt8)),
    [](const auto& tested) { return tested.param.first + "_" + WeightFormatName(tested.param.second); });

}  // namespace
}  // namespace quicksave::engine
