#include "server/text/detokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "server/text/test_models.h"

namespace quicksave::text {
namespace {

using ::testing::ElementsAre;

using Ids = std::vector<int32_t>;

std::vector<std::string> Pieces(const Tokenizer& tokenizer, const Ids& ids) {
  Detokenizer detokenizer(&tokenizer, /*skip_special=*/true);
  std::vector<std::string> pieces;
  for (size_t n = 1; n <= ids.size(); ++n) pieces.push_back(*detokenizer.Append(absl::MakeSpan(ids).first(n)));
  pieces.push_back(*detokenizer.PendingText(ids));
  return pieces;
}

TEST(DetokenizerTest, HoldsBackAnIncompleteCharacter) {
  const auto tokenizer = LoadTokenizer(ByteLevelTokenizerJson());
  EXPECT_THAT(Pieces(*tokenizer, {'a', 0xE2, 0x82, 0xAC, 'b'}), ElementsAre("a", "", "", "€", "b", ""));
  EXPECT_THAT(Pieces(*tokenizer, {'a', 0xE2, 0x82}), ElementsAre("a", "", "", "\uFFFD"));
}

TEST(DetokenizerTest, GivesOutWhatABadByteCannotChange) {
  const auto tokenizer = LoadTokenizer(ByteLevelTokenizerJson());
  EXPECT_THAT(Pieces(*tokenizer, {0xFF, 0xFF, 'a'}), ElementsAre("", "\uFFFD", "\uFFFDa", ""));
}

TEST(DetokenizerTest, KeepsTheSpaceBetweenWordsThatADecoderStripsAtTheStart) {
  const auto tokenizer = LoadTokenizer(ByteFallbackTokenizerJson());
  EXPECT_THAT(Pieces(*tokenizer, {1, 262, 262, 2, 2, 262}), ElementsAre("", "a", " a", "", "", " a", ""));
}

TEST(DetokenizerTest, WaitsForTheEndOfARunOfByteTokens) {
  const auto tokenizer = LoadTokenizer(ByteFallbackTokenizerJson());
  const auto byte = [](int value) { return 3 + value; };
  EXPECT_THAT(Pieces(*tokenizer, {260, byte(0xC3), byte(0xA9), 260}), ElementsAre("a", "", "", "éa", ""));
  EXPECT_THAT(Pieces(*tokenizer, {byte('x'), byte(0xFF), 260}), ElementsAre("", "", "\uFFFD\uFFFDa", ""));
}

TEST(DetokenizerTest, RefusesStatesAndTokensThatDoNotFit) {
  const auto tokenizer = LoadTokenizer(ByteLevelTokenizerJson());
  const auto code = [&](const Detokenizer::State& state, const Ids& ids) {
    return Detokenizer(tokenizer.get(), true, state).Append(ids).status().code();
  };
  EXPECT_EQ(code({0, 3, 0}, {'a', 'b'}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({-1, 0, 0}, {'a'}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({2, 1, 0}, {'a', 'b'}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({0, 1, 100}, {'a'}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({0, 0, -1}, {'a'}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({0, 0, 0}, {1 << 20}), absl::StatusCode::kInvalidArgument);
}

TEST(DetokenizerTest, AFailedAppendChangesNothing) {
  const auto tokenizer = LoadTokenizer(ByteLevelTokenizerJson());
  Detokenizer detokenizer(tokenizer.get(), true);
  ASSERT_TRUE(detokenizer.Append(Ids{'a'}).ok());
  const Detokenizer::State before = detokenizer.state();
  EXPECT_FALSE(detokenizer.Append(Ids{'a', -1}).ok());
  EXPECT_EQ(detokenizer.state(), before);
  EXPECT_EQ(*detokenizer.Append(Ids{'a', 'b'}), "b");
}

// The pieces after the first `skipped` of `ids`, one for each token, and what is pending at the end.
std::vector<std::string> PiecesAfter(const Tokenizer& tokenizer, const Ids& ids, size_t skipped) {
  Detokenizer detokenizer(&tokenizer, /*skip_special=*/true);
  EXPECT_TRUE(detokenizer.SkipTo(absl::MakeSpan(ids).first(skipped)).ok());
  std::vector<std::string> pieces;
  for (size_t n = skipped + 1; n <= ids.size(); ++n) {
    pieces.push_back(*detokenizer.Append(absl::MakeSpan(ids).first(n)));
  }
  pieces.push_back(*detokenizer.PendingText(ids));
  return pieces;
}

TEST(DetokenizerTest, SkippedTokensThatEndInAByteTokenGiveNoText) {
  const auto tokenizer = LoadTokenizer(ByteFallbackTokenizerJson());
  const auto byte = [](int value) { return 3 + value; };
  EXPECT_THAT(PiecesAfter(*tokenizer, {1, 262, 261, byte('\n'), 260, 262}, 4), ElementsAre("a", " a", ""));
  EXPECT_THAT(PiecesAfter(*tokenizer, {1, 262, 261, byte('\n'), byte('x'), 262}, 4), ElementsAre("", "x a", ""));
  EXPECT_THAT(PiecesAfter(*tokenizer, {1, 262, 261, byte('\n')}, 4), ElementsAre(""));
}

TEST(DetokenizerTest, SkippedTokensGiveOnlyTheCharacterThatTheyLeaveIncomplete) {
  const auto fallback = LoadTokenizer(ByteFallbackTokenizerJson());
  const auto byte = [](int value) { return 3 + value; };
  const Ids broken = {260, byte('\n'), byte(0xE2), byte(0x82), byte(0xAC), 261};
  EXPECT_THAT(PiecesAfter(*fallback, broken, 3), ElementsAre("", "", "€b", ""));
  EXPECT_THAT(PiecesAfter(*fallback, broken, 4), ElementsAre("", "€b", ""));
  EXPECT_THAT(PiecesAfter(*fallback, broken, 5), ElementsAre("b", ""));
  const auto byte_level = LoadTokenizer(ByteLevelTokenizerJson());
  EXPECT_THAT(PiecesAfter(*byte_level, {'a', 0xE2, 0x82, 0xAC, 'b'}, 3), ElementsAre("€", "b", ""));
  EXPECT_THAT(PiecesAfter(*byte_level, {'a', 0xE2, 0x82}, 3), ElementsAre("\uFFFD"));
}

TEST(DetokenizerTest, TextAfterSkippedBytesIsWholeCharactersWhateverBecomesOfTheRun) {
  const auto tokenizer = LoadTokenizer(ByteFallbackTokenizerJson());
  const auto byte = [](int value) { return 3 + value; };
  // The byte that follows makes the whole run U+FFFD.
  EXPECT_THAT(PiecesAfter(*tokenizer, {260, byte('\n'), byte(0xFF), 260}, 2), ElementsAre("", "\uFFFDa", ""));
  EXPECT_THAT(PiecesAfter(*tokenizer, {260, byte('\n'), byte(0xFF)}, 2), ElementsAre("", "\uFFFD"));
}

TEST(DetokenizerTest, AFailedSkipChangesNothing) {
  const auto tokenizer = LoadTokenizer(ByteLevelTokenizerJson());
  Detokenizer detokenizer(tokenizer.get(), true, {1, 2, 1});
  EXPECT_EQ(detokenizer.SkipTo(Ids{'a', 1 << 20}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(detokenizer.state(), (Detokenizer::State{1, 2, 1}));
}

// Appends random tokens in random steps, through a fresh object made from the saved state before each step.
void ExpectPiecesEqualDecode(const Tokenizer& tokenizer, const Ids& ids, bool skip_special, std::mt19937& random) {
  std::string text;
  Detokenizer::State state;
  for (size_t n = 0; n < ids.size();) {
    n = std::min(ids.size(), n + 1 + (random() % 8 == 0 ? random() % 5 : 0));
    Detokenizer detokenizer(&tokenizer, skip_special, state);
    absl::StatusOr<std::string> piece = detokenizer.Append(absl::MakeSpan(ids).first(n));
    ASSERT_TRUE(piece.ok()) << piece.status();
    text += *piece;
    state = detokenizer.state();
  }
  text += *Detokenizer(&tokenizer, skip_special, state).PendingText(ids);
  ASSERT_EQ(text, *tokenizer.Decode(ids, skip_special)) << absl::StrJoin(ids, " ");
}

Ids RandomIds(int vocab_size, std::mt19937& random) {
  Ids ids(random() % 60);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<unsigned>(vocab_size));
  return ids;
}

// Text as ids, in which some tokens are replaced: mostly whole characters, some broken.
Ids DamagedText(const Tokenizer& tokenizer, std::mt19937& random) {
  const std::string words[] = {"hello ", "wörld ", "日本語", "👩‍🚀", " a", "b", "  ", "\n", "<think>", "é"};
  std::string text;
  for (int i = 0; i < 12; ++i) text += words[random() % std::size(words)];
  Ids ids = *tokenizer.Encode(text, true, true);
  for (int32_t& id : ids) {
    if (random() % 16 == 0) id = static_cast<int32_t>(random() % static_cast<unsigned>(tokenizer.vocab_size()));
  }
  return ids;
}

void CheckProperty(const Tokenizer& tokenizer, int rounds) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < rounds && !::testing::Test::HasFatalFailure(); ++i) {
    const bool skip_special = random() % 2 == 0;
    ExpectPiecesEqualDecode(tokenizer, RandomIds(tokenizer.vocab_size(), random), skip_special, random);
    ExpectPiecesEqualDecode(tokenizer, DamagedText(tokenizer, random), skip_special, random);
  }
}

// What an uninterrupted run gives after `skipped` tokens of a whole text: all but the characters complete by then.
std::string TextAfter(const Tokenizer& tokenizer, const Ids& ids, size_t skipped) {
  const std::string whole = *tokenizer.Decode(ids, true);
  for (size_t n = skipped;; --n) {
    std::string before = *tokenizer.Decode(absl::MakeSpan(ids).first(n), true);
    // Bytes of an incomplete character at the end.
    if (absl::EndsWith(before, "\uFFFD")) before.resize(before.size() - 3);
    if (absl::StartsWith(whole, before)) return whole.substr(before.size());
  }
}

void CheckSkips(const Tokenizer& tokenizer, int rounds) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const std::string words[] = {"hello ", "wörld ", "日本語", "👩‍🚀", "🎉", " a", "b", "  ", "\n", "\n\n", "é"};
  for (int i = 0; i < rounds; ++i) {
    std::string text;
    for (int word = 0; word < 8; ++word) text += words[random() % std::size(words)];
    const Ids ids = *tokenizer.Encode(text, true, true);
    const size_t skipped = random() % (ids.size() + 1);
    ASSERT_EQ(absl::StrJoin(PiecesAfter(tokenizer, ids, skipped), ""), TextAfter(tokenizer, ids, skipped))
        << absl::StrJoin(ids, " ") << " after " << skipped;
  }
}

TEST(DetokenizerTest, SkippingIsAsHavingGivenOutForByteLevel) {
  CheckSkips(*LoadTokenizer(ByteLevelTokenizerJson()), 1000);
}

TEST(DetokenizerTest, SkippingIsAsHavingGivenOutForByteFallback) {
  CheckSkips(*LoadTokenizer(ByteFallbackTokenizerJson()), 1000);
}

TEST(DetokenizerTest, PiecesEqualDecodeForByteLevel) { CheckProperty(*LoadTokenizer(ByteLevelTokenizerJson()), 1000); }

TEST(DetokenizerTest, PiecesEqualDecodeForByteFallback) {
  CheckProperty(*LoadTokenizer(ByteFallbackTokenizerJson()), 1000);
}

TEST(DetokenizerTest, PiecesEqualDecodeForTheRealModel) {
  auto tokenizer = Tokenizer::Load(RealModelDir());
  ASSERT_TRUE(tokenizer.ok()) << "run scripts/fetch_model.sh: " << tokenizer.status();
  CheckProperty(**tokenizer, 1000);
}

}  // namespace
}  // namespace quicksave::text
