// `quicksave generate` and `quicksave chat`.

#include <fstream>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "client/cli/json_output.h"
#include "client/cli/testing_run.h"
#include "gmock/gmock.h"

namespace quicksave::cli {
namespace {

using client::FromNode;
using client::FromSession;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

using GenerateCommandTest = CliTest;

TEST_F(GenerateCommandTest, TextGoesToOutputAndNotesToErrors) {
  const Result result = Run({"generate", "--prompt", "Once"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out, "Once!...\n") << "nothing can go on from this state, so the pending text is shown";
  EXPECT_EQ(result.err, "2 tokens in 100.0 ms (20.0 tokens/s), ended by max tokens\n");
}

TEST_F(GenerateCommandTest, EveryFlagReachesTheRequest) {
  const Result result = Run({"generate",
                             "--node",
                             "7f3a9c2100000000",
                             "--at-token",
                             "60",
                             "--skip-check",
                             "-m",
                             "system:Be brief.",
                             "-m",
                             "What: why?",
                             "--temperature",
                             "0.5",
                             "--top-k",
                             "40",
                             "--top-p",
                             "0.75",
                             "--min-p",
                             "0.25",
                             "--repetition-penalty",
                             "1.5",
                             "--presence-penalty",
                             "-0.5",
                             "--frequency-penalty",
                             "1.25",
                             "--logit-bias",
                             "7=-100",
                             "--logit-bias",
                             "9=2.5",
                             "--choice",
                             "yes",
                             "--choice",
                             "no",
                             "--seed",
                             "18446744073709551615",
                             "-n",
                             "9",
                             "--stop",
                             "a",
                             "--stop",
                             "b",
                             "--stop-token",
                             "3",
                             "--ignore-eos",
                             "--logprobs",
                             "2",
                             "--save",
                             "--label",
                             "k=v=w",
                             "--note",
                             "n",
                             "--edge",
                             "intervention",
                             "--save-every",
                             "4",
                             "--keep",
                             "--lease",
                             "90s",
                             "--request-id",
                             "id",
                             "--timeout",
                             "30"});
  ASSERT_EQ(result.code, 0) << result.err;
  ASSERT_THAT(server_->generated, SizeIs(1));
  const client::GenerateRequest& request = server_->generated[0];
  EXPECT_EQ(std::get<FromNode>(request.start),
            (FromNode{.name = "nodes/7f3a9c2100000000", .at_token = 60, .skip_check = true}));
  EXPECT_THAT(std::get<std::vector<client::ChatMessage>>(request.input),
              ElementsAre(client::ChatMessage{"system", "Be brief."}, client::ChatMessage{"user", "What: why?"}));
  EXPECT_EQ(request.sampling, (client::SamplingParameters{.temperature = 0.5f,
                                                          .top_k = 40,
                                                          .top_p = 0.75f,
                                                          .min_p = 0.25f,
                                                          .repetition_penalty = 1.5f,
                                                          .seed = 18446744073709551615u,
                                                          .presence_penalty = -0.5f,
                                                          .frequency_penalty = 1.25f,
                                                          .logit_bias = {{{7, -100.0f}, {9, 2.5f}}}}));
  EXPECT_EQ(request.constraint, client::Constraint(client::Choices{{"yes", "no"}}));
  EXPECT_EQ(request.stop,
            (client::StopConditions{.max_tokens = 9, .strings = {"a", "b"}, .token_ids = {3}, .ignore_eos = true}));
  EXPECT_EQ(request.top_logprobs, 2);
  EXPECT_EQ(request.save,
            (client::SaveOptions{.labels = {{"k", "v=w"}}, .note = "n", .edge_type = client::EdgeType::kIntervention}));
  EXPECT_EQ(request.save_every_tokens, 4);
  EXPECT_TRUE(request.keep_session);
  EXPECT_EQ(request.lease, absl::Seconds(90));
  EXPECT_EQ(request.request_id, "id");
  EXPECT_EQ(server_->options.back().timeout, absl::Seconds(30));
  EXPECT_THAT(result.err, HasSubstr("restored: 120 tokens reused, 0 recomputed; next-token distribution identical "
                                    "(49,152 logits); 1.1 MiB read in 12.3 ms\n"));
  EXPECT_THAT(result.err, HasSubstr("saved nodes/aaaa000011112222: 128 tokens, 1.8 MiB (1.56x), +302.7 KiB new, in "
                                    "15.0 ms\n"));
  EXPECT_THAT(result.err, HasSubstr("session sessions/new1 is kept\n"));
}

TEST_F(GenerateCommandTest, NothingUnsetIsSent) {
  ASSERT_EQ(Run({"generate", "--tokens", "5,6"}).code, 0);
  const client::GenerateRequest& request = server_->generated[0];
  EXPECT_THAT(std::get<std::vector<int32_t>>(request.input), ElementsAre(5, 6));
  EXPECT_EQ(request.sampling, client::SamplingParameters());
  EXPECT_EQ(request.stop, client::StopConditions());
  EXPECT_FALSE(request.constraint.has_value() || request.save.has_value() || request.keep_session || request.lease ||
               request.top_logprobs);
}

TEST_F(GenerateCommandTest, ConstraintsComeFromTextsAndFiles) {
  const std::string file = testing::TempDir() + "/constraint";
  std::ofstream(file) << "start: \"x\"\n";
  const auto constraint_of = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> arguments = {"generate", "--prompt", "p"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    EXPECT_EQ(Run(arguments).code, 0);
    return server_->generated.back().constraint;
  };
  EXPECT_EQ(constraint_of({"--json-schema", " {\"type\":\"object\"}"}),
            client::Constraint(client::JsonSchema{" {\"type\":\"object\"}"}));
  EXPECT_EQ(constraint_of({"--json-schema", file}), client::Constraint(client::JsonSchema{"start: \"x\"\n"}));
  EXPECT_EQ(constraint_of({"--grammar", file}), client::Constraint(client::LarkGrammar{"start: \"x\"\n"}));
  EXPECT_EQ(constraint_of({"--regex", "[0-9]+"}), client::Constraint(client::Regex{"[0-9]+"}));
  EXPECT_EQ(constraint_of({"--no-constraint"}), client::Constraint());
  EXPECT_NE(Run({"generate", "--prompt", "p", "--grammar", "/no/such/file"}).code, 0);
  const Result folder = Run({"generate", "--prompt", "p", "--grammar", ::testing::TempDir()});
  EXPECT_EQ(folder.code, 3);
  EXPECT_THAT(folder.err, HasSubstr("cannot read '"));
  EXPECT_NE(Run({"generate", "--prompt", "p", "--regex", "a", "--choice", "b"}).code, 0);
  EXPECT_NE(Run({"generate", "--prompt", "p", "--logit-bias", "a=1"}).code, 0);
  ASSERT_EQ(Run({"generate", "--prompt", "p", "--logit-bias", "none"}).code, 0);
  EXPECT_EQ(server_->generated.back().sampling.logit_bias, (std::map<int32_t, float>()));
}

TEST_F(GenerateCommandTest, SamplesShareOnePrefill) {
  const Result result = Run({"generate", "--prompt", "p", "--samples", "2", "--seed", "5", "--regex", "a+", "-n", "9"});
  ASSERT_EQ(result.code, 0) << result.err;
  ASSERT_THAT(server_->generated, SizeIs(3));
  EXPECT_EQ(server_->generated[0].stop.max_tokens, 0);
  EXPECT_TRUE(server_->generated[0].keep_session && server_->generated[0].constraint.has_value());
  ASSERT_THAT(server_->branches, SizeIs(1));
  EXPECT_THAT(server_->branches[0].seeds, ElementsAre(5, 6));
  std::vector<std::string> sessions;
  for (int i = 1; i <= 2; ++i) {
    const client::GenerateRequest& request = server_->generated[i];
    sessions.push_back(std::get<FromSession>(request.start).name);
    EXPECT_TRUE(std::holds_alternative<std::monostate>(request.input));
    EXPECT_FALSE(request.constraint.has_value()) << "it goes on inside the one in force";
    EXPECT_EQ(request.stop.max_tokens, 9);
  }
  EXPECT_THAT(sessions, testing::UnorderedElementsAre("sessions/branch1", "sessions/branch2"));
  EXPECT_THAT(result.err, HasSubstr("sample 2, seed 6:\n"));
  EXPECT_NE(Run({"generate", "--session", "4be1", "--samples", "2"}).code, 0);
}

TEST_F(GenerateCommandTest, SamplesAreGeneratedAtTheSameTimeAndShownInOrder) {
  // No sample goes on before two of them have begun.
  absl::Mutex mutex;
  std::set<std::thread::id> threads;
  const auto two_begun = [&] { return threads.size() >= 2; };
  const std::thread::id main = std::this_thread::get_id();
  server_->on_event = [&] {
    if (std::this_thread::get_id() == main) return;
    absl::MutexLock lock(&mutex);
    threads.insert(std::this_thread::get_id());
    EXPECT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&two_begun), absl::Seconds(30))) << "one after the other";
  };
  const Result result = Run({"generate", "--prompt", "p", "--samples", "20"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_LE(threads.size(), 16u);
  size_t place = 0;
  for (int i = 1; i <= 20; ++i) {
    place = result.err.find(absl::StrCat("sample ", i, ", seed ", i - 1, ":\n"), place);
    ASSERT_NE(place, std::string::npos) << i << result.err;
  }
  EXPECT_THAT(server_->deleted_sessions, SizeIs(21));
}

TEST_F(GenerateCommandTest, TheErrorOfASampleIsToldAndTheSessionsAreDeleted) {
  server_->failing_session = "sessions/branch2";
  const Result result = Run({"generate", "--prompt", "p", "--samples", "3"});
  EXPECT_NE(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("this session fails"));
  EXPECT_THAT(result.err, HasSubstr("sample 1, seed 0:\n"));
  EXPECT_THAT(server_->deleted_sessions, SizeIs(4));
}

TEST_F(GenerateCommandTest, SessionIsExtendedAndItsPendingTextIsLeftToTheNextCall) {
  EXPECT_EQ(Run({"generate", "--session", "4be1"}).out, "Hello!\n");
  EXPECT_EQ(std::get<FromSession>(server_->generated[0].start).name, "sessions/4be1000000000000");
}

TEST_F(GenerateCommandTest, PromptMayBeGivenWithoutItsFlag) {
  EXPECT_EQ(Run({"generate", "Once upon"}).code, 0);
  EXPECT_EQ(std::get<std::string>(server_->generated.back().input), "Once upon");
  EXPECT_EQ(Run({"generate", "Once upon", "-m", "hello"}).code, 2);
}

TEST_F(GenerateCommandTest, PromptIsReadFromStandardInput) {
  EXPECT_EQ(Run({"generate", "-p", "-", "-q"}, "two\nlines").out, "two\nlines!...\n");
}

TEST_F(GenerateCommandTest, WhatWasKnownOfThePromptIsSaid) {
  const auto note = [&](int32_t shared, int32_t restored, const std::string& node) {
    server_->new_session = {.session = "sessions/new1",
                            .input_tokens = 1200,
                            .shared_tokens = shared,
                            .restored_tokens = restored,
                            .restored_node = node};
    const std::string err = Run({"generate", "-p", "Once"}).err;
    return err.substr(0, err.find('\n'));
  };
  EXPECT_EQ(note(1100, 0, ""), "1,100 of 1,200 tokens not computed: shared with a sequence in memory");
  EXPECT_EQ(note(0, 1000, "nodes/a"), "1,000 of 1,200 tokens not computed: restored from nodes/a");
  EXPECT_EQ(note(0, 900, ""), "900 of 1,200 tokens not computed: restored from a parked session");
  server_->new_session.restored_node = "nodes/a";
  EXPECT_THAT(Run({"--json", "generate", "-p", "Once"}).out,
              HasSubstr(R"("restored_tokens":900,"input_tokens":1200,"restored_node":"nodes/a")"));
}

TEST_F(GenerateCommandTest, JsonIsOneLineForEachEvent) {
  const Result result = Run({"--json", "generate", "-p", "Once", "--save", "--label", "k=v"});
  std::vector<std::string> events;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) events.push_back(Json::parse(line)["event"]);
  EXPECT_THAT(events, ElementsAre("started", "delta", "delta", "saved", "finished"));
  EXPECT_THAT(result.out, HasSubstr(R"({"event":"delta","text":"!","tokens":[{"id":8,"logprob":-0.5}]})"));
  EXPECT_THAT(result.out, HasSubstr(R"("labels":{"k":"v"})"));
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(GenerateCommandTest, ContradictoryFlagsAreWrongUsage) {
  EXPECT_EQ(Run({"generate", "-p", "x", "-m", "y"}).code, 2);
  EXPECT_EQ(Run({"generate", "--node", "a", "--session", "b"}).code, 2);
  EXPECT_EQ(Run({"generate", "--at-token", "4"}).code, 2);
  EXPECT_EQ(Run({"generate", "-p", "x", "--save", "--label", "novalue"}).code, 2);
  EXPECT_EQ(Run({"generate", "-p", "x", "--lease", "soon"}).code, 2);
  EXPECT_EQ(Run({"generate", "-p", "x", "--timeout", "-5s"}).code, 2);
  EXPECT_EQ(Run({"generate", "-p", "x", "--save", "--edge", "merge"}).code, 2) << "saving a session makes no merge";
  EXPECT_THAT(server_->generated, IsEmpty());
}

TEST_F(GenerateCommandTest, CtrlCStopsAndSaysSoByItsExitCode) {
  int events = 0;
  server_->on_event = [this, &events] {
    if (++events == 3) token_.Cancel();
  };
  const Result result = Run({"generate", "-p", "Once"});
  EXPECT_EQ(result.code, 130);
  EXPECT_EQ(result.out, "Once\n") << "the line that was begun is ended";
}

using ChatCommandTest = CliTest;

TEST_F(ChatCommandTest, PipedLinesAreMessagesOfOneSession) {
  const Result result = Run({"chat", "--system", "Be brief.", "--seed", "3", "-q"}, "one\n\n  two  \n");
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out, "one!\ntwo!\n");
  ASSERT_THAT(server_->generated, SizeIs(2));
  EXPECT_TRUE(server_->generated[0].keep_session);
  EXPECT_EQ(server_->generated[0].sampling.seed, 3u);
  EXPECT_THAT(std::get<std::vector<client::ChatMessage>>(server_->generated[0].input),
              ElementsAre(client::ChatMessage{"system", "Be brief."}, client::ChatMessage{"user", "one"}));
  EXPECT_EQ(std::get<FromSession>(server_->generated[1].start).name, "sessions/new1");
  EXPECT_THAT(std::get<std::vector<client::ChatMessage>>(server_->generated[1].input),
              ElementsAre(client::ChatMessage{"user", "two"}));
  EXPECT_THAT(server_->deleted_sessions, ElementsAre("sessions/new1")) << "what the chat made ends with it";
}

TEST_F(ChatCommandTest, KeptAndGivenSessionsStay) {
  EXPECT_THAT(Run({"chat", "--keep"}, "one\n").err, HasSubstr("session sessions/new1 is kept\n"));
  const Result given = Run({"chat", "--session", "4be1"}, "one\n");
  EXPECT_EQ(given.code, 0);
  EXPECT_THAT(given.err, Not(HasSubstr("is kept"))) << "it was not the chat's to end";
  EXPECT_THAT(server_->deleted_sessions, IsEmpty());
}

TEST_F(ChatCommandTest, SavesBranchesAndSwitches) {
  const Result result =
      Run({"chat", "-q"}, "one\n/save opening mood=calm\n/branch 2\n/switch 3\ntwo\n/sessions\n/quit\nnot said\n");
  EXPECT_EQ(result.code, 0) << result.err;
  ASSERT_THAT(server_->snapshots, SizeIs(1));
  EXPECT_EQ(server_->snapshots[0].session, "sessions/new1");
  EXPECT_EQ(server_->snapshots[0].save.labels,
            (std::map<std::string, std::string>{{"name", "opening"}, {"mood", "calm"}}));
  ASSERT_THAT(server_->branches, SizeIs(1));
  EXPECT_EQ(server_->branches[0].count, 2);
  ASSERT_THAT(server_->generated, SizeIs(2));
  EXPECT_EQ(std::get<FromSession>(server_->generated[1].start).name, "sessions/branch2");
  EXPECT_THAT(result.out, HasSubstr("  1  sessions/new1\n  2  sessions/branch1\n* 3  sessions/branch2\n"));
  EXPECT_THAT(server_->deleted_sessions, ElementsAre("sessions/new1", "sessions/branch1", "sessions/branch2"));
}

TEST_F(ChatCommandTest, NodeIsRestoredWithItsProof) {
  const Result result = Run({"chat", "--node", "abcd", "--at-token", "60"}, "one\n");
  EXPECT_EQ(result.code, 0);
  ASSERT_THAT(server_->restores, SizeIs(1));
  EXPECT_EQ(server_->restores[0].node, "nodes/abcd000000000000");
  EXPECT_EQ(server_->restores[0].at_token, 60);
  EXPECT_THAT(result.err, HasSubstr("120 tokens reused, 0 recomputed"));
  EXPECT_EQ(std::get<FromSession>(server_->generated[0].start).name, "sessions/restored1");
}

TEST_F(ChatCommandTest, ScriptEndsAtItsFirstErrorAPersonGoesOn) {
  const std::string lines = "/save\n/nonsense\none\n";
  EXPECT_EQ(Run({"chat"}, lines).code, 8);
  EXPECT_THAT(server_->generated, IsEmpty());
  interactive_ = true;
  const Result result = Run({"chat"}, lines);
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.err, HasSubstr("FAILED_PRECONDITION: the chat has no session yet"));
  EXPECT_THAT(result.err, HasSubstr("no command '/nonsense'"));
  EXPECT_EQ(result.out, "> > > one!\n> ");
}

TEST_F(ChatCommandTest, CtrlCStopsTheAnswerNotTheChat) {
  interactive_ = true;
  int events = 0;
  server_->on_event = [this, &events] {
    if (++events == 7) token_.Cancel();
  };
  const Result result = Run({"chat"}, "one\ntwo\nthree\n");
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out, "> one!\n> two\n> three!\n> ");
  EXPECT_THAT(result.err, HasSubstr("[stopped]"));
}

TEST_F(ChatCommandTest, InterruptedFirstAnswerLeavesItsSessionToTheChat) {
  interactive_ = true;
  int events = 0;
  server_->on_event = [this, &events] {
    if (++events == 3) token_.Cancel();
  };
  EXPECT_EQ(Run({"chat", "--system", "Be brief."}, "one\ntwo\n").code, 0);
  ASSERT_THAT(server_->generated, SizeIs(2));
  EXPECT_EQ(std::get<FromSession>(server_->generated[1].start).name, "sessions/new1");
  EXPECT_THAT(std::get<std::vector<client::ChatMessage>>(server_->generated[1].input),
              ElementsAre(client::ChatMessage{"user", "two"}));
  EXPECT_THAT(server_->deleted_sessions, ElementsAre("sessions/new1"));
}

TEST_F(ChatCommandTest, ScriptThatIsInterruptedEndsItsSession) {
  int events = 0;
  server_->on_event = [this, &events] {
    if (++events == 3) token_.Cancel();
  };
  EXPECT_EQ(Run({"chat"}, "one\ntwo\n").code, 130);
  EXPECT_THAT(server_->generated, SizeIs(1));
  EXPECT_THAT(server_->deleted_sessions, ElementsAre("sessions/new1"));
}

}  // namespace
}  // namespace quicksave::cli
