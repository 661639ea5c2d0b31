// A child process commits in a loop and is killed at random moments; what it acknowledged is there afterwards.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
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

// The child: commits from `first` on until killed, and prints each number once it is acknowledged.
int RunWriter(const std::string& path, Durability durability, int first) {
  StoreOptions options = TestOptions(path);
  options.durability = durability;
  options.write_buffer_bytes = 1 << 20;  // Flushes and compactions run meanwhile.
  absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(options);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  for (int32_t i = first;; ++i) {
    absl::StatusOr<NodeRecord> record = (*store)->CommitNode(CommitNumber(i));
    if (!record.ok()) {
      std::fprintf(stderr, "%s\n", record.status().ToString().c_str());
      return 1;
    }
    if (write(STDOUT_FILENO, &i, sizeof(i)) != sizeof(i)) return 0;
  }
}

class CrashTest : public testing::TestWithParam<Durability> {
 protected:
  // Runs a writer and kills it a random moment after it acknowledged `count` nodes; returns the last it acknowledged.
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

  // Everything acknowledged is there; at most one node more, whole.
  int CheckStore(int acknowledged) {
    std::unique_ptr<Store> store = OpenOrDie(TestOptions(path_));
    if (store == nullptr) return 0;
    const std::vector<std::string> ids = AllNodeIds(*store);
    EXPECT_GE(static_cast<int>(ids.size()), acknowledged + 1);
    EXPECT_LE(static_cast<int>(ids.size()), acknowledged + 2);
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(ids[i], NodeId(i));
      if (i + 60 > ids.size()) ExpectIntact(*store, ids[i]);
    }
    EXPECT_EQ(store->CollectGarbage()->blocks, 0u);
    EXPECT_EQ(store->Stats()->nodes, ids.size());
    return static_cast<int>(ids.size());
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
    std::string arguments[] = {"crash_test", "--writer", path_, GetParam() == Durability::kSync ? "sync" : "process",
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

INSTANTIATE_TEST_SUITE_P(Durabilities, CrashTest, testing::Values(Durability::kSync, Durability::kProcess),
                         [](const auto& test) { return test.param == Durability::kSync ? "Sync" : "Process"; });

}  // namespace
}  // namespace quicksave::storage

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "--writer") == 0) {
    int first = 0;
    if (!absl::SimpleAtoi(argv[4], &first)) return 2;
    const bool sync = std::strcmp(argv[3], "sync") == 0;
    return quicksave::storage::RunWriter(
        argv[2], sync ? quicksave::storage::Durability::kSync : quicksave::storage::Durability::kProcess, first);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
