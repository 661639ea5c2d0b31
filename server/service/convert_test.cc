#include "server/service/convert.h"

#include <cstdlib>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/util/time_util.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::server {
namespace {

constexpr int kVocab = 300;

using google::protobuf::util::TimeUtil;
using testing::HasSubstr;

google::protobuf::Duration DurationOf(int64_t seconds, int32_t nanos) {
  google::protobuf::Duration duration;
  duration.set_seconds(seconds);
  duration.set_nanos(nanos);
  return duration;
}

google::protobuf::Timestamp TimestampOf(int64_t seconds, int32_t nanos) {
  google::protobuf::Timestamp time;
  time.set_seconds(seconds);
  time.set_nanos(nanos);
  return time;
}

TEST(ConvertTest, DurationsGoThereAndBack) {
  for (const absl::Duration duration : {absl::ZeroDuration(), absl::Nanoseconds(1), absl::Milliseconds(1500),
                                        -absl::Milliseconds(1500), absl::Hours(100000), -absl::Nanoseconds(1)}) {
    google::protobuf::Duration proto;
    ToProto(duration, &proto);
    EXPECT_EQ(*FromProto(proto), duration);
  }
}

TEST(ConvertTest, TimesGoThereAndBack) {
  for (const char* text : {"2026-11-22T10:00:00.123456Z", "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.5Z"}) {
    google::protobuf::Timestamp expected;
    ASSERT_TRUE(TimeUtil::FromString(text, &expected));
    const absl::StatusOr<absl::Time> time = FromProto(expected);
    ASSERT_TRUE(time.ok()) << time.status();
    google::protobuf::Timestamp proto;
    ToProto(*time, &proto);
    EXPECT_EQ(TimeUtil::ToString(proto), TimeUtil::ToString(expected));
    EXPECT_GE(proto.nanos(), 0);
  }
}

TEST(ConvertTest, RefusesWhatIsNoDuration) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const auto& bad : {DurationOf(kMost, 0), DurationOf(-kMost - 1, 0), DurationOf(315'576'000'001, 0),
                          DurationOf(0, 1'000'000'000), DurationOf(0, -1'000'000'000), DurationOf(1, -1),
                          DurationOf(-1, 1), DurationOf(0, std::numeric_limits<int32_t>::min())}) {
    EXPECT_EQ(FromProto(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad.ShortDebugString();
  }
  EXPECT_EQ(*FromProto(DurationOf(-1, -5)), -absl::Seconds(1) - absl::Nanoseconds(5));
}

TEST(ConvertTest, RefusesWhatIsNoTime) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const auto& bad : {TimestampOf(kMost, 0), TimestampOf(-kMost - 1, 0), TimestampOf(253'402'300'800, 0),
                          TimestampOf(0, -1), TimestampOf(0, 1'000'000'000)}) {
    EXPECT_EQ(FromProto(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad.ShortDebugString();
  }
}

TEST(ConvertTest, SamplingReplacesTheFieldsThatAreSet) {
  const engine::SamplingParameters base{.temperature = 0.5F,
                                        .top_k = 7,
                                        .top_p = 0.9F,
                                        .min_p = 0.1F,
                                        .repetition_penalty = 1.1F,
                                        .presence_penalty = 0.5F,
                                        .frequency_penalty = -0.5F,
                                        .logit_bias = {{0, 1}, {299, -100}},
                                        .seed = 3};
  EXPECT_EQ(*FromProto(v1::SamplingParameters(), base, kVocab), base);
  v1::SamplingParameters some;
  some.set_temperature(0);
  some.set_seed(0);
  engine::SamplingParameters expected = base;
  expected.temperature = 0;
  expected.seed = 0;
  some.mutable_logit_bias();
  expected.logit_bias.clear();
  EXPECT_EQ(*FromProto(some, base, kVocab), expected);
  v1::SamplingParameters all;
  ToProto(base, &all);
  EXPECT_EQ(*FromProto(all, {}, kVocab), base);
  EXPECT_EQ(FromProto(all, {}, kVocab - 1).status().code(), absl::StatusCode::kInvalidArgument);
  all.set_top_p(1.5F);
  EXPECT_EQ(FromProto(all, {}, kVocab).status().code(), absl::StatusCode::kInvalidArgument);
  // Together with what was there before, too.
  EXPECT_FALSE(FromProto(v1::SamplingParameters(), {.top_k = -1}, kVocab).ok());
}

TEST(ConvertTest, EveryKindOfConstraintIsRead) {
  using Kind = text::Constraint::Kind;
  v1::Constraint constraint;
  EXPECT_EQ(FromProto(constraint), nullptr);
  constraint.set_json_schema("{}");
  EXPECT_EQ(*FromProto(constraint), (text::Constraint{Kind::kJsonSchema, {"{}"}}));
  constraint.set_regex("a");
  EXPECT_EQ(*FromProto(constraint), (text::Constraint{Kind::kRegex, {"a"}}));
  constraint.set_lark("start: /a/");
  EXPECT_EQ(*FromProto(constraint), (text::Constraint{Kind::kLark, {"start: /a/"}}));
  constraint.mutable_choice()->add_texts("a");
  constraint.mutable_choice()->add_texts("b");
  EXPECT_EQ(*FromProto(constraint), (text::Constraint{Kind::kChoices, {"a", "b"}}));
}

TEST(ConvertTest, EveryKindOfConstraintIsShown) {
  using Kind = text::Constraint::Kind;
  for (const text::Constraint& constraint :
       {text::Constraint{Kind::kJsonSchema, {"{}"}}, text::Constraint{Kind::kRegex, {"a"}},
        text::Constraint{Kind::kLark, {"start: /a/"}}, text::Constraint{Kind::kChoices, {"a", "b"}}}) {
    v1::ActiveConstraint active;
    ToProto({.constraint = std::make_shared<const text::Constraint>(constraint), .tokens = 7}, &active);
    EXPECT_EQ(active.token_count(), 7);
    EXPECT_EQ(*FromProto(active.definition()), constraint);
  }
}

TEST(ConvertTest, NamesAreOfTheirCollection) {
  EXPECT_EQ(*ParseName("nodes/abc-09", "nodes"), "abc-09");
  EXPECT_EQ(*ParseName("sessions/x", "sessions"), "x");
  EXPECT_TRUE(ParseName("nodes/" + std::string(63, 'a'), "nodes").ok());
  for (const std::string& bad :
       {std::string(), std::string("nodes"), std::string("nodes/"), std::string("abc"), std::string("sessions/abc"),
        std::string("nodes/ABC"), std::string("nodes/a/b"), std::string("nodes/a b"), std::string("nodes/.."),
        std::string("nodes/\xff\n"), std::string("nodes/a\0b", 9), "nodes/" + std::string(64, 'a'),
        "x" + std::string(100000, 'y')}) {
    const absl::Status status = ParseName(bad, "nodes").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("nodes/ID"));
    EXPECT_LT(status.message().size(), 500u);
    for (const char c : status.message()) EXPECT_TRUE(c >= ' ' && c < 0x7f);
  }
}

TEST(ConvertTest, EdgeTypesHaveTheSameNames) {
  for (int i = 0; i < storage::v1::EdgeType_ARRAYSIZE; ++i) {
    const auto type = static_cast<storage::EdgeType>(i);
    EXPECT_EQ(v1::EdgeType_Name(ToProto(type)), storage::v1::EdgeType_Name(type));
  }
}

class ConvertNodeTest : public testing::Test {
 protected:
  ConvertNodeTest() {
    core_.tokenizer = text::Tokenizer::Load(model_.dir()).value();
    core_.identity = {.fingerprint = "f", .numerics = "n", .vocab_size = 300};
    record_.set_node_id("child");
    record_.set_model_fingerprint("f");
    record_.set_token_count(3);
    record_.set_codec("exact");
    record_.set_raw_bytes(1000);
    record_.set_stored_bytes(400);
    record_.set_new_stored_bytes(100);
    record_.set_block_count(2);
    record_.set_create_time_us(1'700'000'000'123'456);
    record_.set_update_time_us(1'700'000'001'000'000);
    record_.set_text_tail("tail");
    record_.add_lacks("taps");
    record_.mutable_sampler()->set_temperature(0.5F);
    record_.mutable_sampler()->set_seed(9);
    storage::ParentEdge* parent = record_.add_parents();
    parent->set_node_id("mother");
    parent->set_type(storage::v1::EDGE_TYPE_COUNTERFACTUAL);
    parent->set_at_token(2);
    storage::v1::StateRef* logits = record_.add_state();
    logits->set_name("logits");
    logits->set_size_bytes(1200);
    (*record_.mutable_annotations()->mutable_labels())["k"] = "v";
    (*record_.mutable_annotations()->mutable_rewards())["r"] = 0.5;
    record_.mutable_annotations()->set_note("note");
  }

  void AddContents() {
    storage::v1::NodeContents* contents = record_.mutable_contents();
    for (const int id : {int{'a'}, 298, int{'b'}}) contents->add_token_ids(id);
    storage::BlockRef* block = contents->add_blocks();
    block->set_id(std::string("\x00\x01\xff", 3));
    block->set_first_token(1);
    block->set_token_count(2);
    block->set_raw_bytes(10);
    block->set_stored_bytes(5);
    storage::v1::ConstraintState* constraint = contents->mutable_text()->mutable_constraint();
    constraint->set_kind(storage::v1::ConstraintState::KIND_REGEX);
    constraint->add_texts("b+");
    constraint->set_token_count(1);
  }

  v1::Node Convert(v1::NodeView view) {
    v1::Node node;
    ToProto(record_, core_, view, &node);
    return node;
  }

  const engine::TinyModel model_{{.layers = 1, .tokenizer = true}};
  Core core_;
  storage::NodeRecord record_;
};

TEST_F(ConvertNodeTest, BasicViewHasAllButTheContents) {
  const v1::Node node = Convert(v1::NODE_VIEW_BASIC);
  EXPECT_EQ(node.name(), "nodes/child");
  EXPECT_EQ(node.model_fingerprint(), "f");
  EXPECT_EQ(node.token_count(), 3);
  ASSERT_EQ(node.parents_size(), 1);
  EXPECT_EQ(node.parents(0).parent(), "nodes/mother");
  EXPECT_EQ(node.parents(0).type(), v1::EDGE_TYPE_COUNTERFACTUAL);
  EXPECT_EQ(node.parents(0).at_token(), 2);
  EXPECT_EQ(node.labels().at("k"), "v");
  EXPECT_EQ(node.rewards().at("r"), 0.5);
  EXPECT_EQ(node.note(), "note");
  EXPECT_EQ(node.etag(), storage::EtagOf(record_));
  EXPECT_EQ(TimeUtil::ToString(node.create_time()), "2023-11-14T22:13:20.123456Z");
  EXPECT_EQ(TimeUtil::ToString(node.update_time()), "2023-11-14T22:13:21Z");
  EXPECT_EQ(node.storage().codec(), "exact");
  EXPECT_EQ(node.storage().raw_bytes(), 1000);
  EXPECT_EQ(node.storage().stored_bytes(), 400);
  EXPECT_EQ(node.storage().added_bytes(), 100);
  EXPECT_EQ(node.storage().ratio(), 2.5);
  EXPECT_EQ(node.storage().blocks(), 2);
  EXPECT_EQ(node.storage().logits_bytes(), 1200);
  EXPECT_THAT(node.lacks(), testing::ElementsAre("taps"));
  EXPECT_EQ(node.text_tail(), "tail");
  EXPECT_EQ(node.sampling().temperature(), 0.5F);
  EXPECT_EQ(node.sampling().seed(), 9U);
  EXPECT_EQ(node.token_ids_size(), 0);
}

TEST_F(ConvertNodeTest, FullViewAddsTokensTextAndBlocks) {
  AddContents();
  const v1::Node basic = Convert(v1::NODE_VIEW_BASIC);
  EXPECT_EQ(basic.token_ids_size(), 0);
  EXPECT_EQ(basic.text(), "");
  EXPECT_FALSE(basic.has_constraint());
  const v1::Node node = Convert(v1::NODE_VIEW_FULL);
  EXPECT_EQ(node.constraint().definition().regex(), "b+");
  EXPECT_EQ(node.constraint().token_count(), 1);
  EXPECT_THAT(node.token_ids(), testing::ElementsAre('a', 298, 'b'));
  EXPECT_EQ(node.text(), "a<|im_start|>b");
  ASSERT_EQ(node.blocks_size(), 1);
  EXPECT_EQ(node.blocks(0).id(), "0001ff");
  EXPECT_EQ(node.blocks(0).first_token(), 1);
  EXPECT_EQ(node.blocks(0).token_count(), 2);
  EXPECT_EQ(node.blocks(0).raw_bytes(), 10);
  EXPECT_EQ(node.blocks(0).stored_bytes(), 5);
}

TEST_F(ConvertNodeTest, TokensOfAnotherModelHaveNoText) {
  AddContents();
  record_.set_model_fingerprint("other");
  const v1::Node node = Convert(v1::NODE_VIEW_FULL);
  EXPECT_THAT(node.token_ids(), testing::ElementsAre('a', 298, 'b'));
  EXPECT_EQ(node.text(), "");
}

TEST_F(ConvertNodeTest, ANodeWithoutBytesHasNoRatio) {
  record_.set_raw_bytes(0);
  record_.set_stored_bytes(0);
  EXPECT_EQ(Convert(v1::NODE_VIEW_BASIC).storage().ratio(), 0);
}

TEST_F(ConvertNodeTest, SessionNamesItsNodeOnlyWhenItHasOne) {
  SessionInfo info{.id = "s1", .token_count = 30, .pages = 2, .create_time = absl::UnixEpoch()};
  info.expire_time = absl::UnixEpoch() + absl::Seconds(60);
  v1::Session session;
  ToProto(info, core_, &session);
  EXPECT_EQ(session.name(), "sessions/s1");
  EXPECT_EQ(session.model_fingerprint(), "f");
  EXPECT_EQ(session.token_count(), 30);
  EXPECT_EQ(session.pages(), 2);
  EXPECT_EQ(session.node(), "");
  EXPECT_EQ(session.expire_time().seconds(), 60);
  info.node_id = "n1";
  info.node_tokens = 12;
  ToProto(info, core_, &session);
  EXPECT_EQ(session.node(), "nodes/n1");
  EXPECT_EQ(session.node_token_count(), 12);
}

TEST_F(ConvertNodeTest, TailIsTheLastCharactersOnOneLine) {
  const auto tail = [&](const std::string& text) {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return TextTail(core_, ids);
  };
  EXPECT_EQ(tail("short"), "short");
  EXPECT_EQ(tail("two\nlines\tand"), "two lines and");
  EXPECT_EQ(tail("0123456789012345678901234567890123456789"), "678901234567890123456789");
  EXPECT_EQ(tail(""), "");
  // Control tokens are left out; added words are longer than a byte, so that the limit of 80 bytes cuts.
  EXPECT_EQ(TextTail(core_, {298, 'a', 299}), "a");
  const std::string words = TextTail(core_, std::vector<int32_t>(24, 256));
  EXPECT_EQ(words.size(), 80u);
  EXPECT_THAT(words, testing::EndsWith(" w256 w256"));
  EXPECT_EQ(TextOf(core_, {298, 'a', 299}), "<|im_start|>a<|im_end|>");
}

TEST_F(ConvertNodeTest, TailIsCutBetweenCharacters) {
  // 24 bytes of 3-byte characters, preceded by words that push the text over 80 bytes at some character.
  for (int words = 10; words < 22; ++words) {
    std::vector<int32_t> ids(words, 257);
    while (ids.size() + 3 <= 24) {
      for (const int byte : {0xe2, 0x82, 0xac}) ids.insert(ids.begin(), byte);
    }
    const std::string text = TextTail(core_, ids);
    EXPECT_LE(text.size(), 80u);
    // What is left is UTF-8: it can be encoded again.
    EXPECT_TRUE(core_.tokenizer->Encode(text, false, false).ok()) << words;
  }
}

}  // namespace
}  // namespace quicksave::server
