// K, V, logits and hidden states are a pure function of the token ids: whatever the chunks, the batch, the threads, the
// pages, the instruction set.
#include <algorithm>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/engine/model/decoder.h"
#include "server/engine/testing/decoder_feed.h"
#include "server/engine/testing/instruction_sets.h"
#include "server/engine/testing/recorded_family.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

// What one sequence came to.
struct State {
  std::vector<float> logits;  // of all tokens
  std::vector<uint16_t> kv;
  Taps taps;  // of all layers and tokens

  friend bool operator==(const State& a, const State& b) {
    if (a.taps.extent() != b.taps.extent()) return false;
    for (int token = 0; token < a.taps.extent().token_count; ++token) {
      if (!SameTaps(a.taps, b.taps, token)) return false;
    }
    return SameBits(a.logits, b.logits) && a.kv == b.kv;
  }
};

// "plain", or a family of tests/reference/families, most of whose texts are longer than its windows of 24 tokens.
class DecoderPropertyTest : public testing::TestWithParam<std::string> {
 protected:
  DecoderPropertyTest() : seed_(std::random_device()()), random_(seed_) {
    if (GetParam() != "plain") recorded_ = std::make_unique<RecordedFamily>(GetParam());
    std::cout << "seed " << seed_ << "\n";
    decoder_ = Load(threads_);
    pool_ =
        PagePool::Create(
            {.shape = decoder_->kv_shape(), .memory_bytes = 400 * decoder_->kv_shape().page_bytes(), .poison = true})
            .value();
  }

  std::unique_ptr<Decoder> Load(ThreadPool& threads) {
    return Decoder::Load(recorded_ ? recorded_->dir() : model_.dir(), &threads).value();
  }

  // Decodes all tokens at once.
  State Whole(const std::vector<int32_t>& tokens) {
    Sequence sequence;
    const int count = static_cast<int>(tokens.size());
    State state;
    state.logits = FeedTokens(*decoder_, *pool_, sequence, tokens, LogitsWanted::kAll, count);
    state.kv = KeyValueBits(sequence);
    state.taps = CaptureTaps(*decoder_, *pool_, tokens, AllTapLayers(decoder_->config()));
    return state;
  }

  // Feeds several texts side by side in random chunks, some of them left out of some passes.
  std::vector<State> Mixed(Decoder& decoder, const std::vector<std::vector<int32_t>>& texts) {
    std::vector<Sequence> sequences(texts.size());
    std::vector<State> states(texts.size());
    const TapSpec spec{.layers = AllTapLayers(decoder.config()), .all_tokens = true};
    for (State& state : states) state.taps = Taps(spec, decoder.config().hidden_size);
    const auto done = [&](size_t i) { return sequences[i].length() == static_cast<int>(texts[i].size()); };
    for (;;) {
      std::vector<size_t> order;
      for (size_t i = 0; i < texts.size(); ++i) {
        if (!done(i) && random_() % 3 != 0) order.push_back(i);
      }
      std::shuffle(order.begin(), order.end(), random_);
      std::vector<FedSlice> fed;
      for (const size_t i : order) {
        const size_t chunk = random_() % 2 == 0 ? 1 : 1 + random_() % 60;
        const auto part = absl::MakeConstSpan(texts[i]).subspan(sequences[i].length(), chunk);
        fed.push_back(AppendSlice(*pool_, sequences[i], part, LogitsWanted::kAll, &states[i].taps));
      }
      std::vector<Slice> slices;
      for (const FedSlice& part : fed) slices.push_back(part.slice);
      absl::Span<const float> logits = decoder.Forward(slices);
      for (size_t k = 0; k < order.size(); ++k) {
        const size_t size = slices[k].tokens.size() * model_.options().vocab_size;
        std::vector<float>& to = states[order[k]].logits;
        to.insert(to.end(), logits.begin(), logits.begin() + size);
        logits.remove_prefix(size);
      }
      bool all = true;
      for (size_t i = 0; i < texts.size(); ++i) all = all && done(i);
      if (all) break;
    }
    for (size_t i = 0; i < texts.size(); ++i) states[i].kv = KeyValueBits(sequences[i]);
    return states;
  }

  std::vector<std::vector<int32_t>> RandomTexts(int count) {
    std::vector<std::vector<int32_t>> texts;
    for (int i = 0; i < count; ++i) {
      texts.push_back(RandomTokens(1 + static_cast<int>(random_() % 150), model_.options().vocab_size, random_()));
    }
    return texts;
  }

  const unsigned seed_;
  std::mt19937_64 random_;
  std::unique_ptr<RecordedFamily> recorded_;  // has 300 tokens, too
  const TinyModel model_{{.query_heads = 6, .kv_heads = 2, .tied_head = false}};
  ThreadPool threads_{2};
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<PagePool> pool_;
};

TEST_P(DecoderPropertyTest, ChunksBatchAndThreadsDoNotChangeABit) {
  for (const int thread_count : {1, 2, 3}) {
    ThreadPool threads(thread_count);
    const std::unique_ptr<Decoder> decoder = Load(threads);
    for (int round = 0; round < 4; ++round) {
      const std::vector<std::vector<int32_t>> texts = RandomTexts(5);
      const std::vector<State> mixed = Mixed(*decoder, texts);
      for (size_t i = 0; i < texts.size(); ++i) {
        ASSERT_TRUE(mixed[i] == Whole(texts[i]))
            << thread_count << " threads, text " << i << " of length " << texts[i].size();
      }
    }
  }
}

TEST_P(DecoderPropertyTest, PlacesOfPagesDoNotMatter) {
  const std::vector<int32_t> tokens = RandomTokens(100, 300, random_());
  const State expected = Whole(tokens);
  for (int round = 0; round < 5; ++round) {
    // Pages come back to the pool in a random order, so that the next sequence gets scattered ones.
    std::vector<PageRef> pages;
    PageReservation reservation = pool_->Reserve(pool_->total_pages()).value();
    while (reservation.pages() > 0) pages.push_back(reservation.Take());
    std::shuffle(pages.begin(), pages.end(), random_);
    while (!pages.empty()) pages.pop_back();
    EXPECT_TRUE(Whole(tokens) == expected);
  }
}

TEST_P(DecoderPropertyTest, RewindingAndGoingOnOtherwiseIsAsIfNeverFed) {
  for (int round = 0; round < 10; ++round) {
    const std::vector<int32_t> first = RandomTokens(80, 300, random_());
    std::vector<int32_t> second = first;
    const int keep = static_cast<int>(random_() % 80);
    second.resize(keep);
    for (const int32_t token : RandomTokens(30, 300, random_())) second.push_back(token);
    Sequence sequence;
    FeedTokens(*decoder_, *pool_, sequence, first, LogitsWanted::kNone);
    const Sequence kept = sequence;  // shares the pages
    const std::vector<uint16_t> before = KeyValueBits(kept);
    sequence.Truncate(keep);
    FeedTokens(*decoder_, *pool_, sequence, absl::MakeConstSpan(second).subspan(keep), LogitsWanted::kNone, 7);
    EXPECT_EQ(KeyValueBits(sequence), Whole(second).kv);
    EXPECT_EQ(KeyValueBits(kept), before);
  }
}

TEST_P(DecoderPropertyTest, LogitsAreThoseOfTheRowsThatWereAskedFor) {
  const std::vector<std::vector<int32_t>> texts = {RandomTokens(20, 300, 1), RandomTokens(5, 300, 2),
                                                   RandomTokens(9, 300, 3)};
  const int vocab = model_.options().vocab_size;
  std::vector<Sequence> sequences(3);
  const FedSlice all = AppendSlice(*pool_, sequences[0], texts[0], LogitsWanted::kAll);
  const FedSlice none = AppendSlice(*pool_, sequences[1], texts[1], LogitsWanted::kNone);
  const FedSlice last = AppendSlice(*pool_, sequences[2], texts[2], LogitsWanted::kLast);
  const absl::Span<const float> logits = decoder_->Forward({none.slice, last.slice, all.slice});
  ASSERT_EQ(logits.size(), size_t(21 * vocab));
  const std::vector<float> got(logits.begin(), logits.end());
  const State whole_last = Whole(texts[2]);
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(got).subspan(0, vocab),
                       absl::MakeConstSpan(whole_last.logits).subspan(size_t(8) * vocab)));
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(got).subspan(vocab), Whole(texts[0]).logits));
  EXPECT_TRUE(decoder_->Forward({}).empty());
}

TEST_P(DecoderPropertyTest, HiddenStatesAreThoseThatWereAskedForAndChangeNothingElse) {
  const std::vector<std::vector<int32_t>> texts = {RandomTokens(40, 300, 1), RandomTokens(33, 300, 2),
                                                   RandomTokens(9, 300, 3)};
  const int hidden = decoder_->config().hidden_size;
  const int layers = decoder_->config().layers;
  std::vector<Sequence> sequences(3);
  Taps some({.layers = {1, layers}, .all_tokens = true}, hidden);
  Taps last({.layers = {0, layers + 1}}, hidden);
  // Logits of the last token move rows of the residual stream, which comes after they were captured.
  const FedSlice a = AppendSlice(*pool_, sequences[0], texts[0], LogitsWanted::kLast, &some);
  const FedSlice b = AppendSlice(*pool_, sequences[1], texts[1], LogitsWanted::kAll);
  const FedSlice c = AppendSlice(*pool_, sequences[2], texts[2], LogitsWanted::kNone, &last);
  const absl::Span<const float> span = decoder_->Forward({a.slice, b.slice, c.slice});
  const std::vector<float> logits(span.begin(), span.end());
  const State first = Whole(texts[0]);
  EXPECT_EQ(TapRows(some, 0), TapRows(first.taps, 1));
  EXPECT_EQ(TapRows(some, 1), TapRows(first.taps, layers));
  const State third = Whole(texts[2]);
  ASSERT_EQ(last.extent().first_token, 8);
  EXPECT_TRUE(SameBits(last.Row(0, 8), third.taps.Row(0, 8)));
  EXPECT_TRUE(SameBits(last.Row(1, 8), third.taps.Row(layers + 1, 8)));
  const int vocab = model_.options().vocab_size;
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(logits).subspan(0, vocab),
                       absl::MakeConstSpan(first.logits).subspan(size_t(39) * vocab)));
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(logits).subspan(vocab), Whole(texts[1]).logits));
  EXPECT_EQ(KeyValueBits(sequences[0]), first.kv);
}

TEST_P(DecoderPropertyTest, EveryInstructionSetGivesTheSameBits) {
  const std::vector<std::vector<int32_t>> texts = RandomTexts(3);
  std::vector<State> expected;
  for (const auto& text : texts) expected.push_back(Whole(text));
  for (const int64_t target : KernelTargets()) {
    const ScopedTarget scope(target);
    std::cout << "running on " << cpu::InstructionSet() << "\n";
    for (size_t i = 0; i < texts.size(); ++i) EXPECT_TRUE(Whole(texts[i]) == expected[i]) << TargetName(target);
    EXPECT_TRUE(Mixed(*decoder_, texts) == expected) << TargetName(target);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, DecoderPropertyTest, testing::Values("plain", "mistral", "gemma2", "gemma3"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace quicksave::engine
