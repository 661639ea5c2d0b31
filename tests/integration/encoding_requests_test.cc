// Calls about encodings that are wrong, come at the same time, are cancelled, or want more memory than there is.

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/encoding_fixture.h"
#include "tests/integration/model_variant.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

class EncodingRequestsTest : public EncodingFixture {
 protected:
  // 128 pages: two nodes of 300 tokens, or one of 900, can be encoded at a time.
  static void SetUpTestSuite() { Start({"--kv-memory=45MiB", "--kv-wait=2m"}); }

  static void WriteFile(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
  static absl::StatusOr<v1::LoadProfileResponse> LoadProfile(const EncodingCalls& calls, const std::string& path) {
    return calls.Call<v1::LoadProfileResponse>("AdminService/LoadProfile", absl::StrCat("path: '", path, "'"));
  }
};

struct BadCall {
  std::string method;
  std::string request;  // NODE stands for a node's name
  StatusCode code;
  std::string message;
};

TEST_F(EncodingRequestsTest, WrongRequestsAreRefusedWithTheirReasonAndChangeNothing) {
  const client::Node saved = Save(6, 1);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse encoded, Calls().Encode(saved.name));
  const v1::Encoding& encoding = encoded.encoding();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node before, Calls().Get(saved.name));
  const std::string encode = "GraphService/EncodeNode";
  const std::string drop = "GraphService/DropEncoding";
  const std::string restore = "SnapshotService/Restore";
  const std::string known = absl::StrCat("codec: 'latent' profile: '", encoding.profile(), "' ");
  const std::vector<BadCall> calls = {
      {encode, "name: 'nodes/nobody'", StatusCode::kNotFound, "nobody"},
      {encode, "name: 'sessions/x'", StatusCode::kInvalidArgument, "nodes/"},
      {encode, "", StatusCode::kInvalidArgument, "nodes/"},
      {encode, "name: 'NODE' encoding { profile: 'x' }", StatusCode::kFailedPrecondition, "[NO_PROFILE]"},
      {encode, "name: 'NODE' encoding { split: 3 }", StatusCode::kFailedPrecondition, "split 6)"},
      {encode, "name: 'NODE' encoding { codec: 'zip' }", StatusCode::kInvalidArgument, "latent, learned or replay"},
      {encode, "name: 'NODE' encoding { codec: 'replay' split: 0 }", StatusCode::kInvalidArgument, "no profile, split"},
      {encode, "name: 'NODE' encoding { split: -1 }", StatusCode::kInvalidArgument, "encoding.split is -1"},
      {encode, absl::StrCat("name: 'NODE' encoding { split: 6 profile: '", encoding.profile(), "' }"),
       StatusCode::kInvalidArgument, "has split 0"},
      {encode, "name: 'NODE' encoding { point: 'coarse' }", StatusCode::kInvalidArgument, "fine, default, small"},
      {encode, "name: 'NODE' encoding { point: '' }", StatusCode::kInvalidArgument, "no point ''"},
      {encode, "name: 'NODE' encoding { step: nan }", StatusCode::kInvalidArgument, "encoding.step"},
      {encode, "name: 'NODE' encoding { step: inf }", StatusCode::kInvalidArgument, "encoding.step"},
      {encode, "name: 'NODE' encoding { step: 0 }", StatusCode::kInvalidArgument, "encoding.step is 0"},
      {encode, "name: 'NODE' encoding { step: -1 }", StatusCode::kInvalidArgument, "encoding.step is -1"},
      {encode, "name: 'NODE' budget { max_kl: nan }", StatusCode::kInvalidArgument, "budget.max_kl"},
      {encode, "name: 'NODE' budget { max_kl: -0.1 }", StatusCode::kInvalidArgument, "budget.max_kl"},
      {encode, "name: 'NODE' budget { min_top1: 1.1 }", StatusCode::kInvalidArgument, "budget.min_top1"},
      {encode, "name: 'NODE' budget { min_top1: nan }", StatusCode::kInvalidArgument, "budget.min_top1"},
      {encode, "name: 'NODE' etag: 'old'", StatusCode::kAborted, "[ETAG_MISMATCH]"},
      {drop, "name: 'NODE'", StatusCode::kInvalidArgument, "say what to drop"},
      {drop, "name: 'NODE' saved: false", StatusCode::kInvalidArgument, "say what to drop"},
      {drop, "name: 'NODE' encoding {}", StatusCode::kInvalidArgument, "codec of an encoding"},
      {drop, "name: 'NODE' encoding { codec: 'latent' split: -1 }", StatusCode::kInvalidArgument, "split is -1"},
      {drop, absl::StrCat("name: 'NODE' encoding { ", known, "step: nan }"), StatusCode::kInvalidArgument,
       "step must be"},
      {drop, absl::StrCat("name: 'NODE' residual_of { ", known, absl::StrFormat("step: %.9g }", encoding.step())),
       StatusCode::kNotFound, "has no residuals"},
      {drop, "name: 'NODE' saved: true etag: 'old'", StatusCode::kAborted, "[ETAG_MISMATCH]"},
      {drop, "name: 'nodes/nobody' saved: true", StatusCode::kNotFound, "nobody"},
      {restore, "node: 'NODE' budget { max_kl: nan }", StatusCode::kInvalidArgument, "budget.max_kl"},
      {restore, "node: 'NODE' budget { max_kl: -1 }", StatusCode::kInvalidArgument, "budget.max_kl"},
      {restore, "node: 'NODE' budget { min_top1: 2 }", StatusCode::kInvalidArgument, "budget.min_top1"},
      {restore, "node: 'NODE' budget { max_kl: 1 } exact_only: true", StatusCode::kInvalidArgument, "exact_only"},
  };
  const WireCaller wire(Endpoint());
  for (const BadCall& call : calls) {
    SCOPED_TRACE(absl::StrCat(call.method, " ", call.request));
    std::string request = call.request;
    if (const size_t at = request.find("NODE"); at != std::string::npos) request.replace(at, 4, saved.name);
    const WireAnswer answer = wire.Call(call.method, request);
    EXPECT_EQ(answer.code, call.code) << answer.message;
    EXPECT_THAT(absl::StrCat("[", answer.reason, "] ", answer.message), HasSubstr(call.message));
    EXPECT_EQ(answer.domain, "quicksave");
  }
  EXPECT_EQ(Calls().Get(saved.name)->DebugString(), before.DebugString());
}

TEST_F(EncodingRequestsTest, AnEtagLetsOneOfTwoChangesThrough) {
  const client::Node saved = Save(6, 2);
  const std::string etag = absl::StrCat("etag: '", saved.etag, "' ");
  EXPECT_TRUE(Calls().Encode(saved.name, etag).ok());
  EXPECT_THAT(std::string(ErrorOf(Calls().Encode(saved.name, etag)).message()), HasSubstr("[ETAG_MISMATCH]"));
  EXPECT_THAT(std::string(ErrorOf(Calls().Drop(saved.name, etag + "saved: true")).message()),
              HasSubstr("[ETAG_MISMATCH]"));
}

TEST_F(EncodingRequestsTest, ARepeatedEncodeGetsTheFirstAnswerWithAllTrials) {
  const client::Node saved = Save(6, 5);
  const std::string once = absl::StrCat("budget { max_kl: 5 } drop_saved: true etag: '", saved.etag,
                                        "' request_id: '3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d0e1'");
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse first, Calls().Encode(saved.name, once));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse again, Calls().Encode(saved.name, once));
  EXPECT_GT(first.trials_size(), 0);
  EXPECT_EQ(again.DebugString(), first.DebugString());
  const absl::Status other = ErrorOf(Calls().Encode(saved.name, once + " encoding { residual: true }"));
  EXPECT_EQ(other.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(other.message()), HasSubstr("[REQUEST_ID_REUSED]"));
  KillAndRestart();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse later, Calls().Encode(saved.name, once));
  EXPECT_EQ(later.DebugString(), first.DebugString());
}

TEST_F(EncodingRequestsTest, ARepeatedDropGetsTheFirstAnswer) {
  const client::Node saved = Save(6, 6);
  ASSERT_TRUE(Calls().Encode(saved.name).ok());
  const std::string once = "saved: true request_id: '3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d0e2'";
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node first, Calls().Drop(saved.name, once));
  ASSERT_TRUE(Client().UpdateNode({.name = saved.name, .note = "later", .update_mask = {"note"}}).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node again, Calls().Drop(saved.name, once));
  EXPECT_EQ(again.DebugString(), first.DebugString());
  EXPECT_TRUE(absl::IsNotFound(ErrorOf(Calls().Drop(saved.name, "saved: true"))));
}

TEST_F(EncodingRequestsTest, AnEncodeThatStoredNothingIsTriedAgain) {
  const client::Node saved = Save(6, 7);
  const std::string id = " request_id: '3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d0e3'";
  for (int i = 0; i < 2; i++) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse nothing,
                                   Calls().Encode(saved.name, "encoding { step: 3 } budget { max_kl: 0 }" + id));
    EXPECT_FALSE(nothing.has_encoding());
    EXPECT_EQ(nothing.trials_size(), 1);
    EXPECT_TRUE(nothing.has_total());
  }
  EXPECT_EQ(Calls().Get(saved.name)->encodings_size(), 0);
}

TEST_F(EncodingRequestsTest, ProfilesAreListedAndWhatIsNoneIsRefused) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const auto listed,
                                 Calls().Call<v1::ListProfilesResponse>("AdminService/ListProfiles", ""));
  ASSERT_EQ(listed.profiles_size(), 2);
  EXPECT_EQ(listed.profiles(0).split() + listed.profiles(1).split(), 6);
  for (const v1::Profile& profile : listed.profiles()) {
    EXPECT_EQ(profile.codec(), "latent");
    ASSERT_EQ(profile.points_size(), 3);
    EXPECT_LT(profile.points(0).step(), profile.points(2).step());
  }
  const TemporaryDirectory directory;
  const std::string file = ProfileFlags().back().substr(std::string("--profile=").size());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::LoadProfileResponse again, LoadProfile(Calls(), file));
  EXPECT_EQ(again.profile().size_bytes(), int64_t(std::filesystem::file_size(file)));

  WriteFile(directory / "garbage", "garbage");
  WriteFile(directory / "empty", "");
  std::filesystem::copy_file(file, directory / "cut");
  std::filesystem::resize_file(directory / "cut", std::filesystem::file_size(file) / 2);
  const std::vector<std::pair<std::string, StatusCode>> refused = {
      {"", StatusCode::kInvalidArgument},
      {directory / "missing", StatusCode::kNotFound},
      {directory / "garbage", StatusCode::kInvalidArgument},
      {directory / "empty", StatusCode::kInvalidArgument},
      {directory / "cut", StatusCode::kInvalidArgument},
      {"/dev/zero", StatusCode::kInvalidArgument},
      {"/", StatusCode::kInvalidArgument}};
  for (const auto& [path, code] : refused) {
    const absl::Status status = ErrorOf(LoadProfile(Calls(), path));
    EXPECT_EQ(status.code(), code) << path << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  }
  EXPECT_EQ(Calls().Call<v1::ListProfilesResponse>("AdminService/ListProfiles", "")->profiles_size(), 2);
}

TEST_F(EncodingRequestsTest, AnotherModelRefusesTheProfileAndTheNode) {
  const TemporaryDirectory directory;
  LinkModel(directory.path() / "model");
  ChangeConfig(directory.path() / "model", {{"rope_theta", 50000.0}});
  ServerOptions options = {.data_dir = directory / "data", .flags = {ProfileFlags().back()}};
  std::string node;
  {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation made,
                                   Generate(server->client(), {.input = std::string("One two three four five six"),
                                                               .stop = {.max_tokens = 2},
                                                               .save = client::SaveOptions{}}));
    node = made.saved.at(0).node.name;
    ASSERT_TRUE(EncodingCalls(server->endpoint()).Encode(node, "encoding { split: 6 }").ok());
  }
  options.model_dir = directory / "model";
  std::string log;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const ProcessEnd end, ServerProcess::RunToEnd(options, &log));
  EXPECT_EQ(end.exit_code, 1);
  EXPECT_THAT(log, HasSubstr("the latent profile is for model"));
  options.flags.clear();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  const EncodingCalls calls(server->endpoint());
  const std::string file = ProfileFlags().back().substr(std::string("--profile=").size());
  const absl::Status loaded = ErrorOf(LoadProfile(calls, file));
  EXPECT_TRUE(absl::IsFailedPrecondition(loaded)) << loaded;
  EXPECT_EQ(calls.Call<v1::ListProfilesResponse>("AdminService/ListProfiles", "")->profiles_size(), 0);
  EXPECT_THAT(std::string(ErrorOf(calls.Encode(node, "encoding { split: 6 }")).message()), HasSubstr("[NO_PROFILE]"));
  EXPECT_THAT(std::string(ErrorOf(calls.Restore(node)).message()), HasSubstr("[MODEL_MISMATCH]"));
  // What can be told of it is told, and it can be dropped from.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node seen, calls.Get(node));
  ASSERT_EQ(seen.encodings_size(), 1);
  EXPECT_TRUE(calls.Verify(node, false).ok());
  EXPECT_TRUE(calls.Drop(node, EncodingCalls::NameIn("encoding", seen.encodings(0))).ok());
}

TEST_F(EncodingRequestsTest, EncodesDropsAndRestoresOfOneNodeMayMeet) {
  const client::Node saved = Save(10, 3);
  const std::vector<client::Token> before = ContinueNode(saved.name);
  ASSERT_TRUE(Calls().EncodeAndDropSaved(saved.name, "split: 6 residual: true").ok());
  const client::Node other = Save(10, 3);
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 4; i++) {
        absl::Status status;
        if (t < 3) {
          status = ErrorOf(Calls().Encode(other.name, absl::StrCat("encoding { step: 0.", 2 + (t + i) % 3, " }")));
        } else if (t == 3) {
          const absl::StatusOr<v1::Node> now = Calls().Get(other.name);
          ASSERT_TRUE(now.ok()) << now.status();
          if (now->encodings_size() == 0) continue;
          status = ErrorOf(Calls().Drop(other.name, EncodingCalls::NameIn("encoding", now->encodings(0))));
          if (absl::IsNotFound(status)) status = absl::OkStatus();
        } else if (t == 4) {
          status = ErrorOf(Calls().Restore(saved.name, "budget { max_kl: 9 }"));
        } else {
          const std::string& node = t % 2 == 0 ? saved.name : other.name;
          const absl::StatusOr<Generation> made = GoOn(Client(), client::FromNode{.name = node}, 24);
          status = made.status();
          if (made.ok()) {
            EXPECT_EQ(made->tokens, before);
          }
        }
        EXPECT_TRUE(status.ok()) << "thread " << t << ": " << status;
        ++done;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(done, 24);
  EXPECT_TRUE(Calls().Verify(saved.name, true).ok());
  EXPECT_TRUE(Calls().Verify(other.name, true).ok());
}

TEST_F(EncodingRequestsTest, ACancelledEncodeLeavesTheNodeAsItWas) {
  const client::Node twin = Save(20, 4);
  const absl::Time start = absl::Now();
  ASSERT_TRUE(Calls().Encode(twin.name).ok());
  const absl::Duration whole = absl::Now() - start;
  client::Node saved = Save(20, 4);
  int cancelled = 0;
  for (const double part : {0.0, 0.02, 0.05, 0.2, 0.4}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node before, Calls().Get(saved.name));
    const absl::Status status = ErrorOf(Calls().Encode(saved.name, "drop_saved: true", {.cancel_after = part * whole}));
    ASSERT_TRUE(DeleteAllSessions(Client()).ok());
    ExpectNothingHeld(Client());
    if (status.ok()) {
      // It was done sooner than the first one let expect.
      saved = Save(20, 4);
      continue;
    }
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
    cancelled++;
    EXPECT_EQ(Calls().Get(saved.name)->DebugString(), before.DebugString()) << part << ": " << status;
  }
  EXPECT_GE(cancelled, 3);
  const absl::Status late = ErrorOf(Calls().Encode(saved.name, "", {.deadline = whole * 0.05}));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
}

TEST_F(EncodingRequestsTest, EncodingsThatDoNotFitInMemoryTogetherWait) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < 800; i++) tokens.push_back(300 + i * 37 % 20000);
  // Each takes 102 of the 128 pages.
  const client::Node first = Save(tokens);
  tokens.front() = 299;
  const client::Node second = Save(tokens);
  ASSERT_TRUE(DeleteAllSessions(Client()).ok());
  std::vector<std::thread> threads;
  for (const client::Node* node : {&first, &second, &first, &second}) {
    threads.emplace_back([&, node] {
      const absl::Status status = ErrorOf(Calls().Encode(node->name, "encoding { point: 'fine' }"));
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectNothingHeld(Client());
  // A state that fits, and twice of it does not.
  for (int i = 0; i < 400; i++) tokens.push_back(300 + i * 41 % 20000);
  const client::Node large = Save(tokens);
  const absl::Status refused = ErrorOf(Calls().Encode(large.name));
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("kv_memory"));
  EXPECT_TRUE(Calls().Restore(large.name).ok());
  EXPECT_EQ(Calls().Get(large.name)->encodings_size(), 0);
}

}  // namespace
}  // namespace quicksave::integration
