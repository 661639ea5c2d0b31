// What comes of a lossy restore, with the real model over the wire: children, their children, rewinds, drift; and what
// must not come of it, approximations where the model's own K and V are promised.

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/encoding_fixture.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;

constexpr v1::DistributionCheck::Outcome kIdentical = v1::DistributionCheck::OUTCOME_IDENTICAL;

class EncodingLineageTest : public EncodingFixture {
 protected:
  // Prompts are shared, and memory is short, so that sessions are parked.
  static void SetUpTestSuite() { Start({"!--no-prefix-cache", "--kv-memory=64MiB"}); }

  // Saves a node and leaves only a latent of it.
  static client::Node SaveLatent(int sentences, int seed) {
    client::Node saved = Save(sentences, seed);
    EXPECT_TRUE(Calls().EncodeAndDropSaved(saved.name).ok());
    return saved;
  }
  static std::string RestoreSession(const std::string& node, const std::string& options = "") {
    const absl::StatusOr<v1::RestoreResponse> restored = Calls().Restore(node, options);
    EXPECT_TRUE(restored.ok()) << restored.status();
    return restored.ok() ? restored->session().name() : "";
  }
  static v1::Proof ProofOf(const std::string& node) {
    const absl::StatusOr<v1::RestoreResponse> restored = Calls().Restore(node);
    EXPECT_TRUE(restored.ok()) << restored.status();
    return restored.ok() ? restored->proof() : v1::Proof();
  }
  // Log-probabilities of the likeliest next tokens.
  static std::map<int32_t, double> Next(const client::Start& start) {
    const absl::StatusOr<client::ScoreResponse> scores =
        Client().Score({.start = start, .continuations = {std::string(" the")}, .top_k = 1000});
    EXPECT_TRUE(scores.ok()) << scores.status();
    std::map<int32_t, double> next;
    if (!scores.ok()) return next;
    for (const client::TokenProbability& top : scores->scores.at(0).tokens.at(0).top) next[top.id] = top.logprob;
    return next;
  }
  // Divergence of `q` from `p` in nats, over the likeliest tokens of p.
  static double Divergence(const std::map<int32_t, double>& p, const std::map<int32_t, double>& q) {
    double kl = 0;
    for (const auto& [id, logprob] : p) {
      const auto found = q.find(id);
      if (found != q.end()) kl += std::exp(logprob) * (logprob - found->second);
    }
    return kl;
  }
};

TEST_F(EncodingLineageTest, AChildOfALatentKeepsItsBlocksAndIsExactItself) {
  const client::Node parent = SaveLatent(24, 1);
  const std::string session = RestoreSession(parent.name);
  const client::Node child = ExtendAndSave(session, 32);
  const std::vector<client::Token> before = Continue(client::FromSession{session});
  KillAndRestart();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node latent, Calls().Get(parent.name));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, Calls().Get(child.name));
  EXPECT_EQ(node.storage().codec(), "mixed");
  EXPECT_EQ(node.lossy_tokens(), parent.token_count);
  EXPECT_EQ(node.parents(0).at_token(), parent.token_count);
  // Of the parent's blocks nothing is stored again.
  EXPECT_LT(node.storage().added_bytes(), latent.encodings(0).stored_bytes());
  EXPECT_EQ(node.storage().stored_bytes() - node.storage().added_bytes(), latent.encodings(0).stored_bytes());
  const v1::Proof proof = ProofOf(child.name);
  EXPECT_TRUE(proof.exact());
  EXPECT_EQ(proof.check().outcome(), kIdentical);
  EXPECT_EQ(ContinueNode(child.name), before);
  // It is whole, and not what the model makes of its token ids.
  EXPECT_TRUE(Calls().Verify(child.name, false).ok());
  const absl::Status replayed = ErrorOf(Calls().Verify(child.name, true));
  EXPECT_TRUE(absl::IsFailedPrecondition(replayed)) << replayed;
  EXPECT_THAT(std::string(replayed.message()), HasSubstr("[LOSSY_ANCESTRY]"));

  for (const char* spec : {"codec: 'replay'", "split: 6"}) {
    const absl::Status refused = ErrorOf(Calls().Encode(child.name, absl::StrCat("encoding { ", spec, " }")));
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("is not what was saved"));
  }

  // A grandchild of both kinds of blocks.
  const client::Node grandchild = ExtendAndSave(RestoreSession(child.name), 100);
  EXPECT_EQ(ProofOf(grandchild.name).check().outcome(), kIdentical);
  EXPECT_EQ(Calls().Get(grandchild.name)->lossy_tokens(), parent.token_count);
}

TEST_F(EncodingLineageTest, AnEncodedChildKeepsTheBlocksThatAreLatentAlready) {
  const client::Node parent = SaveLatent(24, 2);
  const client::Node child = ExtendAndSave(RestoreSession(parent.name), 140);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node latent, Calls().Get(parent.name));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ServerStatus before, Client().GetStatus());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse encoded,
                                 Calls().Encode(child.name, "encoding { point: 'small' residual: true }"));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ServerStatus after, Client().GetStatus());
  const int64_t added = after.store.block_bytes - before.store.block_bytes;
  const v1::Encoding& encoding = encoded.encoding();
  EXPECT_EQ(added, encoding.stored_bytes() - latent.encodings(0).stored_bytes() + encoding.residual_bytes());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, Calls().Get(child.name));
  EXPECT_EQ(node.encodings(0).DebugString(), encoding.DebugString());
  // The old beginning, the new end.
  const int64_t blocks = after.store.blocks - before.store.blocks;
  EXPECT_EQ(blocks, 2 * (node.storage().blocks() - latent.storage().blocks() - (parent.token_count + 127) / 128));
  const std::vector<client::Token> said = ContinueNode(child.name);
  ASSERT_TRUE(Calls().Drop(child.name, "saved: true").ok());
  EXPECT_EQ(ProofOf(child.name).check().outcome(), kIdentical);
  EXPECT_EQ(ContinueNode(child.name), said);
  ASSERT_TRUE(Calls().Drop(child.name, EncodingCalls::NameIn("residual_of", encoding)).ok());
  EXPECT_EQ(ProofOf(child.name).check().outcome(), v1::DistributionCheck::OUTCOME_AS_MEASURED);
}

TEST_F(EncodingLineageTest, AChildOutlivesItsParentsEncodings) {
  const client::Node parent = Save(24, 3);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse small,
                                 Calls().Encode(parent.name, "encoding { point: 'small' }"));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Encoding fine, Calls().EncodeAndDropSaved(parent.name, "point: 'fine'"));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(parent.name));
  EXPECT_EQ(restored.proof().encoding().step(), fine.step()) << "the most faithful";
  const client::Node child = ExtendAndSave(restored.session().name(), 8);
  const std::vector<client::Token> said = ContinueNode(child.name);
  const std::string orphan = RestoreSession(parent.name);
  ASSERT_TRUE(Calls().Drop(parent.name, EncodingCalls::NameIn("encoding", fine)).ok());
  EXPECT_EQ(ContinueNode(child.name), said);
  EXPECT_EQ(ProofOf(parent.name).encoding().step(), small.encoding().step());

  // Parent and child are gone, and with them the blocks of a session that comes from there: it stores what it has.
  ASSERT_TRUE(Client().DeleteNode({.name = parent.name, .force = true}).ok());
  const client::Node heir = ExtendAndSave(orphan, 8);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, Calls().Get(heir.name));
  EXPECT_EQ(node.storage().codec(), "exact");
  EXPECT_EQ(node.lossy_tokens(), parent.token_count);
  EXPECT_EQ(node.parents_size(), 0);
  EXPECT_EQ(ProofOf(heir.name).check().outcome(), kIdentical);
  EXPECT_EQ(ContinueNode(heir.name), said);
  EXPECT_THAT(std::string(ErrorOf(Calls().Verify(heir.name, true)).message()), HasSubstr("[LOSSY_ANCESTRY]"));
  // What was decoded once is not encoded anew, whatever holds it.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse encoded, Calls().Encode(heir.name));
  EXPECT_EQ(encoded.encoding().fidelity().value_relative_mse(10), 0);
  EXPECT_EQ(encoded.encoding().stored_bytes(), node.storage().stored_bytes());
  ASSERT_TRUE(Calls().Drop(heir.name, "saved: true").ok());
  EXPECT_EQ(ContinueNode(heir.name), said);
}

TEST_F(EncodingLineageTest, LatentsRewindToAnyTokenAndWhatIsSavedThereIsWhole) {
  const client::Node exact = Save(24, 4);
  const client::Node parent = Save(24, 4);
  ASSERT_EQ(exact.token_count, parent.token_count);
  ASSERT_TRUE(Calls().EncodeAndDropSaved(parent.name).ok());
  const int count = parent.token_count;
  for (const int at : {1, 3, 4, 5, 60, 127, 128, 129, 200, count - 1, count}) {
    SCOPED_TRACE(at);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored,
                                   Calls().Restore(parent.name, absl::StrCat("at_token: ", at)));
    const std::string session = restored.session().name();
    EXPECT_EQ(restored.session().token_count(), at);
    EXPECT_EQ(restored.proof().check().outcome(), at == count ? v1::DistributionCheck::OUTCOME_AS_MEASURED
                                                              : v1::DistributionCheck::OUTCOME_VALUES_AS_MEASURED);
    const std::string true_session = RestoreSession(exact.name, absl::StrCat("at_token: ", at));
    const std::map<int32_t, double> next = Next(client::FromSession{session});
    EXPECT_LT(Divergence(Next(client::FromSession{true_session}), next), 0.5);
    // As it is, without a token more.
    const client::Node still = ExtendAndSave(session, 0);
    EXPECT_EQ(Calls().Get(still.name)->lossy_tokens(), at);
    EXPECT_EQ(ProofOf(still.name).check().outcome(), kIdentical);
    EXPECT_EQ(Next(client::FromNode{.name = still.name}), next);
    const client::Node longer = ExtendAndSave(session, 5);
    EXPECT_EQ(ProofOf(longer.name).check().outcome(), kIdentical);
    // Rewound again, into what was decoded and into what was not.
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse back,
                                   Calls().Restore(longer.name, absl::StrCat("at_token: ", at)));
    EXPECT_EQ(back.proof().check().outcome(), v1::DistributionCheck::OUTCOME_VALUES_AS_MEASURED);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse forth,
                                   Calls().Restore(longer.name, absl::StrCat("at_token: ", at + 3)));
    EXPECT_EQ(forth.proof().check().outcome(), v1::DistributionCheck::OUTCOME_KV_IDENTICAL);
    EXPECT_EQ(Next(client::FromSession{back.session().name()}), next);
    ASSERT_TRUE(Client().DeleteSession({.name = session}).ok());
  }
}

TEST_F(EncodingLineageTest, DriftOverGenerationsStaysBounded) {
  client::Node node = Save(14, 5);
  for (int generation = 1; generation <= 5; generation++) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Encoding encoding, Calls().EncodeAndDropSaved(node.name));
    const std::string session = RestoreSession(node.name);
    node = ExtendAndSave(session, 32);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node full, Calls().Get(node.name));
    const Generation pure =
        Generate(Client(), {.input = std::vector<int32_t>(full.token_ids().begin(), full.token_ids().end()),
                            .stop = {.max_tokens = 0},
                            .keep_session = true})
            .value();
    const double drift =
        Divergence(Next(client::FromSession{pure.finished.session}), Next(client::FromSession{session}));
    std::cout << "generation " << generation << ": " << full.token_count() << " tokens, encoded with KL "
              << encoding.fidelity().mean_kl() << ", drift " << drift << " nats\n";
    EXPECT_LT(drift, 0.5);
    EXPECT_EQ(ProofOf(node.name).check().outcome(), kIdentical);
  }
}

TEST_F(EncodingLineageTest, APromptNeverSharesWhatWasDecoded) {
  const client::Node parent = Save(24, 6);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node full, Calls().Get(parent.name));
  ASSERT_TRUE(Calls().EncodeAndDropSaved(parent.name).ok());
  // Everything that may be shared is out of memory.
  KillAndRestart();
  // An idle session, and one that ended.
  RestoreSession(parent.name);
  ASSERT_TRUE(GoOn(Client(), client::FromNode{.name = parent.name}, 4).ok());
  const std::vector<int32_t> prompt(full.token_ids().begin(), full.token_ids().end());
  const client::GenerateRequest request{
      .input = prompt, .stop = {.max_tokens = 4, .ignore_eos = true}, .save = client::SaveOptions{}};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation made, Generate(Client(), request));
  EXPECT_EQ(made.started.shared_tokens, 0);
  EXPECT_EQ(made.started.restored_tokens, 0) << "the node has lost its exact bits";
  EXPECT_TRUE(Calls().Verify(made.saved.at(0).node.name, true).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation again, Generate(Client(), request));
  EXPECT_GT(again.started.shared_tokens, 0) << "what is the model's own is shared";
  EXPECT_TRUE(Calls().Verify(again.saved.at(0).node.name, true).ok());
}

TEST_F(EncodingLineageTest, APromptMayBeginWithWhatALatentAndItsResidualGive) {
  const client::Node parent = Save(24, 8);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node full, Calls().Get(parent.name));
  ASSERT_TRUE(Calls().EncodeAndDropSaved(parent.name, "residual: true").ok());
  // Prefill was not timed yet then, so that restoring is the better guess.
  KillAndRestart();
  std::vector<int32_t> prompt(full.token_ids().begin(), full.token_ids().end() - 20);
  const auto same = static_cast<int32_t>(prompt.size());
  prompt.insert(prompt.end(), {11111, 22222, 33333});
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation made,
      Generate(Client(),
               {.input = prompt, .stop = {.max_tokens = 4, .ignore_eos = true}, .save = client::SaveOptions{}}));
  EXPECT_EQ(made.started.restored_tokens, same);
  EXPECT_EQ(made.started.restored_node, parent.name);
  EXPECT_TRUE(Calls().Verify(made.saved.at(0).node.name, true).ok());
}

TEST_F(EncodingLineageTest, ParkedSessionsStayWhatTheyWere) {
  const client::Node parent = SaveLatent(24, 7);
  const std::vector<client::Token> said = ContinueNode(parent.name);
  std::vector<std::string> sessions;
  for (int i = 0; i < 14; i++) sessions.push_back(RestoreSession(parent.name));
  EXPECT_GT(Client().GetStatus()->engine.parked_sessions, 0);
  for (const std::string& session : sessions) {
    EXPECT_EQ(Continue(client::FromSession{session}), said);
    const client::Node child = ExtendAndSave(session, 0);
    EXPECT_EQ(Calls().Get(child.name)->lossy_tokens(), parent.token_count);
    EXPECT_EQ(ProofOf(child.name).check().outcome(), kIdentical);
    ASSERT_TRUE(Client().DeleteNode({.name = child.name}).ok());
  }
}

}  // namespace
}  // namespace quicksave::integration
