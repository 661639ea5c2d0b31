// Branch: sessions that share a state without copying it, and incremental snapshots of what they add.

#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

SharedServer* const kServer = SharedServer::Register();
const client::Client& Client() { return kServer->client(); }

int PagesUsed() { return Client().GetStatus()->engine.pages_used; }

std::vector<uint64_t> Seeds(int count) {
  std::vector<uint64_t> seeds(count);
  std::iota(seeds.begin(), seeds.end(), 100);
  return seeds;
}

class BranchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(DeleteAllSessions(Client()).ok());
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(parent_, NewSession(Client(), Prose(10), {.temperature = 1.2, .seed = 5}));
  }

  std::string parent_;
};

TEST_F(BranchTest, SixtyFourBranchesTakeNoPagesAndDrawBySeed) {
  const int before = PagesUsed();
  std::vector<uint64_t> seeds = Seeds(64);
  seeds[63] = seeds[0];
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched,
                                 Client().Branch({.start = client::FromSession{parent_}, .seeds = seeds}));
  ASSERT_THAT(branched.sessions, SizeIs(64));
  EXPECT_FALSE(branched.proof.has_value());
  EXPECT_LE(PagesUsed(), before + 64) << "less than a page each";
  std::set<std::string> names;
  for (size_t i = 0; i < 64; i++) {
    names.insert(branched.sessions[i].name);
    EXPECT_EQ(branched.sessions[i].sampling.seed, seeds[i]);
    EXPECT_EQ(branched.sessions[i].sampling.temperature, 1.2F);
  }
  EXPECT_THAT(names, SizeIs(64));
  std::vector<std::vector<int32_t>> continuations;
  for (const size_t i : {0, 63, 1, 2, 3}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest,
                                   GoOn(Client(), client::FromSession{branched.sessions[i].name}, 6));
    continuations.push_back(Ids(rest.tokens));
  }
  EXPECT_EQ(continuations[0], continuations[1]) << "the same seed";
  EXPECT_GE(std::set(continuations.begin() + 1, continuations.end()).size(), 3u) << "different seeds";
}

TEST_F(BranchTest, ParentIsUntouchedAndBranchesOutliveIt) {
  const client::Session before = Client().GetSession({.name = parent_, .view = client::View::kFull}).value();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched,
                                 Client().Branch({.start = client::FromSession{parent_}, .count = 2}));
  ASSERT_THAT(branched.sessions, SizeIs(2));
  const std::string& first = branched.sessions[0].name;
  const std::string& second = branched.sessions[1].name;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation of_first, GoOn(Client(), client::FromSession{first}, 6));
  const client::Session after = Client().GetSession({.name = parent_, .view = client::View::kFull}).value();
  EXPECT_EQ(after.token_ids, before.token_ids);
  EXPECT_EQ(after.sampling, before.sampling);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation of_parent, GoOn(Client(), client::FromSession{parent_}, 6));
  EXPECT_TRUE(of_parent.tokens == of_first.tokens) << "one seed, one continuation";
  ASSERT_TRUE(Client().DeleteSession({.name = parent_}).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation of_second, GoOn(Client(), client::FromSession{second}, 6));
  EXPECT_TRUE(of_second.tokens == of_first.tokens);
}

TEST_F(BranchTest, BranchesGoOnInOneBatchAsAlone) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched,
                                 Client().Branch({.start = client::FromSession{parent_}, .seeds = Seeds(4)}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse copies,
                                 Client().Branch({.start = client::FromSession{parent_}, .seeds = Seeds(4)}));
  std::vector<absl::StatusOr<Generation>> together(4, absl::UnknownError("not run"));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) {
    threads.emplace_back(
        [&, i] { together[i] = GoOn(Client(), client::FromSession{branched.sessions[i].name}, 6 + i); });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < 4; i++) {
    ASSERT_TRUE(together[i].ok()) << together[i].status();
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation alone,
                                   GoOn(Client(), client::FromSession{copies.sessions[i].name}, 6 + i));
    EXPECT_TRUE(together[i]->tokens == alone.tokens) << *together[i] << " / " << alone;
  }
}

TEST_F(BranchTest, OfANodeRestoresItOnce) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, Client().Snapshot({.session = parent_}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation expected, GoOn(Client(), client::FromSession{parent_}, 4));
  ASSERT_TRUE(Client().DeleteSession({.name = parent_}).ok());
  const int before = PagesUsed();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched,
                                 Client().Branch({.start = client::FromNode{.name = saved.node.name}, .count = 8}));
  ASSERT_THAT(branched.sessions, SizeIs(8));
  ASSERT_TRUE(branched.proof.has_value());
  EXPECT_EQ(branched.proof->tokens_reused, saved.node.token_count);
  EXPECT_EQ(branched.proof->check.outcome, client::CheckOutcome::kIdentical);
  EXPECT_LE(PagesUsed() - before, branched.sessions[0].pages + 8);
  for (const int i : {0, 7}) {
    EXPECT_EQ(branched.sessions[i].node, saved.node.name);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest,
                                   GoOn(Client(), client::FromSession{branched.sessions[i].name}, 4));
    EXPECT_TRUE(rest.tokens == expected.tokens);
  }
}

TEST_F(BranchTest, RefusesCountsThatDoNotFit) {
  const client::Start start = client::FromSession{parent_};
  for (const client::BranchRequest& request :
       std::vector<client::BranchRequest>{{.start = start, .count = 0},
                                          {.start = start, .count = -3},
                                          {.start = start, .count = 2, .seeds = {1, 2, 3}},
                                          {.start = start, .count = 1 << 30}}) {
    const absl::Status refused = ErrorOf(Client().Branch(request));
    EXPECT_TRUE(absl::IsInvalidArgument(refused) || absl::IsResourceExhausted(refused)) << refused;
  }
  EXPECT_THAT(Client().ListSessions()->sessions, SizeIs(1));
}

TEST_F(BranchTest, SnapshotStoresOnlyWhatItsParentLacks) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prose(10, 80)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode first, Client().Snapshot({.session = session}));
  EXPECT_THAT(first.node.parents, IsEmpty());
  EXPECT_EQ(first.report.shared_blocks, 0);
  EXPECT_EQ(first.report.new_blocks, first.node.storage.blocks);
  EXPECT_EQ(first.node.storage.raw_bytes, int64_t{23040} * first.node.token_count);
  EXPECT_EQ(first.report.encoded_bytes, first.node.storage.raw_bytes);
  EXPECT_EQ(first.node.storage.logits_bytes, 49152 * 4);
  EXPECT_GT(first.node.storage.ratio, 1.2);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation more, GoOn(Client(), client::FromSession{session}, 5));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode second, Client().Snapshot({.session = session}));
  ASSERT_THAT(second.node.parents, SizeIs(1));
  EXPECT_EQ(second.node.parents[0].parent, first.node.name);
  EXPECT_EQ(second.node.parents[0].type, client::EdgeType::kContinuation);
  EXPECT_EQ(second.node.parents[0].at_token, first.node.token_count);
  EXPECT_GE(second.report.shared_blocks, 1);
  EXPECT_LE(second.report.encoded_bytes, int64_t{23040} * 128);
  EXPECT_LT(second.node.storage.added_bytes, second.node.storage.stored_bytes);
  EXPECT_TRUE(Client().VerifyNode({.name = second.node.name, .replay = true}).ok());
}

TEST_F(BranchTest, SavingTwiceWithoutChangeAddsNoBlocks) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode first, Client().Snapshot({.session = parent_}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode second, Client().Snapshot({.session = parent_}));
  EXPECT_NE(first.node.name, second.node.name);
  EXPECT_EQ(second.report.new_blocks, 0);
  EXPECT_EQ(second.report.encoded_bytes, 0);
}

TEST_F(BranchTest, IndependentEqualSessionsShareTheirBlocks) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string other, NewSession(Client(), Prose(10, 40)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string twin, NewSession(Client(), Prose(10, 40)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode first, Client().Snapshot({.session = other}));
  const int64_t blocks = Client().GetStatus()->store.blocks;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode second, Client().Snapshot({.session = twin}));
  EXPECT_EQ(second.report.new_blocks, 0);
  EXPECT_EQ(second.report.shared_blocks, first.node.storage.blocks);
  EXPECT_EQ(second.node.storage.added_bytes, 0);
  EXPECT_EQ(Client().GetStatus()->store.blocks, blocks);
  // One of them may go, the other stays whole.
  ASSERT_TRUE(Client().DeleteNode({.name = first.node.name}).ok());
  ASSERT_TRUE(Client().CollectGarbage().ok());
  EXPECT_TRUE(Client().VerifyNode({.name = second.node.name}).ok());
  ASSERT_TRUE(Client().DeleteNode({.name = second.node.name}).ok());
  ASSERT_TRUE(Client().CollectGarbage().ok());
  EXPECT_LE(Client().GetStatus()->store.blocks, blocks - first.node.storage.blocks);
}

}  // namespace
}  // namespace quicksave::integration
