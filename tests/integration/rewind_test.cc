// Restore(at_token): any prefix of a node is a state, and goes on like a session that never had more.

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

SharedServer* const kServer = SharedServer::Register();
const client::Client& Client() { return kServer->client(); }

// Tokens of the nodes; the second one's blocks end at 40 and 128 of what the first one has, and at 256.
constexpr int kFirstSave = 40;
constexpr int kTokens = 263;

class RewindTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::vector<int32_t> ids, TokenIds(Client(), Prose(24)));
    ASSERT_GE(ids.size(), size_t{kTokens});
    ids.resize(kTokens);
    const std::vector<int32_t> head(ids.begin(), ids.begin() + kFirstSave);
    const std::vector<int32_t> tail(ids.begin() + kFirstSave, ids.end());
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const Generation first,
        Generate(Client(), {.input = head, .stop = {.max_tokens = 0}, .save = client::SaveOptions{}}));
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation second,
                                   Generate(Client(), {.start = client::FromNode{.name = first.saved.at(0).node.name},
                                                       .input = tail,
                                                       .stop = {.max_tokens = 0},
                                                       .save = client::SaveOptions{}}));
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        client::Node node, Client().GetNode({.name = second.saved.at(0).node.name, .view = client::View::kFull}));
    ASSERT_EQ(node.token_ids, ids);
    node_ = new client::Node(std::move(node));
  }

  static const client::Node& node() { return *node_; }
  static std::vector<int32_t> Prefix(int tokens) {
    return {node().token_ids.begin(), node().token_ids.begin() + tokens};
  }

 private:
  static const client::Node* node_;
};

const client::Node* RewindTest::node_ = nullptr;

TEST_F(RewindTest, BlocksCoverTheTokensAndCrossNoWindow) {
  int32_t next = 0;
  for (const client::Block& block : node().blocks) {
    EXPECT_EQ(block.first_token, next);
    EXPECT_GT(block.token_count, 0);
    EXPECT_EQ(block.first_token / 128, (block.first_token + block.token_count - 1) / 128);
    next += block.token_count;
  }
  EXPECT_EQ(next, kTokens);
  EXPECT_EQ(node().storage.blocks, static_cast<int32_t>(node().blocks.size()));
  EXPECT_GE(node().blocks.size(), 4u) << "0-40, 40-128, 128-256, 256-263";
}

TEST_F(RewindTest, GoesOnFromEveryBoundaryLikeAFreshSession) {
  std::set<int> points = {1, 2, kTokens - 1, kTokens};
  for (const client::Block& block : node().blocks) {
    const int end = block.first_token + block.token_count;
    for (int point : {end - 1, end, end + 1}) {
      if (point >= 1 && point <= kTokens) points.insert(point);
    }
  }
  EXPECT_GE(points.size(), 13u);
  for (const int at : points) {
    SCOPED_TRACE(absl::StrCat("at_token ", at));
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored,
                                   Client().Restore({.node = node().name, .at_token = at}));
    EXPECT_EQ(restored.session.token_count, at);
    EXPECT_EQ(restored.session.node, node().name);
    EXPECT_EQ(restored.session.node_token_count, at);
    EXPECT_EQ(restored.proof.tokens_reused + restored.proof.tokens_recomputed, at);
    EXPECT_EQ(restored.proof.tokens_recomputed, 0);
    EXPECT_EQ(restored.proof.check.outcome,
              at == kTokens ? client::CheckOutcome::kIdentical : client::CheckOutcome::kKvIdentical);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest,
                                   GoOn(Client(), client::FromSession{restored.session.name}, 2));
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const Generation fresh,
        Generate(Client(), {.input = Prefix(at), .stop = {.max_tokens = 2, .ignore_eos = true}, .top_logprobs = 20}));
    EXPECT_TRUE(rest.tokens == fresh.tokens) << rest << " / " << fresh;
    EXPECT_TRUE(Client().DeleteSession({.name = restored.session.name}).ok());
  }
}

TEST_F(RewindTest, ScoreAndGenerateAndBranchRewindToo) {
  constexpr int kAt = 130;
  const client::FromNode start{.name = node().name, .at_token = kAt};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prefix(kAt)));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::ScoreResponse fresh,
      Client().Score({.start = client::FromSession{session}, .continuations = {std::string(" a b")}, .top_k = 1000}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::ScoreResponse scores,
      Client().Score({.start = start, .continuations = {std::string(" a b")}, .top_k = 1000}));
  EXPECT_TRUE(scores.scores == fresh.scores);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched, Client().Branch({.start = start, .count = 2}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation expected, GoOn(Client(), client::FromSession{session}, 2));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation generated, GoOn(Client(), start, 2));
  EXPECT_TRUE(generated.tokens == expected.tokens);
  for (const client::Session& branch : branched.sessions) {
    EXPECT_EQ(branch.token_count, kAt);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest, GoOn(Client(), client::FromSession{branch.name}, 2));
    EXPECT_TRUE(rest.tokens == expected.tokens);
  }
}

TEST_F(RewindTest, AnotherWayOnIsCounterfactualAndSharesTheBlocksBefore) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation other,
                                 Generate(Client(), {.start = client::FromNode{.name = node().name, .at_token = 200},
                                                     .input = std::string(" However,"),
                                                     .stop = {.max_tokens = 1},
                                                     .save = client::SaveOptions{}}));
  const client::SavedNode& saved = other.saved.at(0);
  ASSERT_EQ(saved.node.parents.size(), 1u);
  EXPECT_EQ(saved.node.parents[0].parent, node().name);
  EXPECT_EQ(saved.node.parents[0].type, client::EdgeType::kCounterfactual);
  EXPECT_EQ(saved.node.parents[0].at_token, 200);
  EXPECT_GE(saved.report.shared_blocks, 2) << "0-40 and 40-128";
  EXPECT_LE(saved.report.encoded_bytes, int64_t{23040} * (saved.node.token_count - 128));
  EXPECT_TRUE(Client().VerifyNode({.name = saved.node.name, .replay = true}).ok());
}

TEST_F(RewindTest, RefusesPointsOutsideTheNode) {
  for (const int at : {0, -1, kTokens + 1, 1 << 30}) {
    const absl::Status refused = ErrorOf(Client().Restore({.node = node().name, .at_token = at}));
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << at << ": " << refused;
    EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("at_token"));
  }
}

TEST_F(RewindTest, SkippingTheCheckIsSaid) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored,
                                 Client().Restore({.node = node().name, .skip_check = true}));
  EXPECT_EQ(restored.proof.check.outcome, client::CheckOutcome::kSkipped);
  EXPECT_EQ(restored.proof.check.logits_compared, 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation rest, GoOn(Client(), client::FromSession{restored.session.name}, 2));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation checked, GoOn(Client(), client::FromNode{.name = node().name}, 2));
  EXPECT_TRUE(rest.tokens == checked.tokens);
}

TEST_F(RewindTest, RestoreTakesOtherSampling) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::RestoreResponse restored,
      Client().Restore({.node = node().name, .sampling = {.temperature = 0.5, .seed = 9}, .lease = absl::Minutes(3)}));
  EXPECT_EQ(restored.session.sampling.temperature, 0.5F);
  EXPECT_EQ(restored.session.sampling.seed, 9u);
  const absl::Duration lease = restored.session.expire_time - restored.session.create_time;
  EXPECT_GT(lease, absl::Seconds(150));
  EXPECT_LT(lease, absl::Seconds(210));
}

}  // namespace
}  // namespace quicksave::integration
