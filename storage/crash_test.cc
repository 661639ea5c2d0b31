// A child process commits nodes, and changes how they are encoded, in a loop and is killed at random moments; what it
// acknowledged is there afterwards.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "storage/store.h"
#include "storage/testing/store_fixture.h"

extern char** environ;

namespace quicksave::storage {
namespace {

std::string NodeId(int i) { return absl::StrCat("n", i); }

// Node i goes on from node i-1, with up to 12 blocks of which up to two are new.
NodeCommit CommitNumber(int i) {
  std::vector<uint64_t> blocks;
  for (int b = std::max(0, i - 10); b <= i + 1; ++b) blocks.push_back(b);
  const std::vector<std::string> parents = i % 50 == 0 ? std::vector<std::string>{} : std::vector{NodeId(i - 1)};
  return TestCommit(NodeId(i), parents, blocks);
}

// What the child does, step by step.
enum class Script { kCommits, kEncodings };

constexpr int kPhases = 4;

// In four steps each node is committed, gets an encoding with residuals, gives its saved blocks for a second one, and
// keeps the first without residuals.
EncodingChange ChangeOfPhase(int node, int phase) {
  std::vector<uint64_t> blocks;
  for (int b = std::max(0, node - 10); b <= node + 1; ++b) blocks.push_back(b);
  EncodingChange change;
  if (phase == 1) return TestChange(TestEncoding(1, blocks, true));
  if (phase == 2) {
    change = TestChange(TestEncoding(2, blocks, false));
    change.remove_saved = true;
  }
  if (phase == 3) {
    change.remove = {TestEncodingKey(2)};
    change.remove_residuals = {TestEncodingKey(1)};
  }
  return change;
}

absl::Status DoStep(Store& store, Script script, int i) {
  if (script == Script::kCommits) return store.CommitNode(CommitNumber(i)).status();
  const int node = i / kPhases;
  const int phase = i % kPhases;
  if (phase == 0) return store.CommitNode(CommitNumber(node)).status();
  return store.ChangeEncodings(kTenant, NodeId(node), ChangeOfPhase(node, phase)).status();
}

// The phase that a node is in after some step; -1 where that is none.
int PhaseOf(const NodeRecord& node) {
  std::string form = node.no_saved_blocks() ? "" : "saved ";
  for (const v1::EncodingSummary& summary : node.encodings()) {
    absl::StrAppend(&form, summary.step(), summary.has_residual() ? "r " : " ");
  }
  const std::string forms[kPhases] = {"saved ", "saved 1r ", "1r 2 ", "1 "};
  const std::string* const found = std::find(std::begin(forms), std::end(forms), form);
  return found == std::end(forms) ? -1 : static_cast<int>(found - forms);
}

// The child: goes on from step `first` until killed, and prints each number once it is acknowledged.
int RunWriter(const std::string& path, Durability durability, Script script, int first) {
  StoreOptions options = TestOptions(path);
  options.durability = durability;
  options.write_buffer_bytes = 1 << 20;  // Flushes and compactions run meanwhile.
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  for (int32_t i = first;; ++i) {
    if (absl::Status done = DoStep(**store, script, i); !done.ok()) {
      std::fprintf(stderr, "%s\n", done.ToString().c_str());
      return 1;
    }
    if (write(STDOUT_FILENO, &i, sizeof(i)) != sizeof(i)) return 0;
  }
}

class CrashTest : public testing::TestWithParam<std::tuple<Durability, Script>> {
 protected:
  // Runs a writer and kills it a random moment after it acknowledged `count` steps; returns the last it acknowledged.
  int KillWriterAfter(int first, int count, std::mt19937* random) {
    int pipe_ends[2];
    EXPECT_EQ(pipe(pipe_ends), 0);
    const pid_t child = Spawn(first, pipe_ends[1]);
    close(pipe_ends[1]);
    int32_t last = first - 1;
    for (int i = 0; i < count && ReadNumber(pipe_ends[0], &last); ++i) {
    }
    // Not to wait for anything: to hit another place in the next commit each time.
    std::this_thread::sleep_for(std::chrono::microseconds((*random)() % 5000));
    EXPECT_EQ(kill(child, SIGKILL), 0);
    while (ReadNumber(pipe_ends[0], &last)) {
    }
    close(pipe_ends[0]);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself";
    return last;
  }

  // The steps that the store has seen: every node but the last is through with all of its own.
  int StepsOf(const Store& store, const std::vector<std::string>& ids) {
    if (std::get<Script>(GetParam()) == Script::kCommits) return static_cast<int>(ids.size());
    int steps = 0;
    for (const std::string& id : ids) {
      const int phase = PhaseOf(*store.GetNode(kTenant, id));
      EXPECT_TRUE(phase == kPhases - 1 || (phase >= 0 && id == ids.back())) << id << " is in phase " << phase;
      steps += phase + 1;
    }
    return steps;
  }

  // Everything acknowledged is there; at most one step more, whole.
  int CheckStore(int acknowledged) {
    std::unique_ptr<Store> store = OpenOrDie(TestOptions(path_));
    if (store == nullptr) return 0;
    const std::vector<std::string> ids = AllNodeIds(*store);
    const int steps = StepsOf(*store, ids);
    EXPECT_GE(steps, acknowledged + 1);
    EXPECT_LE(steps, acknowledged + 2);
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(ids[i], NodeId(i));
      if (i + 60 > ids.size()) ExpectIntact(*store, ids[i]);
    }
    ExpectTotalsOfNodes(*store);
    EXPECT_EQ(store->CollectGarbage()->blocks, 0u);
    return steps;
  }

  TempDir dir_;
  const std::string path_ = dir_.path() + "/store";

 private:
  static bool ReadNumber(int fd, int32_t* number) {
    int32_t value;
    if (read(fd, &value, sizeof(value)) != sizeof(value)) return false;
    *number = value;
    return true;
  }

  pid_t Spawn(int first, int output) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    const auto [durability, script] = GetParam();
    std::string arguments[] = {"crash_test",
                               "--writer",
                               path_,
                               durability == Durability::kSync ? "sync" : "process",
                               script == Script::kCommits ? "commits" : "encodings",
                               absl::StrCat(first)};
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_t child = 0;
    EXPECT_EQ(posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    return child;
  }
};

TEST_P(CrashTest, KilledWriterLosesNothingAcknowledged) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  int next = 0;
  for (int round = 0; round < 15 && !HasFailure(); ++round) {
    const int last = KillWriterAfter(next, 1 + random() % 40, &random);
    next = CheckStore(last);
  }
}

std::string NameOfCase(const testing::TestParamInfo<std::tuple<Durability, Script>>& test) {
  const auto [durability, script] = test.param;
  return absl::StrCat(durability == Durability::kSync ? "Sync" : "Process",
                      script == Script::kCommits ? "Commits" : "Encodings");
}

INSTANTIATE_TEST_SUITE_P(DurabilitiesAndScripts, CrashTest,
                         testing::Combine(testing::Values(Durability::kSync, Durability::kProcess),
                                          testing::Values(Script::kCommits, Script::kEncodings)),
                         NameOfCase);

}  // namespace
}  // namespace quicksave::storage

int main(int argc, char** argv) {
  if (argc == 6 && std::strcmp(argv[1], "--writer") == 0) {
    using quicksave::storage::Durability;
    using quicksave::storage::Script;
    int first = 0;
    if (!absl::SimpleAtoi(argv[5], &first)) return 2;
    const Durability durability = std::strcmp(argv[3], "sync") == 0 ? Durability::kSync : Durability::kProcess;
    const Script script = std::strcmp(argv[4], "commits") == 0 ? Script::kCommits : Script::kEncodings;
    return quicksave::storage::RunWriter(argv[2], durability, script, first);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
