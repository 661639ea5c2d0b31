// Constrained decoding, penalties, biases and samples, with the real model.

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"
#include "tests/integration/wire_call.h"

namespace quicksave::integration {
namespace {

using client::FinishReason;
using nlohmann::json;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

SharedServer* const kServer = SharedServer::Register();

const client::Client& Client() { return kServer->client(); }

// White space between the parts is left out, because a small model may never end it.
constexpr char kSchema[] = R"({
  "x-guidance": {"whitespace_flexible": false},
  "type": "object",
  "properties": {
    "name": {"type": "string", "minLength": 1, "maxLength": 12},
    "age": {"type": "integer", "minimum": 18, "maximum": 99},
    "likes": {"type": "array", "items": {"enum": ["music", "books", "\"quotes\""]}, "minItems": 1, "maxItems": 3}
  },
  "required": ["name", "age", "likes"],
  "additionalProperties": false
})";

const std::vector<client::ChatMessage> kQuestion = {{"user", "Describe a person as JSON."}};

void ExpectPerson(const std::string& text) {
  const json person = json::parse(text, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(person.is_object()) << text;
  EXPECT_EQ(person.size(), 3u) << text;
  EXPECT_TRUE(person["name"].is_string()) << text;
  ASSERT_TRUE(person["age"].is_number_integer()) << text;
  EXPECT_TRUE(person["age"] >= 18 && person["age"] <= 99) << text;
  ASSERT_TRUE(person["likes"].is_array() && !person["likes"].empty() && person["likes"].size() <= 3) << text;
  for (const json& like : person["likes"]) EXPECT_THAT(like, AnyOf("music", "books", "\"quotes\"")) << text;
}

client::GenerateRequest PersonRequest(uint64_t seed, int32_t max_tokens) {
  return {.input = kQuestion,
          .sampling = {.temperature = 1.0f,
                       .seed = seed,
                       .presence_penalty = 0.5f,
                       .frequency_penalty = 0.25f,
                       .logit_bias = {{{28, -2.0f}, {30, 1.5f}}}},
          .stop = {.max_tokens = max_tokens},
          .constraint = client::JsonSchema{kSchema},
          .top_logprobs = 5};
}

TEST(ConstraintTest, TextOfASchemaParsesAndIsValid) {
  for (uint64_t seed = 0; seed < 4; seed++) {
    SCOPED_TRACE(seed);
    client::GenerateRequest request = PersonRequest(seed, 200);
    if (seed == 0) request.sampling = {};  // greedy
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation generation, Generate(Client(), request));
    EXPECT_EQ(generation.finished.reason, FinishReason::kConstraintComplete) << generation;
    ExpectPerson(generation.text);
  }
}

TEST(ConstraintTest, ChoicesRegularExpressionsAndGrammarsHold) {
  const std::vector<std::string> choices = {"Paris", "Paris, France", "London", "I do not know: \"?\"\n"};
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < 6; seed++) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation choice,
                                   Generate(Client(), {.input = std::string("The capital of France is"),
                                                       .sampling = {.temperature = 1.5f, .seed = seed},
                                                       .constraint = client::Choices{choices}}));
    EXPECT_THAT(choices, ::testing::Contains(choice.text + choice.finished.pending_text));
    EXPECT_THAT(choice.finished.reason, AnyOf(FinishReason::kConstraintComplete, FinishReason::kEndOfTurn));
  }
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation date,
                                 Generate(Client(), {.input = std::string("The date is"),
                                                     .constraint = client::Regex{" [0-9]{4}-[01][0-9]-[0-3][0-9]"}}));
  EXPECT_TRUE(std::regex_match(date.text, std::regex(" [0-9]{4}-[01][0-9]-[0-3][0-9]"))) << date;
  EXPECT_EQ(date.finished.reason, FinishReason::kConstraintComplete);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation sum,
      Generate(Client(),
               {.input = std::string("Two numbers:"),
                .constraint = client::LarkGrammar{"start: NUMBER \"+\" NUMBER \";\"\nNUMBER: /[0-9]{1,3}/\n"}}));
  EXPECT_TRUE(std::regex_match(sum.text, std::regex("[0-9]{1,3}\\+[0-9]{1,3};"))) << sum;
}

TEST(ConstraintTest, LogProbabilitiesAreThoseOfTheModelWithoutIt) {
  const client::GenerateRequest free{
      .input = std::string("The capital of France is"), .stop = {.max_tokens = 1}, .top_logprobs = 100};
  client::GenerateRequest held = free;
  held.constraint = client::Choices{{" a"}};
  held.sampling = {.presence_penalty = 1.0f, .logit_bias = {{{260, 5.0f}}}};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation without, Generate(Client(), free));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation with, Generate(Client(), held));
  EXPECT_NE(with.tokens[0].id, without.tokens[0].id);
  EXPECT_TRUE(with.tokens[0].top == without.tokens[0].top);
}

// A server of its own that is killed with a constrained generation under way.
TEST(ConstraintCrashTest, GoesOnAfterACrashAsIfNeverStopped) {
  const TemporaryDirectory directory;
  const ServerOptions options{.data_dir = directory / "data"};
  auto server = ServerProcess::Start(options);
  ASSERT_TRUE(server.ok()) << server.status();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation whole, Generate((*server)->client(), PersonRequest(3, 200)));
  ASSERT_EQ(whole.finished.reason, FinishReason::kConstraintComplete) << whole;
  const auto count = static_cast<int32_t>(whole.tokens.size());
  client::GenerateRequest request = PersonRequest(3, count / 2);
  request.save.emplace();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation half, Generate((*server)->client(), request));
  ASSERT_EQ(half.saved.size(), 1u);
  ASSERT_EQ(half.finished.reason, FinishReason::kMaxTokens);
  (*server)->Kill();
  server = ServerProcess::Start(options);
  ASSERT_TRUE(server.ok()) << server.status();
  const client::Client& client = (*server)->client();

  const client::FromNode node{.name = half.saved[0].node.name};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest,
                                 Generate(client, {.start = node, .stop = {.max_tokens = 200}, .top_logprobs = 5}));
  std::vector<client::Token> tokens = half.tokens;
  tokens.insert(tokens.end(), rest.tokens.begin(), rest.tokens.end());
  EXPECT_TRUE(tokens == whole.tokens) << half << " + " << rest << " / " << whole;
  EXPECT_EQ(half.text + rest.text, whole.text);
  EXPECT_EQ(rest.finished.reason, FinishReason::kConstraintComplete);

  // What it was under is shown, and the settings came back too.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Node shown,
                                 client.GetNode({.name = node.name, .view = client::View::kFull}));
  EXPECT_EQ(shown.constraint, (client::ActiveConstraint{.definition = *request.constraint, .token_count = count / 2}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const auto restored, client.Restore({.node = node.name}));
  client::SamplingParameters sampling = PersonRequest(3, 0).sampling;
  EXPECT_EQ(restored.session.sampling.presence_penalty, sampling.presence_penalty);
  EXPECT_EQ(restored.session.sampling.frequency_penalty, sampling.frequency_penalty);
  EXPECT_EQ(restored.session.sampling.logit_bias, sampling.logit_bias);

  // Rewound to any place under the constraint, it goes on under it; before it, it does not.
  const int32_t begin = half.started.input_tokens;
  for (const int32_t at : {begin + count / 4, begin + 1, begin}) {
    client::FromNode rewound = node;
    rewound.at_token = at;
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const Generation again, Generate(client, {.start = rewound, .stop = {.max_tokens = 200}, .top_logprobs = 5}));
    EXPECT_EQ(at - begin + again.tokens.size(), whole.tokens.size());
    EXPECT_TRUE(std::equal(again.tokens.begin(), again.tokens.end(), whole.tokens.begin() + (at - begin))) << again;
  }
  client::FromNode before = node;
  before.at_token = begin - 1;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation other,
                                 Generate(client, {.start = before, .stop = {.max_tokens = 8}}));
  EXPECT_THAT(other.finished.reason, AnyOf(FinishReason::kMaxTokens, FinishReason::kEndOfTurn)) << other;
}

TEST(ConstraintTest, StaysInForceUntilInputAnotherConstraintOrItsEnd) {
  const auto begin = [] {
    return Generate(Client(), {.input = std::string("A number:"),
                               .stop = {.max_tokens = 2},
                               .constraint = client::Regex{"[0-9]{8}"},
                               .keep_session = true});
  };
  const auto go_on = [](const std::string& session, client::Input input, std::optional<client::Constraint> constraint) {
    return Generate(Client(), {.start = client::FromSession{session},
                               .input = std::move(input),
                               .stop = {.max_tokens = 20, .ignore_eos = true},
                               .constraint = std::move(constraint)});
  };
  const auto in_force = [](const std::string& session) {
    return Client().GetSession({.name = session, .view = client::View::kFull})->constraint;
  };
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation inside, begin());
  EXPECT_EQ(in_force(inside.finished.session),
            (client::ActiveConstraint{.definition = client::Regex{"[0-9]{8}"}, .token_count = 2}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest, go_on(inside.finished.session, {}, std::nullopt));
  EXPECT_TRUE(std::regex_match(inside.text + rest.text, std::regex("[0-9]{8}"))) << inside << rest;
  EXPECT_EQ(rest.finished.reason, FinishReason::kConstraintComplete);
  EXPECT_EQ(in_force(inside.finished.session), std::nullopt);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation after, go_on(inside.finished.session, {}, std::nullopt));
  EXPECT_EQ(after.finished.reason, FinishReason::kMaxTokens) << "it is over";

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation second, begin());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation input, go_on(second.finished.session, " apples.", std::nullopt));
  EXPECT_EQ(input.finished.reason, FinishReason::kMaxTokens) << input;

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation third, begin());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation none, go_on(third.finished.session, {}, client::Constraint()));
  EXPECT_EQ(none.finished.reason, FinishReason::kMaxTokens) << none;

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation fourth, begin());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation other,
                                 go_on(fourth.finished.session, {}, client::Choices{{" and so on"}}));
  EXPECT_EQ(other.text, " and so on");
}

TEST(ConstraintTest, SamplesOfOnePromptShareItsPrefill) {
  const auto prefilled = [] { return Client().GetStatus()->engine.prefilled_tokens; };
  const int64_t before = prefilled();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation common,
                                 Generate(Client(), {.input = Prose(8),
                                                     .sampling = {.temperature = 1.0f},
                                                     .stop = {.max_tokens = 0},
                                                     .constraint = client::Regex{"[a-z ,]{5,40}[.]"},
                                                     .keep_session = true}));
  const int64_t prompt = prefilled() - before;
  EXPECT_GE(prompt, common.started.input_tokens - 1);
  EXPECT_LE(prompt, common.started.input_tokens);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const auto branched,
      Client().Branch({.start = client::FromSession{common.finished.session}, .seeds = {11, 12, 13, 14}}));
  std::set<std::string> texts;
  for (const client::Session& session : branched.sessions) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const Generation sample,
        Generate(Client(), {.start = client::FromSession{session.name}, .stop = {.max_tokens = 60}}));
    EXPECT_TRUE(std::regex_match(sample.text, std::regex("[a-z ,]{5,40}[.]"))) << sample;
    texts.insert(sample.text);
  }
  EXPECT_GT(texts.size(), 1u) << "seeds differ";
  EXPECT_EQ(prefilled() - before, prompt) << "branches prefill nothing";
}

TEST(ConstraintTest, BadConstraintsAreRefusedWithTheirPlaceBeforeAnyWork) {
  const auto sessions = [] { return Client().ListSessions({})->sessions.size(); };
  const size_t before = sessions();
  const auto expect_refused = [](const client::Constraint& constraint, const std::string& text) {
    const absl::Status status = ErrorOf(Generate(Client(), {.input = std::string("x"), .constraint = constraint}));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_THAT(std::string(status.message()), HasSubstr("constraint."));
  };
  expect_refused(client::JsonSchema{"{\"type\":\n\"object\",}"}, "line 2 column 10");
  expect_refused(client::JsonSchema{R"({"type":"person"})"}, "Invalid type: person");
  expect_refused(client::Regex{"a(b"}, "unclosed group");
  expect_refused(client::Regex{std::string(300'000, 'a')}, "300000 bytes");
  expect_refused(client::LarkGrammar{"start: missing\n"}, "unknown name: \"missing\"");
  expect_refused(client::Choices{}, "0 choices");
  EXPECT_EQ(sessions(), before);
}

TEST(ConstraintTest, TextThatNoTokenCanCompleteFailsAndSaysSo) {
  const absl::Status status =
      ErrorOf(Generate(Client(), {.input = std::string("Hello"),
                                  .constraint = client::LarkGrammar{"start: \"a\" B\nB: /[a-z]+/ & /[0-9]+/\n"}}));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no token of the model may follow"));
}

TEST(ConstraintTest, GrammarThatIsTooSlowFailsItsCallOnly) {
  // Rules that may all be empty: what may come first takes seconds.
  std::string lark = "start: a0\n";
  for (int i = 0; i < 15'000; ++i) absl::StrAppend(&lark, "a", i, ":(a", i + 1, ")*\n");
  absl::StrAppend(&lark, "a15000: \"x\"\n");
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prose(2)));
  const client::GenerateStart start = client::FromSession{session};
  const absl::Status status = ErrorOf(Generate(Client(), {.start = start, .constraint = client::LarkGrammar{lark}}));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), StartsWith("constraint: "));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation after,
      Generate(Client(),
               {.start = start, .stop = {.max_tokens = 3, .ignore_eos = true}, .constraint = client::Constraint()}));
  EXPECT_EQ(after.tokens.size(), 3u);
}

TEST(SamplingExtrasTest, BiasesBanAndForceTokens) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> paris, TokenIds(Client(), " Paris"));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> zebra, TokenIds(Client(), " zebra"));
  const auto generate = [](std::map<int32_t, float> biases) {
    return Generate(Client(), {.input = std::string("The capital of France is"),
                               .sampling = {.logit_bias = std::move(biases)},
                               .stop = {.max_tokens = 4, .ignore_eos = true}});
  };
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation plain, generate({}));
  ASSERT_THAT(plain.text, StartsWith(" Paris"));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation banned, generate({{paris[0], -100}}));
  EXPECT_THAT(Ids(banned.tokens), ::testing::Not(::testing::Contains(paris[0])));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation forced, generate({{zebra[0], 100}}));
  EXPECT_THAT(Ids(forced.tokens), ::testing::Each(zebra[0]));
}

TEST(SamplingExtrasTest, PenaltiesKeepFromRepeating) {
  const auto distinct = [](const client::SamplingParameters& sampling) {
    const auto generation = Generate(Client(), {.input = std::string("la la la la la la la la"),
                                                .sampling = sampling,
                                                .stop = {.max_tokens = 30, .ignore_eos = true}});
    const std::vector<int32_t> ids = Ids(generation->tokens);
    return std::set<int32_t>(ids.begin(), ids.end()).size();
  };
  // Negative ones ask for what was there already.
  EXPECT_LT(distinct({.frequency_penalty = -2.0f}), 5u);
  EXPECT_GT(distinct({.presence_penalty = 2.0f}), 15u);
  EXPECT_GT(distinct({.frequency_penalty = 2.0f}), 15u);
}

TEST(SamplingExtrasTest, BadValuesAreRefused) {
  const WireCaller caller(kServer->process().endpoint());
  std::string many;
  for (int id = 0; id < 301; ++id) absl::StrAppend(&many, "biases { key: ", id, " value: 1 } ");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"logit_bias { biases { key: 49152 value: 1 } }", "token id 49152 is outside the vocabulary [0, 49152)"},
      {"logit_bias { biases { key: -1 value: 1 } }", "token id -1"},
      {"logit_bias { biases { key: 5 value: nan } }", "sampling.logit_bias[5]"},
      {"logit_bias { biases { key: 5 value: 100.5 } }", "sampling.logit_bias[5]"},
      {absl::StrCat("logit_bias { ", many, "}"), "301 entries; at most 300"},
      {"presence_penalty: nan", "sampling.presence_penalty"},
      {"presence_penalty: 2.5", "sampling.presence_penalty"},
      {"frequency_penalty: inf", "sampling.frequency_penalty"},
      {"frequency_penalty: -3", "sampling.frequency_penalty"}};
  for (const auto& [field, text] : bad) {
    for (const char* method : {"SnapshotService/Generate", "SnapshotService/Restore", "SnapshotService/Branch"}) {
      const std::string start = method == std::string("SnapshotService/Generate") ? "prompt: 'x' " : "node: 'nodes/x' ";
      const WireAnswer answer = caller.Call(method, absl::StrCat(start, "sampling { ", field, " }"));
      EXPECT_EQ(answer.code, absl::StatusCode::kInvalidArgument) << method << " " << field;
      EXPECT_THAT(answer.message, HasSubstr(text));
    }
  }
}

}  // namespace
}  // namespace quicksave::integration
