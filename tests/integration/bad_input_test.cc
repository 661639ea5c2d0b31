// What no caller should send: every call refuses it with a code, a reason and a text that say what was wrong, and the
// server goes on.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/substitute.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"
#include "tests/integration/wire_call.h"

namespace quicksave::integration {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using enum absl::StatusCode;

SharedServer* const kServer = SharedServer::Register({"--max-message-bytes=1MiB", "--max-lease=1h"});

// A request that is refused. `$0` stands for a session and `$1` for a node that are there.
struct BadRequest {
  std::string method;
  std::string request;
  // What the message names.
  std::string names;
  absl::StatusCode code = kInvalidArgument;
};

// A method and the field of it that names a session or node; `$0` stands for the name.
struct NameField {
  std::string method;
  std::string request;
  std::string field;
  bool is_session;
};

std::vector<NameField> NameFields() {
  const std::string scored = " continuations {text: 'a'}";
  return {
      {"SnapshotService/Generate", "session: '$0' stop {max_tokens: 0}", "session", true},
      {"SnapshotService/Generate", "node: '$0' stop {max_tokens: 0}", "node", false},
      {"SnapshotService/Snapshot", "session: '$0'", "session", true},
      {"SnapshotService/Restore", "node: '$0'", "node", false},
      {"SnapshotService/Branch", "session: '$0'", "session", true},
      {"SnapshotService/Branch", "node: '$0'", "node", false},
      {"SnapshotService/Score", "session: '$0'" + scored, "session", true},
      {"SnapshotService/Score", "node: '$0'" + scored, "node", false},
      {"SnapshotService/GetSession", "name: '$0'", "name", true},
      {"SnapshotService/DeleteSession", "name: '$0'", "name", true},
      {"SnapshotService/ReadTaps", "session: '$0'", "session", true},
      {"SnapshotService/ReadTaps", "node: '$0'", "node", false},
      {"GraphService/GetNode", "name: '$0'", "name", false},
      {"GraphService/UpdateNode", "node {name: '$0' note: 'x'} update_mask {paths: 'note'}", "name", false},
      {"GraphService/DeleteNode", "name: '$0'", "name", false},
      {"GraphService/Traverse", "node: '$0'", "node", false},
      {"GraphService/VerifyNode", "name: '$0'", "name", false},
  };
}

std::string Repeat(const std::string& text, int count) {
  std::string repeated;
  for (int i = 0; i < count; i++) repeated += absl::StrReplaceAll(text, {{"#", absl::StrCat(i)}});
  return repeated;
}

// Wrong values of sampling, each with what is named.
std::vector<std::pair<std::string, std::string>> BadSampling() {
  return {{"temperature: -0.1", "temperature"},
          {"temperature: 100.5", "temperature"},
          {"temperature: nan", "temperature"},
          {"temperature: inf", "temperature"},
          {"top_k: -1", "top_k"},
          {"top_p: 0", "top_p"},
          {"top_p: 1.01", "top_p"},
          {"top_p: nan", "top_p"},
          {"min_p: -0.5", "min_p"},
          {"min_p: 1", "min_p"},
          {"min_p: -inf", "min_p"},
          {"repetition_penalty: 0", "repetition_penalty"},
          {"repetition_penalty: 101", "repetition_penalty"},
          {"repetition_penalty: nan", "repetition_penalty"}};
}

std::vector<BadRequest> BadSamplings() {
  std::vector<BadRequest> requests;
  for (const auto& [sampling, name] : BadSampling()) {
    requests.push_back({"SnapshotService/Generate", absl::StrCat("session: '$0' sampling {", sampling, "}"), name});
    requests.push_back({"SnapshotService/Restore", absl::StrCat("node: '$1' sampling {", sampling, "}"), name});
    requests.push_back({"SnapshotService/Branch", absl::StrCat("session: '$0' sampling {", sampling, "}"), name});
  }
  return requests;
}

std::vector<BadRequest> BadLeasesAndIds() {
  std::vector<BadRequest> requests;
  for (const auto& [method, start] : std::vector<std::pair<std::string, std::string>>{
           {"Generate", "session: '$0'"}, {"Restore", "node: '$1'"}, {"Branch", "session: '$0'"}}) {
    for (const char* lease : {"seconds: 0", "seconds: -5", "seconds: 3601", "seconds: 1 nanos: -1",
                              "seconds: 1 nanos: 1000000000", "seconds: 9223372036854775807"}) {
      requests.push_back({"SnapshotService/" + method, absl::StrCat(start, " lease {", lease, "}"), "lease"});
    }
  }
  for (const auto& [method, rest] : std::vector<std::pair<std::string, std::string>>{
           {"SnapshotService/Generate", "session: '$0' save {}"},
           {"SnapshotService/Snapshot", "session: '$0'"},
           {"SnapshotService/Restore", "node: '$1'"},
           {"SnapshotService/Branch", "session: '$0'"},
           {"GraphService/UpdateNode", "node {name: '$1'} update_mask {paths: 'note'}"},
           {"GraphService/DeleteNode", "name: '$1'"},
           {"GraphService/EncodeNode", "name: '$1' encoding {codec: 'replay'}"},
           {"GraphService/DropEncoding", "name: '$1' saved: true"}}) {
    for (const char* id : {"1", "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d00", "not-a-uuid-but-thirty-six-letters-ok"}) {
      requests.push_back({method, absl::StrCat(rest, " request_id: '", id, "'"), "request_id"});
    }
  }
  return requests;
}

std::vector<BadRequest> BadAnnotations() {
  std::vector<BadRequest> requests;
  for (const auto& [save, name] : std::vector<std::pair<std::string, std::string>>{
           {"labels {key: '' value: 'v'}", "label"},
           {absl::StrCat("labels {key: '", std::string(64, 'k'), "'}"), "label"},
           {absl::StrCat("labels {key: 'k' value: '", std::string(256, 'v'), "'}"), "label"},
           {Repeat("labels {key: 'k#'}", 65), "label"},
           {absl::StrCat("note: '", std::string(65537, 'n'), "'"), "note"},
           {"edge_type: 77", "edge_type"}}) {
    requests.push_back({"SnapshotService/Snapshot", absl::StrCat("session: '$0' save {", save, "}"), name});
    requests.push_back({"SnapshotService/Generate", absl::StrCat("session: '$0' save {", save, "}"), name});
  }
  return requests;
}

std::vector<BadRequest> BadGenerates() {
  std::vector<BadRequest> requests;
  for (const auto& [rest, name] : std::vector<std::pair<std::string, std::string>>{
           {"stop {max_tokens: -1}", "max_tokens"},
           {"stop {max_tokens: 4097}", "max_tokens"},
           {"stop {max_tokens: 2147483647}", "max_tokens"},
           {absl::StrCat("stop {", Repeat("strings: 's#' ", 17), "}"), "stop"},
           {absl::StrCat("stop {strings: '", std::string(257, 's'), "'}"), "stop"},
           {"stop {strings: ''}", "stop"},
           {"stop {token_ids: -1}", "token id"},
           {"stop {token_ids: 49152}", "token id"},
           {"top_logprobs: -1", "top_logprobs"},
           {"top_logprobs: 101", "top_logprobs"},
           {"token_ids {ids: 1 ids: -1}", "token id"},
           {"token_ids {ids: 49152}", "token id"},
           {"token_ids {ids: 2147483647}", "token id"},
           {"save_every_tokens: 4", "save"},
           {"save {} save_every_tokens: 0", "save_every_tokens"},
           {"save {} save_every_tokens: -4", "save_every_tokens"},
           {"at_token: 1", "at_token"},
           {"taps {layers: 32}", "taps.layers: 32"},
           {"taps {layers: 4294967295}", "taps.layers"},
           {"taps {layers: 3 layers: 4 layers: 3}", "taps.layers: 3 is named twice"},
           {absl::StrCat("taps {", Repeat("layers: 1 ", 1000), "}"), "taps.layers"},
           {"taps {layers: 3 tokens: 9}", "taps.tokens"},
           {"request_id: '3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d0ff'", "request_id"}}) {
    requests.push_back({"SnapshotService/Generate", absl::StrCat("session: '$0' ", rest), name});
  }
  requests.push_back({"SnapshotService/Generate", "", "prompt"});
  requests.push_back({"SnapshotService/Generate", "prompt: ''", "prompt"});
  requests.push_back({"SnapshotService/Generate", "messages {}", "messages"});
  requests.push_back({"SnapshotService/Generate", "token_ids {}", "token_ids"});
  requests.push_back({"SnapshotService/Generate", "node: '$1' at_token: 0", "at_token"});
  requests.push_back({"SnapshotService/Generate", "node: '$1' at_token: 9999", "at_token"});
  requests.push_back({"SnapshotService/Generate", absl::StrCat("prompt: '", Repeat("# ", 9000), "'"), "8192"});
  return requests;
}

std::vector<BadRequest> BadOthers() {
  return {
      {"SnapshotService/Restore", "node: '$1' at_token: 0", "at_token"},
      {"SnapshotService/Restore", "node: '$1' at_token: -7", "at_token"},
      {"SnapshotService/Restore", "node: '$1' at_token: 2147483647", "at_token"},
      {"SnapshotService/Branch", "", "session"},
      {"SnapshotService/Branch", "session: '$0' at_token: 1", "at_token"},
      {"SnapshotService/Branch", "session: '$0' count: 0", "count"},
      {"SnapshotService/Branch", "session: '$0' count: -1", "count"},
      {"SnapshotService/Branch", "session: '$0' count: 3 seeds: 1", "seeds"},
      {"SnapshotService/Branch", "node: '$1' at_token: 9999", "at_token"},
      {"SnapshotService/Score", "continuations {text: 'a'}", "session"},
      {"SnapshotService/Score", "session: '$0'", "continuation"},
      {"SnapshotService/Score", "session: '$0' continuations {}", "continuation"},
      {"SnapshotService/Score", "session: '$0' continuations {text: ''}", "continuation"},
      {"SnapshotService/Score", "session: '$0' continuations {token_ids {}}", "continuation"},
      {"SnapshotService/Score", "session: '$0' continuations {token_ids {ids: 49152}}", "token id"},
      {"SnapshotService/Score", "session: '$0' continuations {token_ids {ids: -2}}", "token id"},
      {"SnapshotService/Score", "session: '$0' continuations {text: 'a'} top_k: -1", "top_k"},
      {"SnapshotService/Score", "session: '$0' continuations {text: 'a'} top_k: 1001", "top_k"},
      {"SnapshotService/Score", "session: '$0' continuations {text: 'a'} at_token: 1", "at_token"},
      {"SnapshotService/ReadTaps", "", "session"},
      {"SnapshotService/ReadTaps", "node: '$1' layers: 5", "layers"},
      {"SnapshotService/ReadTaps", "node: '$1' layers: 4294967295", "layers"},
      {"SnapshotService/ReadTaps", "node: '$1' layers: 4 layers: 4", "layers"},
      {"SnapshotService/ReadTaps", "session: '$0' first_token: -1", "tokens"},
      {"SnapshotService/ReadTaps", "session: '$0' first_token: 2147483647", "tokens"},
      {"SnapshotService/ReadTaps", "session: '$0' token_count: 0", "tokens"},
      {"SnapshotService/ReadTaps", "session: '$0' token_count: 2147483647", "tokens"},
      {"SnapshotService/ListSessions", "page_size: -1", "page_size"},
      {"SnapshotService/ListSessions", "page_size: 1001", "page_size"},
      {"SnapshotService/ListSessions", "page_token: 'x y'", "page"},
      {"GraphService/ListNodes", "page_size: -1", "page_size"},
      {"GraphService/ListNodes", "page_size: 1001", "page_size"},
      {"GraphService/ListNodes", "page_token: 'x y'", "page"},
      {"GraphService/ListNodes", "filter {parent: 'sessions/1'}", "sessions/1"},
      {"GraphService/ListNodes", "filter {created_from {seconds: 1 nanos: -1}}", "created_from"},
      {"GraphService/Traverse", "node: '$1' max_depth: -1", "max_depth"},
      {"GraphService/Traverse", "node: '$1' max_nodes: -1", "max_nodes"},
      {"GraphService/Traverse", "node: '$1' max_nodes: 10001", "max_nodes"},
      {"GraphService/Traverse", "node: '$1' direction: 9", "direction"},
      {"GraphService/UpdateNode", "", "node"},
      {"GraphService/UpdateNode", "node {name: '$1'}", "update_mask"},
      {"GraphService/UpdateNode", "node {name: '$1'} update_mask {paths: ''}", "update_mask"},
      {"GraphService/UpdateNode", "node {name: '$1'} update_mask {paths: 'etag'}", "etag"},
      {"GraphService/UpdateNode", "node {name: '$1'} update_mask {paths: 'labels.'}", "labels"},
  };
}

class BadInputTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    caller_ = new WireCaller(kServer->process().endpoint());
    session_ = new std::string(NewSession(kServer->client(), std::string("Some words to work on")).value());
    const absl::StatusOr<Generation> tapped =
        Generate(kServer->client(), {.start = client::FromSession{*session_},
                                     .stop = {.max_tokens = 0},
                                     .taps = client::TapSpec{.layers = {4, 9}, .all_tokens = true}});
    ASSERT_TRUE(tapped.ok()) << tapped.status();
    node_ = new std::string(kServer->client().Snapshot({.session = *session_})->node.name);
  }

  void TearDown() override {
    EXPECT_EQ(kServer->client().CheckHealth().value_or(client::Health::kUnknown), client::Health::kServing);
    const absl::StatusOr<Generation> works =
        Generate(kServer->client(), {.start = client::FromNode{.name = *node_}, .stop = {.max_tokens = 1}});
    EXPECT_TRUE(works.ok()) << works.status();
  }

  static std::string Named(const std::string& request) {
    return absl::StrReplaceAll(request, {{"$0", *session_}, {"$1", *node_}});
  }

  static void ExpectRefused(const BadRequest& bad) {
    SCOPED_TRACE(absl::StrCat(bad.method, " ", bad.request.substr(0, 150)));
    const WireAnswer answer = caller_->Call(bad.method, Named(bad.request));
    EXPECT_EQ(answer.code, bad.code) << answer.message;
    EXPECT_THAT(answer.message, HasSubstr(bad.names));
    EXPECT_LT(answer.message.size(), 1000u) << "the message repeats what was sent";
    EXPECT_EQ(answer.domain, "quicksave");
    EXPECT_THAT(answer.reason, Not(IsEmpty()));
    EXPECT_THAT(answer.responses, IsEmpty());
  }

  static void ExpectAllRefused(const std::vector<BadRequest>& requests) {
    const int sessions = kServer->client().GetStatus()->engine.sessions;
    const int64_t nodes = kServer->client().GetStatus()->store.nodes;
    for (const BadRequest& request : requests) ExpectRefused(request);
    EXPECT_EQ(kServer->client().GetStatus()->engine.sessions, sessions);
    EXPECT_EQ(kServer->client().GetStatus()->store.nodes, nodes);
  }

  static const WireCaller* caller_;
  static const std::string* session_;
  static const std::string* node_;
};

const WireCaller* BadInputTest::caller_ = nullptr;
const std::string* BadInputTest::session_ = nullptr;
const std::string* BadInputTest::node_ = nullptr;

TEST_F(BadInputTest, NamesThatAreNone) {
  for (const NameField& field : NameFields()) {
    const std::string& other = field.is_session ? *node_ : *session_;
    const std::string own = field.is_session ? "sessions/" : "nodes/";
    for (const std::string& name : {std::string(), other, std::string("x"), own, own + "a/b", own + "a b",
                                    own + "../../etc", own + std::string(100000, 'a'), own + "\\001"}) {
      ExpectRefused({field.method, absl::Substitute(field.request, name), field.field});
    }
  }
}

TEST_F(BadInputTest, NamesOfNothing) {
  for (const NameField& field : NameFields()) {
    // A name that could be one: it differs from one that is there in its last letter.
    std::string name = field.is_session ? *session_ : *node_;
    name.back() = name.back() == 'q' ? 'z' : 'q';
    ExpectRefused({field.method, absl::Substitute(field.request, name), name.substr(name.find('/') + 1), kNotFound});
  }
}

TEST_F(BadInputTest, SamplingOutOfRange) { ExpectAllRefused(BadSamplings()); }
TEST_F(BadInputTest, LeasesAndRequestIds) { ExpectAllRefused(BadLeasesAndIds()); }
TEST_F(BadInputTest, LabelsAndNotes) { ExpectAllRefused(BadAnnotations()); }
TEST_F(BadInputTest, Generate) { ExpectAllRefused(BadGenerates()); }
TEST_F(BadInputTest, OtherCalls) { ExpectAllRefused(BadOthers()); }

TEST_F(BadInputTest, TooManySessionsAreRefusedWithTheLimit) {
  for (const char* count : {"257", "100000", "2147483647"}) {
    const WireAnswer answer =
        caller_->Call("SnapshotService/Branch", Named(absl::StrCat("session: '$0' count: ", count)));
    EXPECT_THAT(answer.code, AnyOf(kInvalidArgument, kResourceExhausted)) << answer.message;
    EXPECT_THAT(answer.message, HasSubstr("256"));
    EXPECT_EQ(answer.domain, "quicksave");
  }
}

TEST_F(BadInputTest, DeletingTwice) {
  const client::Client& client = kServer->client();
  const std::string session = NewSession(client, std::string("gone soon")).value();
  const std::string node = client.Snapshot({.session = session})->node.name;
  EXPECT_EQ(caller_->Call("GraphService/DeleteNode", absl::StrCat("name: '", node, "'")).code, kOk);
  ExpectRefused(
      {"GraphService/DeleteNode", absl::StrCat("name: '", node, "'"), node.substr(node.find('/') + 1), kNotFound});
  EXPECT_EQ(caller_->Call("SnapshotService/DeleteSession", absl::StrCat("name: '", session, "'")).code, kOk);
  ExpectRefused({"SnapshotService/DeleteSession", absl::StrCat("name: '", session, "'"), session, kNotFound});
}

TEST_F(BadInputTest, RequestsOfTooManyBytes) {
  const WireAnswer answer =
      caller_->Call("SnapshotService/Generate", absl::StrCat("prompt: '", std::string(2 << 20, 'x'), "'"));
  EXPECT_EQ(answer.code, kResourceExhausted) << answer.message;
  EXPECT_THAT(answer.message, HasSubstr("1048576")) << "the limit";
}

// Bytes that are no request: a field that is cut off, a string that is not UTF-8.
TEST_F(BadInputTest, RequestsThatAreNone) {
  for (const std::string& method : WireCaller::Methods()) {
    for (const std::string& bytes :
         {std::string("\x0a\x7f"), std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")}) {
      EXPECT_NE(caller_->CallBytes(method, bytes).code, kOk) << method;
    }
  }
  EXPECT_NE(caller_->CallBytes("SnapshotService/Generate", std::string("\x22\x02\xc3\x28")).code, kOk);
}

// A valid request of every method, some of them with work to do.
std::vector<std::pair<std::string, std::string>> ValidRequests() {
  const std::string text = Prose(10);
  return {
      {"SnapshotService/Generate", absl::StrCat("prompt: '", text, "' stop {max_tokens: 50} save {}")},
      {"SnapshotService/Generate", "node: '$1' stop {max_tokens: 50} save {} save_every_tokens: 5"},
      {"SnapshotService/Snapshot", "session: '$0'"},
      {"SnapshotService/Restore", "node: '$1' lease {seconds: 5}"},
      {"SnapshotService/Branch", "node: '$1' count: 4 lease {seconds: 5}"},
      {"SnapshotService/Score", absl::StrCat("node: '$1' continuations {text: '", text, "'} top_k: 1000")},
      {"SnapshotService/GetSession", "name: '$0' view: SESSION_VIEW_FULL"},
      {"SnapshotService/ListSessions", ""},
      {"SnapshotService/DeleteSession", "name: 'sessions/0'"},
      {"SnapshotService/ReadTaps", "session: '$0'"},
      {"SnapshotService/ReadTaps", "node: '$1'"},
      {"GraphService/GetNode", "name: '$1' view: NODE_VIEW_FULL"},
      {"GraphService/ListNodes", ""},
      {"GraphService/UpdateNode", "node {name: '$1' note: 'x'} update_mask {paths: 'note'}"},
      {"GraphService/DeleteNode", "name: 'nodes/0'"},
      {"GraphService/Traverse", "node: '$1'"},
      {"GraphService/VerifyNode", "name: '$1' replay: true"},
      {"GraphService/EncodeNode", "name: '$1' encoding { codec: 'replay' }"},
      {"GraphService/DropEncoding", "name: 'nodes/0' saved: true"},
      {"AdminService/GetStatus", ""},
      {"AdminService/CollectGarbage", ""},
      {"AdminService/ListProfiles", ""},
      {"AdminService/LoadProfile", "path: '/no/such/profile'"},
  };
}

TEST_F(BadInputTest, EveryMethodMayBeCancelledOrLate) {
  std::vector<std::string> called;
  for (const auto& [method, request] : ValidRequests()) called.push_back(method);
  for (const std::string& method : WireCaller::Methods()) EXPECT_THAT(called, Contains(method));
  for (const auto& [method, request] : ValidRequests()) {
    for (const WireOptions& options : std::vector<WireOptions>{{.cancel_after = absl::ZeroDuration()},
                                                               {.cancel_after = absl::Milliseconds(30)},
                                                               {.deadline = absl::Milliseconds(1)},
                                                               {.deadline = absl::Milliseconds(40)}}) {
      const WireAnswer answer = caller_->Call(method, Named(request), options);
      EXPECT_THAT(answer.code, AnyOf(kOk, kCancelled, kDeadlineExceeded, kNotFound, kInvalidArgument))
          << method << ": " << answer.message;
    }
  }
  EXPECT_TRUE(Eventually([] { return kServer->client().GetStatus()->engine.active_requests == 0; }));
}

}  // namespace
}  // namespace quicksave::integration
