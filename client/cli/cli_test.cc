// The tool's commands, apart from generating: names, tables, JSON, errors and exit codes.

#include "client/cli/cli.h"

#include <cstdio>
#include <fstream>

#include "client/cli/json_output.h"
#include "client/cli/testing_run.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"

namespace quicksave::cli {
namespace {

using client::FromNode;
using client::FromSession;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

TEST_F(CliTest, NamesMayBeFullIdsOrBeginnings) {
  for (const char* name : {"nodes/7f3a9c2100000000", "7f3a9c2100000000", "nodes/7f3a", "7f3a"}) {
    const Result result = Run({"restore", name});
    EXPECT_EQ(result.code, 0) << name << ": " << result.err;
    EXPECT_EQ(server_->restores.back().node, "nodes/7f3a9c2100000000") << name;
  }
}

TEST_F(CliTest, BeginningOfSeveralIdsIsRefusedWithTheirNames) {
  server_->nodes.push_back(TestingNode("7f3a000000000000"));
  const Result result = Run({"restore", "7f3a"});
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("'7f3a' is the beginning of 2 nodes: nodes/7f3a9c2100000000, "
                                    "nodes/7f3a000000000000"));
  EXPECT_THAT(server_->restores, IsEmpty());
}

TEST_F(CliTest, NamesThatMeanNothing) {
  EXPECT_EQ(Run({"restore", "abc"}).code, 3);
  EXPECT_THAT(Run({"restore", "abc"}).err, HasSubstr("4 characters or more"));
  EXPECT_EQ(Run({"restore", "ffff"}).code, 3);
  EXPECT_EQ(Run({"restore", "sessions/4be1"}).code, 2);
  EXPECT_EQ(Run({"save", "nodes/7f3a"}).code, 2);
  EXPECT_EQ(Run({"branch", "ffff"}).code, 3);
}

TEST_F(CliTest, StartIsANodeOrASession) {
  EXPECT_EQ(Run({"branch", "abcd", "--at-token", "5"}).code, 0);
  EXPECT_EQ(std::get<FromNode>(server_->branches[0].start),
            (FromNode{.name = "nodes/abcd000000000000", .at_token = 5}));
  EXPECT_EQ(Run({"branch", "4be1"}).code, 0);
  EXPECT_EQ(std::get<FromSession>(server_->branches[1].start).name, "sessions/4be1000000000000");
  EXPECT_EQ(Run({"branch", "4be1", "--at-token", "5"}).code, 2);
}

TEST_F(CliTest, SaveShowsWhatWasStored) {
  const Result result = Run({"save", "4be1", "--label", "name=x", "--note", "n"});
  EXPECT_EQ(result.out,
            "node    nodes/aaaa000011112222\n"
            "tokens  128\n"
            "stored  1.8 MiB of 2.8 MiB (exact, 1.56x)\n"
            "added   302.7 KiB: 1 new blocks, 2 shared\n"
            "time    15.0 ms: gather 1.0 ms, encode 9.0 ms, commit 4.0 ms\n");
  EXPECT_EQ(server_->snapshots[0].save.labels.at("name"), "x");
  EXPECT_EQ(server_->snapshots[0].save.note, "n");
  EXPECT_NE(server_->snapshots[0].request_id, "");
}

TEST_F(CliTest, RestoreShowsItsProof) {
  const Result result = Run({"restore", "7f3a", "--at-token", "60", "--seed", "0", "--lease", "5m"});
  EXPECT_THAT(result.out, StartsWith("session     sessions/restored1\n"));
  EXPECT_THAT(result.out, HasSubstr("recomputed  0 tokens\n"));
  EXPECT_THAT(result.out, HasSubstr("check       next-token distribution identical (49,152 logits)\n"));
  EXPECT_EQ(server_->restores[0].at_token, 60);
  EXPECT_EQ(server_->restores[0].sampling.seed, 0u);
  EXPECT_EQ(server_->restores[0].lease, absl::Minutes(5));
}

TEST_F(CliTest, BranchListsItsSessions) {
  const Result result = Run({"branch", "4be1", "--seeds", "1,2"});
  EXPECT_THAT(server_->branches[0].seeds, ElementsAre(1, 2));
  EXPECT_EQ(result.out,
            "SESSION           TOKENS  PAGES  MADE  LEASE  SEED  NODE\n"
            "sessions/branch1     120      8  -     -         1  -\n"
            "sessions/branch2     120      8  -     -         2  -\n");
  EXPECT_EQ(result.err, "2 sessions in 80 us\n");
}

TEST_F(CliTest, ScoreShowsSumsAndAlternatives) {
  const Result result = Run({"score", "7f3a", "--text", " Paris", "--tokens", "1,2", "--top-k", "1"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(server_->scores[0].continuations,
              ElementsAre(client::Continuation(" Paris"), client::Continuation(std::vector<int32_t>{1, 2})));
  EXPECT_THAT(result.out, StartsWith("LOGPROB  TOKENS  PER TOKEN  PERPLEXITY  CONTINUATION\n"
                                     "-1.0000       2    -0.5000        1.65   Paris\n"
                                     "-1.0000       2    -0.5000        1.65  tokens 1,2\n"));
  EXPECT_THAT(result.out, HasSubstr("   42  -0.5000  42 ' Paris' -0.500\n"));
  EXPECT_EQ(Run({"score", "7f3a"}).code, 2);
}

TEST_F(CliTest, ListsEveryPage) {
  EXPECT_EQ(Run({"ls"}).out,
            "NODE      TOKENS     SIZE  RATIO       ADDED  SAVED   LABELS  TEXT\n"
            "7f3a9c21     128  1.8 MiB  1.56x  +302.7 KiB  3m ago          is Paris.\\nAnd\n"
            "7f3b0000     128  1.8 MiB  1.56x  +302.7 KiB  3m ago          is Paris.\\nAnd\n"
            "abcd0000     128  1.8 MiB  1.56x  +302.7 KiB  3m ago          is Paris.\\nAnd\n");
  EXPECT_TRUE(server_->node_lists[0].newest_first);
  EXPECT_EQ(Run({"ls", "--names", "--limit", "1"}).out, "nodes/7f3a9c2100000000\n");
  EXPECT_EQ(Run({"ls", "--sessions", "--names"}).out, "sessions/4be1000000000000\n");
}

TEST_F(CliTest, ListFilters) {
  EXPECT_EQ(Run({"ls", "--label", "k=v", "--parent", "7f3a", "--roots", "--oldest"}).code, 0);
  const client::ListNodesRequest& request = server_->node_lists.back();
  EXPECT_THAT(request.filter.labels, ElementsAre(std::pair("k", "v")));
  EXPECT_EQ(request.filter.parent, "nodes/7f3a9c2100000000");
  EXPECT_TRUE(request.filter.roots_only);
  EXPECT_FALSE(request.newest_first);
}

TEST_F(CliTest, TreeOfAllNodesOrOfOne) {
  EXPECT_THAT(Run({"tree"}).out, HasSubstr("├─ 7f3b0000  continuation"));
  EXPECT_THAT(Run({"tree", "--ascii"}).out, HasSubstr("`- abcd0000  counterfactual@64"));
  EXPECT_EQ(Run({"tree", "7f3a", "--depth", "2"}).code, 0);
  EXPECT_EQ(server_->traversals[0].direction, client::TraverseDirection::kDescendants);
  EXPECT_EQ(server_->traversals[0].max_depth, 2);
  EXPECT_EQ(Run({"tree", "7f3a", "--ancestors"}).code, 0);
  EXPECT_EQ(server_->traversals[1].direction, client::TraverseDirection::kAncestors);
  EXPECT_EQ(Json::parse(Run({"tree", "--json"}).out)["nodes"].size(), 3u);
}

TEST_F(CliTest, DamagedNodesAreNamed) {
  server_->unreadable = {"nodes/dddd000000000000", "nodes/eeee000000000000"};
  const std::string warning =
      "warning: the records of 2 nodes are damaged: nodes/dddd000000000000, nodes/eeee000000000000; "
      "`quicksave show NODE` says how\n";
  for (const char* command : {"ls", "tree"}) {
    const Result result = Run({command, "--quiet"});
    EXPECT_EQ(result.code, 0) << command;
    EXPECT_EQ(result.err, warning) << command;
    const Result json = Run({command, "--json"});
    EXPECT_THAT(Json::parse(json.out)["unreadable"], ElementsAre("nodes/dddd000000000000", "nodes/eeee000000000000"));
    EXPECT_THAT(json.err, IsEmpty()) << command;
  }
  EXPECT_THAT(Run({"show", "dddd"}).err, HasSubstr("nodes/dddd000000000000")) << "their ids may be cut, too";
}

TEST_F(CliTest, ShowsNodesAndSessions) {
  EXPECT_THAT(Run({"show", "abcd"}).out, HasSubstr("parents   nodes/7f3a9c2100000000 (counterfactual at token 64)\n"));
  EXPECT_THAT(Run({"show", "4be1"}).out, StartsWith("session   sessions/4be1000000000000\ntokens    42\n"));
  const Json node = Json::parse(Run({"show", "abcd", "--json"}).out);
  EXPECT_EQ(node["name"], "nodes/abcd000000000000");
  EXPECT_EQ(node["parents"][0]["type"], "counterfactual");
  EXPECT_EQ(node["storage"]["ratio"], 1.56);
  EXPECT_EQ(node["create_time"], "2023-11-14T22:13:20.000Z");
}

TEST_F(CliTest, LabelChangesNameWhatTheyChange) {
  EXPECT_EQ(Run({"label", "7f3a", "name=x", "old-", "--reward", "correct=0.5", "--note", "", "--etag", "e"}).code, 0);
  const client::UpdateNodeRequest& request = server_->updates[0];
  EXPECT_EQ(request.name, "nodes/7f3a9c2100000000");
  EXPECT_THAT(request.update_mask, ElementsAre("note", "labels.old", "labels.name", "rewards.correct"));
  EXPECT_THAT(request.labels, ElementsAre(std::pair("name", "x")));
  EXPECT_THAT(request.rewards, ElementsAre(std::pair("correct", 0.5)));
  EXPECT_EQ(request.etag, "e");
  EXPECT_EQ(Run({"label", "7f3a"}).code, 2);
  EXPECT_EQ(Run({"label", "7f3a", "--reward", "correct=yes"}).code, 2);
}

TEST_F(CliTest, RemovesNodesAndSessions) {
  const Result result = Run({"rm", "7f3a", "4be1", "--force"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(server_->deleted_nodes[0].name, "nodes/7f3a9c2100000000");
  EXPECT_TRUE(server_->deleted_nodes[0].force);
  EXPECT_THAT(server_->deleted_sessions, ElementsAre("sessions/4be1000000000000"));
  EXPECT_EQ(result.err, "deleted nodes/7f3a9c2100000000 and 2 below it\nended sessions/4be1000000000000\n");
  EXPECT_EQ(Json::parse(Run({"rm", "7f3a", "--json"}).out).dump(), R"({"deleted_nodes":1})");
  server_->failure = absl::FailedPreconditionError("it has children");
  const Result refused = Run({"rm", "7f3a"});
  EXPECT_EQ(refused.code, 8);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
}

TEST_F(CliTest, VerifySaysWhatWasChecked) {
  EXPECT_EQ(Run({"verify", "7f3a", "--replay"}).out,
            "nodes/7f3a9c2100000000 is whole: 2 blocks, 1.9 MiB read and checked; 120 tokens computed again, every bit "
            "equal\n");
  server_->failure = absl::DataLossError("block 3 of nodes/7f3a9c2100000000 is damaged");
  EXPECT_EQ(Run({"verify", "7f3a"}).code, 6);
}

TEST_F(CliTest, StatusAndGarbage) {
  EXPECT_THAT(Run({"status"}).out, HasSubstr("KV memory    10 of 100 pages of 16 tokens; 3.5 MiB of 35.2 MiB\n"));
  EXPECT_EQ(Json::parse(Run({"status", "--json"}).out)["engine"]["pages_total"], 100);
  EXPECT_EQ(Run({"gc"}).out, "removed 3 blocks (2.9 MiB) and 1 remembered requests\n");
}

TEST_F(CliTest, HealthIsInTheExitCode) {
  EXPECT_EQ(Run({"health"}).out, "serving\n");
  server_->health = client::Health::kNotServing;
  const Result result = Run({"health", "--json", "--wait", "150ms"});
  EXPECT_EQ(result.code, 4);
  EXPECT_EQ(Json::parse(result.out)["status"], "not_serving");
}

TEST_F(CliTest, ErrorIsOneLineWithItsReasonAndWhatToDo) {
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  server_->failure = absl::ResourceExhaustedError("the queue\nis full");
  server_->failure.SetPayload("type.googleapis.com/google.rpc.ErrorInfo", absl::Cord(info.SerializeAsString()));
  server_->failure.SetPayload("type.googleapis.com/google.rpc.RetryInfo", absl::Cord(retry.SerializeAsString()));
  const Result result = Run({"gc"});
  EXPECT_EQ(result.code, 7);
  EXPECT_EQ(result.err, "quicksave: RESOURCE_EXHAUSTED (QUEUE_FULL): the queue\\nis full. Try again in 2.00 s.\n");
  EXPECT_THAT(result.out, IsEmpty());
  const Json error = Json::parse(Run({"gc", "--json"}).err)["error"];
  EXPECT_EQ(error["code"], "RESOURCE_EXHAUSTED");
  EXPECT_EQ(error["reason"], "QUEUE_FULL");
  EXPECT_EQ(error["retry_after_seconds"], 2.0);
}

TEST_F(CliTest, ExitCodesOfServerErrors) {
  const std::vector<std::pair<absl::Status, int>> codes = {
      {absl::InternalError(""), 1},        {absl::InvalidArgumentError(""), 2},   {absl::OutOfRangeError(""), 2},
      {absl::NotFoundError(""), 3},        {absl::UnavailableError(""), 4},       {absl::DeadlineExceededError(""), 5},
      {absl::DataLossError(""), 6},        {absl::ResourceExhaustedError(""), 7}, {absl::AbortedError(""), 8},
      {absl::UnauthenticatedError(""), 9}, {absl::PermissionDeniedError(""), 9},  {absl::CancelledError(""), 130}};
  for (const auto& [status, code] : codes) {
    server_->failure = status;
    EXPECT_EQ(Run({"gc"}).code, code) << status;
  }
}

TEST_F(CliTest, WrongUsageAndHelp) {
  EXPECT_EQ(Run({}).code, 2);
  EXPECT_EQ(Run({"frobnicate"}).code, 2);
  EXPECT_EQ(Run({"restore"}).code, 2);
  // Whole files are not printed.
  const std::string huge(100000, 'x');
  EXPECT_EQ(Run({"status", huge}).code, 2);
  EXPECT_LT(Run({"status", huge}).err.size(), 2000u);
  EXPECT_LT(Run({"tree", huge}).err.size(), 2000u);
  EXPECT_EQ(Run({"--version"}).out, "quicksave 0.1.0\n");
  EXPECT_THAT(Run({"--help"}).out, HasSubstr("Exit status: 0 success"));
  for (const char* command : {"chat", "generate", "save", "restore", "branch", "score", "ls", "tree", "show", "label",
                              "rm", "verify", "encode", "drop", "profiles", "status", "health", "gc"}) {
    const Result help = Run({command, "--help"});
    EXPECT_EQ(help.code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("Examples:")) << command;
  }
}

TEST_F(CliTest, OutputThatCannotBeWrittenIsAnError) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"ls"}, {"ls", "--json"}, {"generate", "-p", "x"}, {"--version"}}) {
    std::istringstream in;
    std::ofstream full("/dev/full");
    std::ostringstream err;
    Console console{.in = in, .out = full, .err = err};
    EXPECT_EQ(RunOn(arguments, console), 1) << arguments[0];
    EXPECT_THAT(err.str(), HasSubstr("standard output could not be written")) << arguments[0];
  }
}

TEST_F(CliTest, CredentialFilesMustSaySomething) {
  const std::string empty = ::testing::TempDir() + "/quicksave_cli_test_empty";
  std::ofstream(empty) << "\n";
  for (const char* flag : {"--token-file", "--ca", "--cert", "--key"}) {
    for (const std::string& path : {empty, ::testing::TempDir(), std::string("/nowhere/at/all")}) {
      const Result result = Run({flag, path, "status"});
      EXPECT_EQ(result.code, 2) << flag << " " << path;
      EXPECT_THAT(result.err, HasSubstr(path));
    }
    EXPECT_EQ(Run({flag, "", "status"}).code, 2) << flag;
  }
  EXPECT_THAT(options_.user_agent, IsEmpty()) << "nothing was connected";
  std::remove(empty.c_str());
}

TEST_F(CliTest, GlobalFlagsReachTheConnection) {
  const std::string path = ::testing::TempDir() + "/quicksave_cli_test_token";
  std::ofstream(path) << "secret\n";
  EXPECT_EQ(Run({"--endpoint", "host:1", "--token-file", path, "--ca", path, "--server-name", "n", "status"}).code, 0);
  EXPECT_EQ(options_.endpoint, "host:1");
  EXPECT_EQ(options_.credentials.bearer_token, "secret");
  EXPECT_TRUE(options_.credentials.use_tls);
  EXPECT_EQ(options_.credentials.tls.root_certificates, "secret\n");
  EXPECT_EQ(options_.credentials.tls.server_name, "n");
  EXPECT_THAT(options_.user_agent, StartsWith("quicksave-cli/"));
  std::remove(path.c_str());
  EXPECT_EQ(Run({"--token-file", path, "status"}).code, 2);
  EXPECT_EQ(Run({"status", "--endpoint", "after:2"}).code, 0);
  EXPECT_EQ(options_.endpoint, "after:2") << "global flags may follow the command";
}

}  // namespace
}  // namespace quicksave::cli
