// Every field of every answer is translated. The tests fail when the interface gains a field that they do not name.

#include <limits>

#include "absl/strings/str_cat.h"
#include "client/src/convert.h"
#include "client/testing/message_fields.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace quicksave::client {
namespace {

using ::testing::IsEmpty;

// Parses an answer that must set every field.
template <typename Proto>
Proto Complete(const std::string& text) {
  Proto message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  EXPECT_THAT(UnsetFields(message), IsEmpty()) << message.GetTypeName();
  return message;
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

constexpr char kEncoding[] = R"pb(codec: "latent"
                                  profile: "p"
                                  split: 6
                                  step: 0.5
                                  has_residual: true
                                  raw_bytes: 1
                                  stored_bytes: 2
                                  residual_bytes: 3
                                  ratio: 1.5
                                  fidelity {
                                    probe_tokens: 4
                                    mean_kl: 0.25
                                    max_kl: 0.75
                                    top1_agreement: 0.875
                                    next_token_kl: 0.125
                                    key_relative_mse: [ 1, 2 ]
                                    value_relative_mse: [ 3, 4 ]
                                    key_cosine: [ 5, 6 ]
                                    value_cosine: [ 7, 8 ]
                                    cost { seconds: 9 }
                                  })pb";
const Encoding kEncodingValue = {.codec = "latent",
                                 .profile = "p",
                                 .split = 6,
                                 .step = 0.5f,
                                 .has_residual = true,
                                 .raw_bytes = 1,
                                 .stored_bytes = 2,
                                 .residual_bytes = 3,
                                 .ratio = 1.5,
                                 .fidelity = Fidelity{.probe_tokens = 4,
                                                      .mean_kl = 0.25,
                                                      .max_kl = 0.75,
                                                      .top1_agreement = 0.875,
                                                      .next_token_kl = 0.125,
                                                      .key_relative_mse = {1, 2},
                                                      .value_relative_mse = {3, 4},
                                                      .key_cosine = {5, 6},
                                                      .value_cosine = {7, 8},
                                                      .cost = absl::Seconds(9)}};

const std::string kProof =
    absl::StrCat(R"pb(
                   tokens_reused: 1
                   tokens_recomputed: 2
                   bytes_read: 3
                   bytes_restored: 4
                   codec: "exact"
                   check { outcome: OUTCOME_IDENTICAL logits_compared: 5 max_abs_difference: 0.5 kl_divergence: 0.25 }
                   timing {
                     read { seconds: 1 }
                     decode { seconds: 2 }
                     load { nanos: 3 }
                     check { nanos: 4 }
                     total { seconds: 5 nanos: 6 }
                     replay { seconds: 7 }
                   }
                   exact: true
                   layers_recomputed: 8
                   estimate { seconds: 9 }
                   encoding {)pb",
                 kEncoding, "}");
const Proof kProofValue = {.tokens_reused = 1,
                           .tokens_recomputed = 2,
                           .bytes_read = 3,
                           .bytes_restored = 4,
                           .codec = "exact",
                           .check = {.outcome = CheckOutcome::kIdentical,
                                     .logits_compared = 5,
                                     .max_abs_difference = 0.5f,
                                     .kl_divergence = 0.25},
                           .timing = {.read = absl::Seconds(1),
                                      .decode = absl::Seconds(2),
                                      .load = absl::Nanoseconds(3),
                                      .check = absl::Nanoseconds(4),
                                      .total = absl::Seconds(5) + absl::Nanoseconds(6),
                                      .replay = absl::Seconds(7)},
                           .encoding = kEncodingValue,
                           .exact = true,
                           .layers_recomputed = 8,
                           .estimate = absl::Seconds(9)};

constexpr char kConstraint[] = R"pb(definition { choice { texts: "yes" texts: "no" } }
                                    token_count: 4)pb";
const ActiveConstraint kConstraintValue = {.definition = Choices{{"yes", "no"}}, .token_count = 4};

constexpr char kTaps[] = R"pb(spec {
                                layers: [ 3, 10 ]
                                tokens: TOKENS_ALL
                              }
                              first_token: 1
                              token_count: 2
                              hidden_size: 3
                              bytes: 4
                              stored_bytes: 5)pb";
const Taps kTapsValue = {.spec = {.layers = {3, 10}, .all_tokens = true},
                         .first_token = 1,
                         .token_count = 2,
                         .hidden_size = 3,
                         .bytes = 4,
                         .stored_bytes = 5};

const std::string kSession = absl::StrCat(R"pb(name: "sessions/s"
                                               model_fingerprint: "f"
                                               token_count: 7
                                               node: "nodes/n"
                                               node_token_count: 6
                                               create_time { seconds: 8 }
                                               expire_time { seconds: 9 }
                                               pages: 10
                                               token_ids: [ 11, 12 ]
                                               text: "t"
                                               parked: true
                                               sampling {)pb",
                                          kSampling, "} taps {", kTaps, "} constraint {", kConstraint, "}");
const Session kSessionValue = {.name = "sessions/s",
                               .model_fingerprint = "f",
                               .token_count = 7,
                               .node = "nodes/n",
                               .node_token_count = 6,
                               .sampling = kSamplingValue,
                               .create_time = absl::FromUnixSeconds(8),
                               .expire_time = absl::FromUnixSeconds(9),
                               .pages = 10,
                               .token_ids = {11, 12},
                               .text = "t",
                               .parked = true,
                               .taps = kTapsValue,
                               .constraint = kConstraintValue};

const std::string kNode = absl::StrCat(
    R"pb(name: "nodes/n"
         model_fingerprint: "f"
         token_count: 7
         parents { parent: "nodes/p" type: EDGE_TYPE_COUNTERFACTUAL at_token: 5 }
         labels { key: "k" value: "v" }
         rewards { key: "r" value: 0.5 }
         note: "note"
         etag: "e"
         create_time { seconds: 8 nanos: 5 }
         update_time { seconds: 9 }
         storage { codec: "exact" raw_bytes: 1 stored_bytes: 2 added_bytes: 3 ratio: 1.5 blocks: 4 logits_bytes: 6 }
         lacks: "taps"
         token_ids: [ 1, 2 ]
         text: "text"
         text_tail: "xt"
         blocks { id: "b" first_token: 128 token_count: 7 raw_bytes: 8 stored_bytes: 9 }
         saved_dropped: true
         lossy_tokens: 3
         sampling {)pb",
    kSampling, "} taps {", kTaps, "} encodings {", kEncoding, "} constraint {", kConstraint, "}");
// Field by field: GCC 12 warns wrongly about an aggregate this large.
Node MakeNode() {
  Node node;
  node.name = "nodes/n";
  node.model_fingerprint = "f";
  node.token_count = 7;
  node.parents = {{.parent = "nodes/p", .type = EdgeType::kCounterfactual, .at_token = 5}};
  node.labels = {{"k", "v"}};
  node.rewards = {{"r", 0.5}};
  node.note = "note";
  node.etag = "e";
  node.create_time = absl::FromUnixSeconds(8) + absl::Nanoseconds(5);
  node.update_time = absl::FromUnixSeconds(9);
  node.sampling = kSamplingValue;
  node.storage = {.codec = "exact",
                  .raw_bytes = 1,
                  .stored_bytes = 2,
                  .added_bytes = 3,
                  .ratio = 1.5,
                  .blocks = 4,
                  .logits_bytes = 6};
  node.lacks = {"taps"};
  node.token_ids = {1, 2};
  node.text = "text";
  node.text_tail = "xt";
  node.blocks = {{.id = "b", .first_token = 128, .token_count = 7, .raw_bytes = 8, .stored_bytes = 9}};
  node.taps = kTapsValue;
  node.encodings = {kEncodingValue};
  node.saved_dropped = true;
  node.lossy_tokens = 3;
  node.constraint = kConstraintValue;
  return node;
}
const Node kNodeValue = MakeNode();

constexpr char kReport[] = R"pb(written_bytes: 1
                                encoded_bytes: 2
                                new_blocks: 3
                                shared_blocks: 4
                                gather { seconds: 5 }
                                encode { seconds: 6 }
                                commit { seconds: 7 }
                                total { seconds: 8 })pb";
const SaveReport kReportValue = {.written_bytes = 1,
                                 .encoded_bytes = 2,
                                 .new_blocks = 3,
                                 .shared_blocks = 4,
                                 .gather = absl::Seconds(5),
                                 .encode = absl::Seconds(6),
                                 .commit = absl::Seconds(7),
                                 .total = absl::Seconds(8)};

constexpr char kToken[] = R"pb(id: 3
                               logprob: -0.5
                               top { id: 4 text: "a" logprob: -0.25 })pb";
const Token kTokenValue = {.id = 3, .logprob = -0.5f, .top = {{.id = 4, .text = "a", .logprob = -0.25f}}};

TEST(ConvertTest, SessionsAndNodesAreReadWhole) {
  EXPECT_EQ(FromProto(Complete<v1::Session>(kSession)), kSessionValue);
  EXPECT_EQ(FromProto(Complete<v1::Node>(kNode)), kNodeValue);
}

TEST(ConvertTest, AbsentPartsAreUnset) {
  const Node node = FromProto(v1::Node());
  EXPECT_EQ(node, Node());
  EXPECT_EQ(node.create_time, absl::InfinitePast());
  EXPECT_EQ(FromProto(v1::Token()).logprob, std::nullopt);
  EXPECT_EQ(FromProto(v1::BranchResponse()).proof, std::nullopt);
  EXPECT_EQ(FromProto(v1::Proof()).encoding, std::nullopt);
  EXPECT_EQ(FromProto(v1::Encoding()).fidelity, std::nullopt);
  EXPECT_EQ(FromProto(v1::EncodeNodeResponse()).encoding, std::nullopt) << "nothing kept to the budget";
  EXPECT_EQ(FromProto(v1::GenerateResponse()), GenerateEvent(std::monostate()));
}

TEST(ConvertTest, ZeroThatWasSetIsNotUnset) {
  v1::SamplingParameters sampling;
  sampling.set_temperature(0);
  sampling.set_seed(0);
  sampling.mutable_logit_bias();
  EXPECT_EQ(FromProto(sampling), (SamplingParameters{.temperature = 0.0f, .seed = 0, .logit_bias = {{}}}));
  v1::SamplingParameters back;
  ToProto(FromProto(sampling), &back);
  EXPECT_TRUE(back.has_temperature() && back.has_seed() && back.has_logit_bias() && !back.has_top_k());
}

TEST(ConvertTest, UnknownEnumerationValuesAreUnspecified) {
  v1::Node node;
  node.add_parents()->set_type(static_cast<v1::EdgeType>(99));
  EXPECT_EQ(FromProto(node).parents[0].type, EdgeType::kUnspecified);
  v1::Proof proof;
  proof.mutable_check()->set_outcome(static_cast<v1::DistributionCheck::Outcome>(99));
  EXPECT_EQ(FromProto(proof).check.outcome, CheckOutcome::kUnspecified);
  v1::GenerateFinished finished;
  finished.set_reason(static_cast<v1::GenerateFinished::Reason>(99));
  EXPECT_EQ(FromProto(finished).reason, FinishReason::kUnspecified);
}

TEST(ConvertTest, TimesAndDurationsRoundTrip) {
  for (const absl::Duration value : {absl::ZeroDuration(), absl::Nanoseconds(1), absl::Milliseconds(-1500),
                                     absl::Hours(24) + absl::Nanoseconds(999'999'999)}) {
    google::protobuf::Duration duration;
    ToProto(value, &duration);
    EXPECT_EQ(FromProto(duration), value);
    google::protobuf::Timestamp time;
    ToProto(absl::UnixEpoch() + value, &time);
    EXPECT_GE(time.nanos(), 0);
    EXPECT_EQ(FromProto(time), absl::UnixEpoch() + value);
  }
  google::protobuf::Duration longest;
  ToProto(absl::InfiniteDuration(), &longest);
  EXPECT_EQ(longest.seconds(), 315'576'000'000);
  google::protobuf::Timestamp last;
  ToProto(absl::InfiniteFuture(), &last);
  EXPECT_EQ(last.seconds(), 253'402'300'799);
}

TEST(ConvertTest, GenerateEventsAreReadWhole) {
  const auto event = [](const std::string& text) { return FromProto(Complete<v1::GenerateResponse>(text)); };
  EXPECT_EQ(
      event(absl::StrCat(R"(started { session: "sessions/s" reused_tokens: 1 input_tokens: 2 shared_tokens: 3 proof {)",
                         kProof, "}}")),
      GenerateEvent(GenerateStarted{
          .session = "sessions/s", .reused_tokens = 1, .input_tokens = 2, .proof = kProofValue, .shared_tokens = 3}));
  EXPECT_EQ(event(absl::StrCat("delta { text: 'a' tokens { ", kToken, "}}")),
            GenerateEvent(GenerateDelta{.text = "a", .tokens = {kTokenValue}}));
  EXPECT_EQ(event(absl::StrCat("saved { node {", kNode, "} report {", kReport, "}}")),
            GenerateEvent(SavedNode{.node = kNodeValue, .report = kReportValue}));
  EXPECT_EQ(event(R"pb(finished {
                         reason: REASON_STOP
                         stop: "END"
                         generated_tokens: 1
                         token_count: 2
                         pending_text: "p"
                         session: "sessions/s"
                         prefill_time { seconds: 3 }
                         decode_time { seconds: 4 }
                         replayed: true
                       })pb"),
            GenerateEvent(GenerateFinished{.reason = FinishReason::kStop,
                                           .stop = "END",
                                           .generated_tokens = 1,
                                           .token_count = 2,
                                           .pending_text = "p",
                                           .session = "sessions/s",
                                           .prefill_time = absl::Seconds(3),
                                           .decode_time = absl::Seconds(4),
                                           .replayed = true}));
}

TEST(ConvertTest, SnapshotServiceAnswersAreReadWhole) {
  EXPECT_EQ(
      FromProto(Complete<v1::SnapshotResponse>(
          absl::StrCat("node {", kNode, "} report {", kReport, "} encoding {", kEncoding, "} encoding_error: 'why'"))),
      (SavedNode{.node = kNodeValue, .report = kReportValue, .encoding = kEncodingValue, .encoding_error = "why"}));
  EXPECT_EQ(FromProto(Complete<v1::RestoreResponse>(absl::StrCat("session {", kSession, "} proof {", kProof, "}"))),
            (RestoreResponse{.session = kSessionValue, .proof = kProofValue}));
  EXPECT_EQ(FromProto(Complete<v1::BranchResponse>(
                absl::StrCat("sessions {", kSession, "} proof {", kProof, "} branch_time { nanos: 5 }"))),
            (BranchResponse{.sessions = {kSessionValue}, .proof = kProofValue, .branch_time = absl::Nanoseconds(5)}));
  EXPECT_EQ(FromProto(Complete<v1::ScoreResponse>(
                absl::StrCat("scores { tokens {", kToken, "} total_logprob: -0.5 } proof {", kProof, "}"))),
            (ScoreResponse{.scores = {{.tokens = {kTokenValue}, .total_logprob = -0.5}}, .proof = kProofValue}));
  EXPECT_EQ(
      FromProto(Complete<v1::ListSessionsResponse>(absl::StrCat("sessions {", kSession, "} next_page_token: 'next'"))),
      (ListSessionsResponse{.sessions = {kSessionValue}, .next_page_token = "next"}));
}

TEST(ConvertTest, GraphServiceAnswersAreReadWhole) {
  EXPECT_EQ(
      FromProto(Complete<v1::ListNodesResponse>(
          absl::StrCat("nodes {", kNode, "} next_page_token: 'next' unreadable: ['nodes/a', 'nodes/b']"))),
      (ListNodesResponse{.nodes = {kNodeValue}, .next_page_token = "next", .unreadable = {"nodes/a", "nodes/b"}}));
  EXPECT_EQ(FromProto(Complete<v1::DeleteNodeResponse>("deleted_nodes: 3")), (DeleteNodeResponse{.deleted_nodes = 3}));
  EXPECT_EQ(FromProto(Complete<v1::TraverseResponse>(absl::StrCat("nodes {", kNode, "} truncated: true"))),
            (TraverseResponse{.nodes = {kNodeValue}, .truncated = true}));
  EXPECT_EQ(FromProto(Complete<v1::VerifyNodeResponse>("blocks_checked: 1 bytes_read: 2 tokens_replayed: 3")),
            (VerifyNodeResponse{.blocks_checked = 1, .bytes_read = 2, .tokens_replayed = 3}));
  EXPECT_EQ(FromProto(Complete<v1::EncodeNodeResponse>(
                absl::StrCat("node {", kNode, "} encoding {", kEncoding, "} trials { encoding {", kEncoding,
                             "} within_budget: true encode { nanos: 7 } } total { "
                             "seconds: 8 }"))),
            (EncodeNodeResponse{
                .node = kNodeValue,
                .encoding = kEncodingValue,
                .trials = {{.encoding = kEncodingValue, .within_budget = true, .encode = absl::Nanoseconds(7)}},
                .total = absl::Seconds(8)}));
}

TEST(ConvertTest, EveryOutcomeOfACheckIsRead) {
  const auto read = [](v1::DistributionCheck::Outcome outcome) {
    v1::Proof proof;
    proof.mutable_check()->set_outcome(outcome);
    return FromProto(proof).check.outcome;
  };
  EXPECT_EQ(read(v1::DistributionCheck::OUTCOME_IDENTICAL), CheckOutcome::kIdentical);
  EXPECT_EQ(read(v1::DistributionCheck::OUTCOME_SKIPPED), CheckOutcome::kSkipped);
  EXPECT_EQ(read(v1::DistributionCheck::OUTCOME_KV_IDENTICAL), CheckOutcome::kKvIdentical);
  EXPECT_EQ(read(v1::DistributionCheck::OUTCOME_AS_MEASURED), CheckOutcome::kAsMeasured);
  EXPECT_EQ(read(v1::DistributionCheck::OUTCOME_VALUES_AS_MEASURED), CheckOutcome::kValuesAsMeasured);
}

TEST(ConvertTest, AdminServiceAnswersAreReadWhole) {
  const auto status = Complete<v1::GetStatusResponse>(R"pb(
    server {
      version: "1"
      start_time { seconds: 2 }
      durability: "sync"
    }
    model {
      name: "m"
      fingerprint: "f"
      numerics: "n"
      architecture: "a"
      layers: 1
      hidden_size: 2
      query_heads: 3
      kv_heads: 4
      head_dim: 5
      vocab_size: 6
      context_length: 7
      kv_bytes_per_token: 8
      device: "cpu"
      weights: "int8"
      weight_bytes: 9
    }
    engine {
      sessions: 1
      active_requests: 2
      pages_used: 3
      pages_total: 4
      page_tokens: 5
      page_bytes: 6
      steps: 7
      decoded_tokens: 8
      prefilled_tokens: 9
      parked_sessions: 10
      parkings: 11
      unparkings: 12
      memory_waits: 13
      memory_refusals: 14
      tap_bytes: 15
    }
    store { nodes: 1 blocks: 2 block_bytes: 3 free_disk_bytes: 4 format_version: 5 }
    limits {
      max_sessions: 1
      max_tokens_per_call: 2
      default_max_tokens: 3
      max_message_bytes: 4
      max_queued_requests: 5
      default_lease { seconds: 6 }
      max_lease { seconds: 7 }
      max_tap_bytes_per_session: 8
      max_tap_bytes: 9
    })pb");
  const ServerStatus expected = {
      .server = {.version = "1", .start_time = absl::FromUnixSeconds(2), .durability = "sync"},
      .model = {.name = "m",
                .fingerprint = "f",
                .numerics = "n",
                .architecture = "a",
                .layers = 1,
                .hidden_size = 2,
                .query_heads = 3,
                .kv_heads = 4,
                .head_dim = 5,
                .vocab_size = 6,
                .context_length = 7,
                .kv_bytes_per_token = 8,
                .device = "cpu",
                .weights = "int8",
                .weight_bytes = 9},
      .engine = {.sessions = 1,
                 .active_requests = 2,
                 .pages_used = 3,
                 .pages_total = 4,
                 .page_tokens = 5,
                 .page_bytes = 6,
                 .steps = 7,
                 .decoded_tokens = 8,
                 .prefilled_tokens = 9,
                 .parked_sessions = 10,
                 .parkings = 11,
                 .unparkings = 12,
                 .memory_waits = 13,
                 .memory_refusals = 14,
                 .tap_bytes = 15},
      .store = {.nodes = 1, .blocks = 2, .block_bytes = 3, .free_disk_bytes = 4, .format_version = 5},
      .limits = {.max_sessions = 1,
                 .max_tokens_per_call = 2,
                 .default_max_tokens = 3,
                 .max_message_bytes = 4,
                 .max_queued_requests = 5,
                 .default_lease = absl::Seconds(6),
                 .max_lease = absl::Seconds(7),
                 .max_tap_bytes_per_session = 8,
                 .max_tap_bytes = 9}};
  EXPECT_EQ(FromProto(status), expected);
  EXPECT_EQ(FromProto(Complete<v1::CollectGarbageResponse>("removed_blocks: 1 removed_bytes: 2 removed_requests: 3")),
            (CollectGarbageResponse{.removed_blocks = 1, .removed_bytes = 2, .removed_requests = 3}));
  const auto profiles =
      Complete<v1::ListProfilesResponse>(R"pb(profiles {
                                                id: "p"
                                                codec: "latent"
                                                split: 6
                                                size_bytes: 7
                                                points { name: "fine" step: 0.5 ratio: 4 mean_kl: 0.25 }
                                              })pb");
  EXPECT_EQ(
      FromProto(profiles),
      (ListProfilesResponse{.profiles = {{.id = "p",
                                          .codec = "latent",
                                          .split = 6,
                                          .size_bytes = 7,
                                          .points = {{.name = "fine", .step = 0.5f, .ratio = 4, .mean_kl = 0.25}}}}}));
}

}  // namespace
}  // namespace quicksave::client
