#include "server/text/grammar.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/text/test_models.h"

namespace quicksave::text {
namespace {

using nlohmann::json;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;
using Kind = Constraint::Kind;

constexpr int32_t kEnd = 261;  // <|end|>

const Tokenizer& ByteLevel() {
  static const std::unique_ptr<Tokenizer> kTokenizer = LoadTokenizer(ByteLevelTokenizerJson());
  return *kTokenizer;
}

const Tokenizer& ByteFallback() {
  static const std::unique_ptr<Tokenizer> kTokenizer = LoadTokenizer(ByteFallbackTokenizerJson());
  return *kTokenizer;
}

const Tokenizer& Real() {
  static const std::unique_ptr<Tokenizer> kTokenizer = Tokenizer::Load(RealModelDir()).value();
  return *kTokenizer;
}

std::unique_ptr<Grammar> Make(const Constraint& constraint, const Tokenizer& tokenizer = ByteLevel()) {
  return Grammar::Create(&tokenizer, constraint).value();
}

std::vector<int32_t> Allowed(Grammar& grammar) {
  const absl::Span<const uint32_t> mask = grammar.Mask().value();
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < static_cast<int32_t>(mask.size()) * 32; ++id) {
    if ((mask[id / 32] >> (id % 32) & 1) != 0) ids.push_back(id);
  }
  return ids;
}

struct Walk {
  std::vector<int32_t> ids;
  bool whole = false;  // ended where the text is whole
};

// Draws allowed tokens at random until nothing may follow, or, where the text is whole, by the toss of a coin.
Walk RandomWalk(Grammar& grammar, std::mt19937& random, int max_tokens) {
  Walk walk;
  for (int i = 0; i < max_tokens; ++i) {
    const std::vector<int32_t> allowed = Allowed(grammar);
    walk.whole = grammar.progress() != Grammar::Progress::kOpen;
    if (allowed.empty() || (walk.whole && random() % 4 == 0)) return walk;
    walk.ids.push_back(allowed[random() % allowed.size()]);
    EXPECT_TRUE(grammar.Consume({walk.ids.back()}).ok());
  }
  walk.whole = grammar.progress() != Grammar::Progress::kOpen;
  return walk;
}

absl::Status Refusal(const Constraint& constraint, const Tokenizer& tokenizer = ByteLevel()) {
  return Grammar::Create(&tokenizer, constraint).status();
}

TEST(GrammarTest, MaskIsExactlyWhatMayFollow) {
  const auto grammar = Make({Kind::kRegex, {"h(ello|ell?)x?"}});
  EXPECT_THAT(Allowed(*grammar), UnorderedElementsAre('h', 256 /*he*/, 258 /*hell*/));
  EXPECT_EQ(grammar->progress(), Grammar::Progress::kOpen);
  ASSERT_TRUE(grammar->Consume({256}).ok());
  EXPECT_THAT(Allowed(*grammar), UnorderedElementsAre('l', 257 /*ll*/));
  ASSERT_TRUE(grammar->Consume({257}).ok());
  EXPECT_EQ(grammar->progress(), Grammar::Progress::kWhole);
  EXPECT_THAT(Allowed(*grammar), UnorderedElementsAre('o', 'x'));
  ASSERT_TRUE(grammar->Consume({'o', 'x'}).ok());
  EXPECT_EQ(grammar->progress(), Grammar::Progress::kComplete);
  EXPECT_THAT(Allowed(*grammar), IsEmpty());
}

TEST(GrammarTest, TokenThatMayNotFollowIsRefused) {
  for (const int32_t id : {int32_t{'a'}, kEnd, 299, -1, 1 << 20}) {
    const auto grammar = Make({Kind::kRegex, {"hello"}});
    EXPECT_EQ(grammar->Consume({id}).code(), absl::StatusCode::kFailedPrecondition) << id;
  }
}

TEST(GrammarTest, StateIsAFunctionOfTheTokens) {
  std::mt19937 random(7);
  const Constraint constraint{Kind::kJsonSchema, {R"({"type":"object"})"}};
  for (int round = 0; round < 20; ++round) {
    const auto grammar = Make(constraint);
    const Walk walk = RandomWalk(*grammar, random, 30);
    const auto again = Make(constraint);
    ASSERT_TRUE(again->Consume(walk.ids).ok());
    EXPECT_EQ(again->progress(), grammar->progress());
    EXPECT_EQ(Allowed(*again), Allowed(*grammar));
  }
}

TEST(GrammarTest, ControlTokensAreDrawnOnlyWhereALarkGrammarNamesThem) {
  const auto any = Make({Kind::kRegex, {"(?s:.*)"}});
  const std::vector<int32_t> allowed = Allowed(*any);
  for (const int32_t id : {260, kEnd, 263}) EXPECT_THAT(allowed, testing::Not(testing::Contains(id)));
  EXPECT_THAT(allowed, testing::Contains(262)) << "<think> is ordinary vocabulary";
  const auto lark = Make({Kind::kLark, {"start: \"a\" <|end|>"}});
  ASSERT_TRUE(lark->Consume({'a'}).ok());
  EXPECT_THAT(Allowed(*lark), UnorderedElementsAre(kEnd));
}

TEST(GrammarTest, ChoicesAreTakenLiterally) {
  const std::vector<std::string> choices = {"a.b", "(x|y)*", "a/b\\n\"", "line\nbreak\t", "\xC3\xA9\xE6\x97\xA5",
                                            "a.bc"};
  std::mt19937 random(3);
  std::vector<std::string> seen;
  for (int round = 0; round < 200; ++round) {
    const auto grammar = Make({Kind::kChoices, choices});
    const Walk walk = RandomWalk(*grammar, random, 50);
    ASSERT_TRUE(walk.whole);
    seen.push_back(ByteLevel().Decode(walk.ids, false).value());
    ASSERT_THAT(choices, testing::Contains(seen.back()));
  }
  for (const std::string& choice : choices) EXPECT_THAT(seen, testing::Contains(choice));
}

TEST(GrammarTest, ByteFallbackVocabularyWritesSpacesAndBytes) {
  const auto grammar = Make({Kind::kRegex, {" a\xC3\xA9?"}}, ByteFallback());
  EXPECT_THAT(Allowed(*grammar), UnorderedElementsAre(3 + ' ', 259, 262));
  ASSERT_TRUE(grammar->Consume({262}).ok());
  EXPECT_THAT(Allowed(*grammar), UnorderedElementsAre(3 + 0xC3));
}

TEST(GrammarTest, VocabularyWithoutBytesIsRefused) {
  const auto words = LoadTokenizer(
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,
          "post_processor":null,"decoder":null,
          "model":{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"a"}})");
  EXPECT_EQ(Refusal({Kind::kRegex, {"a"}}, *words).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(GrammarTest, BadConstraintsAreRefusedWithTheirPlace) {
  const auto expect_refused = [](const Constraint& constraint, const std::string& field, const std::string& text) {
    const absl::Status status = Refusal(constraint);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field << " " << text;
    EXPECT_THAT(std::string(status.message()), testing::StartsWith(field));
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_LT(status.message().size(), 1200u);
  };
  expect_refused({Kind::kJsonSchema, {"{\"type\":\n \"object\",}"}}, "constraint.json_schema: ", "line 2 column 11");
  expect_refused({Kind::kJsonSchema, {R"({"type":"foo"})"}}, "constraint.json_schema: ", "Invalid type: foo");
  expect_refused({Kind::kJsonSchema, {R"({"type":"array","uniqueItems":true})"}},
                 "constraint.json_schema: ", "uniqueItems");
  expect_refused({Kind::kJsonSchema, {R"({"type":"integer","minimum":5,"maximum":3})"}},
                 "constraint.json_schema: ", "Unsatisfiable");
  expect_refused({Kind::kJsonSchema, {R"({"$ref":"https://example.org/s"})"}}, "constraint.json_schema: ", "ref");
  expect_refused({Kind::kJsonSchema, {std::string(200, '[')}}, "constraint.json_schema: ", "recursion limit");
  expect_refused({Kind::kRegex, {"ab(c"}}, "constraint.regex: ", "unclosed group");
  expect_refused({Kind::kRegex, {"a(?=b)"}}, "constraint.regex: ", "look-around");
  expect_refused({Kind::kRegex, {"a\xFF"}}, "constraint.regex: ", "not UTF-8 at byte 1");
  expect_refused({Kind::kRegex, {std::string(201, '(')}}, "constraint.regex: ", "at byte 200: more than 200 brackets");
  expect_refused({Kind::kRegex, {std::string(100'000, '*')}}, "constraint.regex: ", "");
  expect_refused({Kind::kRegex, {std::string(262'145, 'a')}},
                 "constraint.regex: ", "it has 262145 bytes; at most 262144");
  expect_refused({Kind::kLark, {"start: foo\nbar: \"x\"\n"}}, "constraint.lark: ", "at 1(8): unknown name: \"foo\"");
  expect_refused({Kind::kLark, {"start: \"a\" |\n  & \"x\"\n"}}, "constraint.lark: ", "2(3)");
  expect_refused({Kind::kLark, {""}}, "constraint.lark: ", "no start rule");
  expect_refused({Kind::kChoices, {}}, "constraint.choice: ", "there are 0 choices");
  expect_refused({Kind::kChoices, std::vector<std::string>(1001, "a")},
                 "constraint.choice: ", "there are 1001 choices");
  expect_refused({Kind::kChoices, {"a", ""}}, "constraint.choice: ", "choice 1 is empty");
}

TEST(GrammarTest, LongChainsOfRulesCompile) {
  std::string lark = "start: a0\n";
  for (int i = 0; i < 15'000; ++i) absl::StrAppend(&lark, "a", i, ": a", i + 1, "\n");
  absl::StrAppend(&lark, "a15000: \"x\"\n");
  ASSERT_LT(lark.size(), 262'144u);
  EXPECT_THAT(Allowed(*Make({Kind::kLark, {lark}})), UnorderedElementsAre('x'));
}

TEST(GrammarTest, SlowStepCanBeCancelled) {
  // Rules that may all be empty: one mask takes seconds.
  std::string lark = "start: a0\n";
  for (int i = 0; i < 12'000; ++i) absl::StrAppend(&lark, "a", i, ":(a", i + 1, ")*\n");
  absl::StrAppend(&lark, "a12000: \"x\"\n");
  const auto grammar = Make({Kind::kLark, {lark}});
  absl::Status status;
  std::thread thread([&] { status = grammar->Mask().status(); });
  // Not to wait for anything: to cancel in the midst of the computation. Before it, the outcome is the same.
  absl::SleepFor(absl::Milliseconds(50));
  grammar->Cancel();
  thread.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_EQ(grammar->Mask().status().code(), absl::StatusCode::kFailedPrecondition);
}

constexpr char kPersonSchema[] = R"({
  "type": "object",
  "properties": {
    "name": {"type": "string", "maxLength": 20},
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "tags": {"type": "array", "items": {"enum": ["a", "b\n", "\u00e9"]}, "maxItems": 3},
    "next": {"$ref": "#"}
  },
  "required": ["name", "age"],
  "additionalProperties": false
})";

void ExpectPerson(const json& value) {
  ASSERT_TRUE(value.is_object()) << value;
  ASSERT_TRUE(value.contains("name") && value["name"].is_string()) << value;
  ASSERT_TRUE(value.contains("age") && value["age"].is_number_integer()) << value;
  EXPECT_GE(value["age"].get<int64_t>(), 0);
  EXPECT_LE(value["age"].get<int64_t>(), 150);
  for (const auto& [key, inner] : value.items()) {
    ASSERT_THAT(key, AnyOf("name", "age", "tags", "next"));
    if (key == "next") ExpectPerson(inner);
    if (key != "tags") continue;
    EXPECT_LE(inner.size(), 3u);
    for (const json& tag : inner) EXPECT_THAT(tag.get<std::string>(), AnyOf("a", "b\n", "\u00e9"));
  }
}

// Random walks under a mask end in texts that another implementation accepts.
class RandomWalkTest : public testing::TestWithParam<const Tokenizer* (*)()> {};

TEST_P(RandomWalkTest, TextsOfASchemaParseAndAreValid) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  int whole = 0;
  for (int round = 0; round < 60; ++round) {
    const auto grammar = Make({Kind::kJsonSchema, {kPersonSchema}}, *GetParam()());
    const Walk walk = RandomWalk(*grammar, random, 400);
    if (!walk.whole) continue;  // nested deeply
    ++whole;
    const std::string text = GetParam()()->Decode(walk.ids, false).value();
    const json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
    ASSERT_FALSE(value.is_discarded()) << text;
    ExpectPerson(value);
  }
  EXPECT_GT(whole, 5);
}

TEST_P(RandomWalkTest, TextsOfARegularExpressionMatchIt) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (const char* expression : {"[0-9]{3}-[0-9]{4}", "(yes|no|may ?be)(, (yes|no)){0,3}\\.", "[a-z ]{1,30}[.!?]",
                                 "([A-Z][a-z]+ ){2}[0-9]+|x*"}) {
    for (int round = 0; round < 30; ++round) {
      const auto grammar = Make({Kind::kRegex, {expression}}, *GetParam()());
      const Walk walk = RandomWalk(*grammar, random, 200);
      if (!walk.whole) continue;
      const std::string text = GetParam()()->Decode(walk.ids, false).value();
      EXPECT_TRUE(std::regex_match(text, std::regex(expression))) << expression << ": " << text;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, RandomWalkTest,
                         testing::Values(
                             +[]() -> const Tokenizer* { return &ByteLevel(); },
                             +[]() -> const Tokenizer* { return &Real(); }));

}  // namespace
}  // namespace quicksave::text
