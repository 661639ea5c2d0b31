// Every field of every request is translated. The tests fail when the interface gains a field that they do not name.

#include <limits>

#include "absl/strings/str_cat.h"
#include "client/src/convert.h"
#include "client/testing/message_fields.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace quicksave::client {
namespace {

using ::testing::IsEmpty;

template <typename Proto>
void ExpectProto(const Proto& actual, const std::string& text) {
  Proto expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &expected));
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(actual, expected)) << actual.DebugString();
}

constexpr char kSampling[] =
    "temperature: 0.5 top_k: 40 top_p: 0.75 min_p: 0.25 repetition_penalty: 1.5 seed: 18446744073709551615 "
    "presence_penalty: -0.5 frequency_penalty: 1.25 logit_bias { biases { key: 7 value: -100 } }";
const SamplingParameters kSamplingValue = {.temperature = 0.5f,
                                           .top_k = 40,
                                           .top_p = 0.75f,
                                           .min_p = 0.25f,
                                           .repetition_penalty = 1.5f,
                                           .seed = std::numeric_limits<uint64_t>::max(),
                                           .presence_penalty = -0.5f,
                                           .frequency_penalty = 1.25f,
                                           .logit_bias = {{{7, -100.0f}}}};

TEST(ConvertTest, GenerateRequestIsWrittenWhole) {
  const v1::GenerateRequest message = ToProto(
      GenerateRequest{.start = FromNode{.name = "nodes/n", .at_token = 5, .skip_check = true},
                      .input = std::vector<ChatMessage>{{.role = "user", .content = "hi"}},
                      .sampling = kSamplingValue,
                      .stop = {.max_tokens = 1, .strings = {"END"}, .token_ids = {2}, .ignore_eos = true},
                      .constraint = Choices{{"yes", "no"}},
                      .taps = TapSpec{.layers = {10, 3}, .all_tokens = true},
                      .top_logprobs = 3,
                      .save = SaveOptions{.labels = {{"k", "v"}}, .note = "note", .edge_type = EdgeType::kIntervention},
                      .save_every_tokens = 4,
                      .keep_session = true,
                      .lease = absl::Seconds(60),
                      .request_id = "id"});
  EXPECT_THAT(UnsetFields(message), IsEmpty());
  ExpectProto(message, absl::StrCat(R"pb(node: "nodes/n"
                                         at_token: 5
                                         skip_check: true
                                         messages { messages { role: "user" content: "hi" } }
                                         stop { max_tokens: 1 strings: "END" token_ids: 2 ignore_eos: true }
                                         constraint { choice { texts: "yes" texts: "no" } }
                                         taps {
                                           layers: [ 10, 3 ]
                                           tokens: TOKENS_ALL
                                         }
                                         top_logprobs: 3
                                         save {
                                           labels { key: "k" value: "v" }
                                           note: "note"
                                           edge_type: EDGE_TYPE_INTERVENTION
                                         }
                                         save_every_tokens: 4
                                         keep_session: true
                                         lease { seconds: 60 }
                                         request_id: "id"
                                         sampling {)pb",
                                    kSampling, "}"));
}

TEST(ConvertTest, EveryStartAndInputOfGenerate) {
  ExpectProto(ToProto(GenerateRequest{.input = "text"}), "prompt: 'text'");
  ExpectProto(ToProto(GenerateRequest{.input = std::string()}), "prompt: ''");
  ExpectProto(ToProto(GenerateRequest{.start = FromSession{.name = "sessions/s"}}), "session: 'sessions/s'");
  ExpectProto(ToProto(GenerateRequest{.input = std::vector<int32_t>{1, 2}}), "token_ids { ids: [1, 2] }");
  ExpectProto(ToProto(GenerateRequest{.input = std::vector<int32_t>{}}), "token_ids {}");
  ExpectProto(ToProto(GenerateRequest{.input = std::vector<ChatMessage>{}}), "messages {}");
}

TEST(ConvertTest, EveryConstraintOfGenerate) {
  ExpectProto(ToProto(GenerateRequest{}), "");
  ExpectProto(ToProto(GenerateRequest{.constraint = Constraint()}), "constraint {}");
  ExpectProto(ToProto(GenerateRequest{.constraint = JsonSchema{"{}"}}), "constraint { json_schema: '{}' }");
  ExpectProto(ToProto(GenerateRequest{.constraint = Regex{"a+"}}), "constraint { regex: 'a+' }");
  ExpectProto(ToProto(GenerateRequest{.constraint = Choices{}}), "constraint { choice {} }");
  ExpectProto(ToProto(GenerateRequest{.constraint = LarkGrammar{"start: /a/"}}), "constraint { lark: 'start: /a/' }");
  ExpectProto(ToProto(GenerateRequest{.sampling = {.logit_bias = {{}}}}), "sampling { logit_bias {} }");
}

TEST(ConvertTest, TapsAreWrittenWhole) {
  ExpectProto(ToProto(GenerateRequest{.taps = TapSpec()}), "taps { tokens: TOKENS_LAST }");
  const auto read = ToProto(
      ReadTapsRequest{.source = FromNode{.name = "nodes/n"}, .layers = {3, 10}, .first_token = 0, .token_count = 5});
  EXPECT_THAT(UnsetFields(read), IsEmpty());
  ExpectProto(read, "node: 'nodes/n' layers: [3, 10] first_token: 0 token_count: 5");
  ExpectProto(ToProto(ReadTapsRequest{.source = FromSession{.name = "sessions/s"}}), "session: 'sessions/s'");
}

TEST(ConvertTest, SnapshotServiceRequestsAreWrittenWhole) {
  const auto snapshot = ToProto(SnapshotRequest{
      .session = "sessions/s",
      .save = {.labels = {{"k", "v"}}, .note = "n", .edge_type = EdgeType::kContinuation},
      .encoding = EncodingSpec{.profile = "p", .split = 6, .point = "fine", .residual = true, .codec = "latent"},
      .budget = {.max_kl = 0.5, .min_top1 = 0.75},
      .drop_saved = true,
      .request_id = "id"});
  EXPECT_THAT(UnsetFields(snapshot), IsEmpty());
  ExpectProto(snapshot, R"pb(session: "sessions/s"
                             request_id: "id"
                             encoding { profile: "p" split: 6 point: "fine" residual: true codec: "latent" }
                             budget { max_kl: 0.5 min_top1: 0.75 }
                             drop_saved: true
                             save {
                               labels { key: "k" value: "v" }
                               note: "n"
                               edge_type: EDGE_TYPE_CONTINUATION
                             })pb");

  const auto restore = ToProto(RestoreRequest{.node = "nodes/n",
                                              .at_token = 0,
                                              .sampling = kSamplingValue,
                                              .lease = absl::Seconds(1),
                                              .skip_check = true,
                                              .request_id = "id",
                                              .exact_only = true,
                                              .budget = {.max_kl = 0.5, .min_top1 = 0.75}});
  EXPECT_THAT(UnsetFields(restore), IsEmpty());
  ExpectProto(restore, absl::StrCat(R"pb(node: "nodes/n"
                                         at_token: 0
                                         lease { seconds: 1 }
                                         skip_check: true
                                         request_id: "id"
                                         exact_only: true
                                         budget { max_kl: 0.5 min_top1: 0.75 }
                                         sampling {)pb",
                                    kSampling, "}"));

  const auto branch = ToProto(BranchRequest{.start = FromNode{.name = "nodes/n", .at_token = 5, .skip_check = true},
                                            .count = 2,
                                            .seeds = {7, 8},
                                            .sampling = kSamplingValue,
                                            .lease = absl::Seconds(1),
                                            .request_id = "id"});
  EXPECT_THAT(UnsetFields(branch), IsEmpty());
  ExpectProto(branch, absl::StrCat(R"pb(node: "nodes/n"
                                        at_token: 5
                                        skip_check: true
                                        count: 2
                                        seeds: [ 7, 8 ]
                                        lease { seconds: 1 }
                                        request_id: "id"
                                        sampling {)pb",
                                   kSampling, "}"));

  const auto score = ToProto(ScoreRequest{.start = FromNode{.name = "nodes/n", .at_token = 5, .skip_check = true},
                                          .continuations = {"text", std::vector<int32_t>{1, 2}},
                                          .top_k = 3});
  EXPECT_THAT(UnsetFields(score), IsEmpty());
  ExpectProto(score, R"pb(node: "nodes/n"
                          at_token: 5
                          skip_check: true
                          continuations { text: "text" }
                          continuations { token_ids { ids: [ 1, 2 ] } }
                          top_k: 3)pb");

  ExpectProto(ToProto(GetSessionRequest{.name = "sessions/s", .view = View::kFull}),
              "name: 'sessions/s' view: SESSION_VIEW_FULL");
  ExpectProto(ToProto(ListSessionsRequest{.page_size = 5, .page_token = "p"}), "page_size: 5 page_token: 'p'");
  ExpectProto(ToProto(DeleteSessionRequest{.name = "sessions/s"}), "name: 'sessions/s'");
}

TEST(ConvertTest, GraphServiceRequestsAreWrittenWhole) {
  const auto list = ToProto(ListNodesRequest{.filter = {.labels = {{"k", "v"}},
                                                        .parent = "nodes/p",
                                                        .roots_only = true,
                                                        .model_fingerprint = "f",
                                                        .created_from = absl::FromUnixSeconds(1),
                                                        .created_before = absl::FromUnixSeconds(2)},
                                             .newest_first = true,
                                             .page_size = 3,
                                             .page_token = "p"});
  EXPECT_THAT(UnsetFields(list), IsEmpty());
  ExpectProto(list, R"pb(filter {
                           labels { key: "k" value: "v" }
                           parent: "nodes/p"
                           roots_only: true
                           model_fingerprint: "f"
                           created_from { seconds: 1 }
                           created_before { seconds: 2 }
                         }
                         newest_first: true
                         page_size: 3
                         page_token: "p")pb");

  ExpectProto(ToProto(UpdateNodeRequest{.name = "nodes/n",
                                        .labels = {{"k", "v"}},
                                        .rewards = {{"r", 0.5}},
                                        .note = "note",
                                        .etag = "e",
                                        .update_mask = {"labels.k", "note"},
                                        .request_id = "id"}),
              R"pb(node {
                     name: "nodes/n"
                     labels { key: "k" value: "v" }
                     rewards { key: "r" value: 0.5 }
                     note: "note"
                     etag: "e"
                   }
                   update_mask { paths: [ "labels.k", "note" ] }
                   request_id: "id")pb");

  const auto remove = ToProto(DeleteNodeRequest{.name = "nodes/n", .force = true, .etag = "e", .request_id = "id"});
  EXPECT_THAT(UnsetFields(remove), IsEmpty());
  ExpectProto(remove, "name: 'nodes/n' force: true etag: 'e' request_id: 'id'");

  const auto traverse = ToProto(
      TraverseRequest{.node = "nodes/n", .direction = TraverseDirection::kFrontier, .max_depth = 2, .max_nodes = 3});
  EXPECT_THAT(UnsetFields(traverse), IsEmpty());
  ExpectProto(traverse, "node: 'nodes/n' direction: TRAVERSE_DIRECTION_FRONTIER max_depth: 2 max_nodes: 3");

  ExpectProto(ToProto(GetNodeRequest{.name = "nodes/n", .view = View::kFull}), "name: 'nodes/n' view: NODE_VIEW_FULL");
  ExpectProto(ToProto(VerifyNodeRequest{.name = "nodes/n", .replay = true}), "name: 'nodes/n' replay: true");
}

TEST(ConvertTest, EncodeNodeRequestIsWrittenWhole) {
  const auto encode = ToProto(
      EncodeNodeRequest{.name = "nodes/n",
                        .encoding = {.profile = "p", .split = 6, .point = "fine", .residual = true, .codec = "latent"},
                        .budget = {.max_kl = 0.5, .min_top1 = 0.75},
                        .drop_saved = true,
                        .etag = "e",
                        .request_id = "id"});
  EXPECT_THAT(UnsetFields(encode), IsEmpty());
  ExpectProto(encode, R"pb(name: "nodes/n"
                           encoding { profile: "p" split: 6 point: "fine" residual: true codec: "latent" }
                           budget { max_kl: 0.5 min_top1: 0.75 }
                           drop_saved: true
                           etag: "e"
                           request_id: "id")pb");
}

TEST(ConvertTest, ZeroesOfAnEncodingAreNotUnset) {
  ExpectProto(ToProto(EncodeNodeRequest{}), "encoding {}");
  ExpectProto(ToProto(EncodeNodeRequest{.encoding = {.split = 0, .step = 0.0f}}), "encoding { split: 0 step: 0 }");
  ExpectProto(ToProto(EncodeNodeRequest{.budget = {.max_kl = 0}}), "encoding {} budget { max_kl: 0 }");
  ExpectProto(ToProto(RestoreRequest{.budget = {.min_top1 = 0}}), "budget { min_top1: 0 }");
  ExpectProto(ToProto(RestoreRequest{}), "");
}

TEST(ConvertTest, DropsNameWhatTheyDrop) {
  const Encoding encoding = {
      .codec = "latent", .profile = "p", .split = 6, .step = 0.5f, .has_residual = true, .stored_bytes = 7};
  ExpectProto(ToProto(DropEncodingRequest{.name = "nodes/n", .what = DropSaved(), .etag = "e", .request_id = "id"}),
              "name: 'nodes/n' saved: true etag: 'e' request_id: 'id'");
  ExpectProto(ToProto(DropEncodingRequest{.what = DropWhole{encoding}}),
              "encoding { codec: 'latent' profile: 'p' split: 6 step: 0.5 }");
  ExpectProto(ToProto(DropEncodingRequest{.what = DropResidual{encoding}}),
              "residual_of { codec: 'latent' profile: 'p' split: 6 step: 0.5 }");
  ExpectProto(ToProto(DropEncodingRequest{}), "");
}

TEST(ConvertTest, AdminServiceRequestsAreWrittenWhole) {
  ExpectProto(ToProto(LoadProfileRequest{.path = "/profiles/p"}), "path: '/profiles/p'");
}

}  // namespace
}  // namespace quicksave::client
