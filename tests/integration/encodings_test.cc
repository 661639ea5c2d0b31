// The life of a node's encodings, with the real model over the wire: made, measured, restored from, dropped, killed.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/encoding_fixture.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int kLayers = 30;

class EncodingsTest : public EncodingFixture {};

TEST_F(EncodingsTest, ANodeListsItsEncodingWithSizeAndFidelityAndStillRestoresExactly) {
  const client::Node saved = Save(24, 1);
  ASSERT_GT(saved.token_count, 256);
  const std::vector<client::Token> before = ContinueNode(saved.name);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse encoded, Calls().Encode(saved.name));
  ASSERT_EQ(encoded.trials_size(), 1);
  EXPECT_TRUE(encoded.trials(0).within_budget());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, Calls().Get(saved.name));
  ASSERT_EQ(node.encodings_size(), 1);
  const v1::Encoding& encoding = node.encodings(0);
  EXPECT_EQ(encoding.DebugString(), encoded.encoding().DebugString());
  EXPECT_EQ(encoding.DebugString(), encoded.trials(0).encoding().DebugString());
  EXPECT_EQ(encoding.codec(), "latent");
  EXPECT_EQ(encoding.split(), 0);
  EXPECT_FALSE(encoding.has_residual());
  EXPECT_EQ(encoding.raw_bytes(), saved.storage.raw_bytes);
  EXPECT_GT(encoding.ratio(), 4);
  EXPECT_NEAR(encoding.ratio(), double(encoding.raw_bytes()) / encoding.stored_bytes(), 1e-9);
  const v1::Fidelity& fidelity = encoding.fidelity();
  EXPECT_EQ(fidelity.probe_tokens(), 32);
  EXPECT_GT(fidelity.mean_kl(), 0);
  EXPECT_LT(fidelity.mean_kl(), 0.3);
  EXPECT_GE(fidelity.max_kl(), fidelity.mean_kl());
  EXPECT_GT(fidelity.top1_agreement(), 0.7);
  ASSERT_EQ(fidelity.key_relative_mse_size(), kLayers);
  ASSERT_EQ(fidelity.value_cosine_size(), kLayers);
  EXPECT_EQ(fidelity.key_relative_mse(0), 0) << "layer 0 is recomputed";
  EXPECT_GT(fidelity.value_relative_mse(1), 0);
  EXPECT_GT(fidelity.value_cosine(kLayers - 1), 0.5);

  // What restores without more words is what was saved.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name));
  EXPECT_TRUE(restored.proof().exact());
  EXPECT_FALSE(restored.proof().has_encoding());
  EXPECT_EQ(restored.proof().check().outcome(), v1::DistributionCheck::OUTCOME_IDENTICAL);
  EXPECT_EQ(ContinueNode(saved.name), before);
  EXPECT_TRUE(Calls().Verify(saved.name, true).ok());
}

TEST_F(EncodingsTest, WithAResidualTheSavedBlocksMayGoAndEveryBitStays) {
  const client::Node saved = Save(24, 2);
  const std::vector<client::Token> before = ContinueNode(saved.name);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Encoding encoding, Calls().EncodeAndDropSaved(saved.name, "residual: true"));
  EXPECT_TRUE(encoding.has_residual());
  EXPECT_GT(encoding.residual_bytes(), 0);
  EXPECT_LT(encoding.stored_bytes() + encoding.residual_bytes(), saved.storage.stored_bytes)
      << "layered is smaller than as saved";
  KillAndRestart();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, Calls().Get(saved.name));
  EXPECT_TRUE(node.saved_dropped());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name, "exact_only: true"));
  const v1::Proof& proof = restored.proof();
  EXPECT_TRUE(proof.exact());
  EXPECT_EQ(proof.encoding().step(), encoding.step());
  EXPECT_EQ(proof.check().outcome(), v1::DistributionCheck::OUTCOME_IDENTICAL);
  EXPECT_EQ(proof.layers_recomputed(), 1);
  EXPECT_EQ(proof.tokens_recomputed(), 4);
  EXPECT_EQ(proof.tokens_reused(), saved.token_count - 4);
  EXPECT_GT(proof.estimate().nanos() + proof.estimate().seconds(), 0);
  EXPECT_EQ(ContinueNode(saved.name), before);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::VerifyNodeResponse verified, Calls().Verify(saved.name, true));
  EXPECT_EQ(verified.tokens_replayed(), saved.token_count);
  EXPECT_EQ(verified.blocks_checked(), 2 * saved.storage.blocks);
  // Less will do, and is faster than completing it to every bit.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse lossy, Calls().Restore(saved.name, "budget { max_kl: 9 }"));
  EXPECT_FALSE(lossy.proof().exact());
  EXPECT_LT(lossy.proof().bytes_read(), proof.bytes_read());
}

TEST_F(EncodingsTest, WithoutExactBitsARestoreSaysSoAndExactOnlyFails) {
  const client::Node saved = Save(24, 3);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Encoding encoding, Calls().EncodeAndDropSaved(saved.name, "residual: true"));
  ASSERT_TRUE(Calls().Drop(saved.name, EncodingCalls::NameIn("residual_of", encoding)).ok());
  KillAndRestart();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name));
  const v1::Proof& proof = restored.proof();
  EXPECT_FALSE(proof.exact());
  EXPECT_EQ(proof.codec(), "latent");
  EXPECT_EQ(proof.check().outcome(), v1::DistributionCheck::OUTCOME_AS_MEASURED);
  EXPECT_NEAR(proof.check().kl_divergence(), proof.encoding().fidelity().next_token_kl(), 1e-6);
  EXPECT_EQ(proof.encoding().fidelity().mean_kl(), encoding.fidelity().mean_kl());
  EXPECT_THAT(Continue(client::FromSession{restored.session().name()}), SizeIs(24));

  for (const char* wish : {"exact_only: true", "budget { max_kl: 0 }", "budget { min_top1: 1 max_kl: 1e-9 }"}) {
    const absl::Status refused = ErrorOf(Calls().Restore(saved.name, wish));
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("[NO_SUITABLE_ENCODING]"));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("with KL "));
  }
  EXPECT_TRUE(Calls().Verify(saved.name, false).ok());
  const absl::Status replayed = ErrorOf(Calls().Verify(saved.name, true));
  EXPECT_TRUE(absl::IsFailedPrecondition(replayed)) << replayed;
  const absl::Status encoded = ErrorOf(Calls().Encode(saved.name, "encoding { point: 'fine' }"));
  EXPECT_THAT(std::string(encoded.message()), HasSubstr("[SAVED_BLOCKS_DROPPED]"));
}

TEST_F(EncodingsTest, ABudgetTakesTheCoarsestThatKeepsToItOrLeavesTheNodeAlone) {
  const client::Node saved = Save(24, 4);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node before, Calls().Get(saved.name));
  // Not even another rounding would keep to this one.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse kept,
                                 Calls().Encode(saved.name, "budget { max_kl: 1e-12 } drop_saved: true"));
  EXPECT_FALSE(kept.has_encoding());
  EXPECT_GE(kept.trials_size(), 4);
  for (const v1::EncodingTrial& trial : kept.trials()) EXPECT_FALSE(trial.within_budget());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node same, Calls().Get(saved.name));
  EXPECT_EQ(same.DebugString(), before.DebugString());

  // Any will do: the coarsest is tried first.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse any, Calls().Encode(saved.name, "budget { max_kl: 9 }"));
  ASSERT_EQ(any.trials_size(), 1);
  const v1::Encoding& coarsest = any.encoding();
  EXPECT_EQ(coarsest.step(), kept.trials(0).encoding().step());

  // What a finer one is known to keep to, it is found for.
  const double bound = kept.trials(2).encoding().fidelity().mean_kl() * 1.0001;
  ASSERT_LT(bound, coarsest.fidelity().mean_kl());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse found,
                                 Calls().Encode(saved.name, absl::StrCat("budget { max_kl: ", bound, " }")));
  ASSERT_TRUE(found.has_encoding());
  EXPECT_LE(found.encoding().fidelity().mean_kl(), bound);
  double coarsest_within = 0;
  for (const v1::EncodingTrial& trial : found.trials()) {
    EXPECT_EQ(trial.within_budget(), trial.encoding().fidelity().mean_kl() <= bound);
    if (trial.within_budget()) coarsest_within = std::max<double>(coarsest_within, trial.encoding().step());
  }
  EXPECT_EQ(found.encoding().step(), coarsest_within);
  EXPECT_LT(found.encoding().ratio(), coarsest.ratio());
  EXPECT_EQ(Calls().Get(saved.name)->encodings_size(), 2);

  // With a dial, that setting alone is tried.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse dialled,
                                 Calls().Encode(saved.name, "encoding { point: 'default' } budget { max_kl: 1e-12 }"));
  EXPECT_EQ(dialled.trials_size(), 1);
  EXPECT_FALSE(dialled.has_encoding());
}

TEST_F(EncodingsTest, LayersMayBeRecomputedInsteadOfStored) {
  const client::Node saved = Save(24, 5);
  const std::vector<client::Token> before = ContinueNode(saved.name);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse whole, Calls().Encode(saved.name));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Encoding split,
                                 Calls().EncodeAndDropSaved(saved.name, "split: 6 residual: true"));
  EXPECT_EQ(split.split(), 6);
  EXPECT_EQ(split.fidelity().key_relative_mse(6), 0);
  EXPECT_GT(split.fidelity().key_relative_mse(7), 0);
  EXPECT_LT(split.residual_bytes() + split.stored_bytes(), saved.storage.stored_bytes * 24 / 30);
  ASSERT_TRUE(Calls().Drop(saved.name, EncodingCalls::NameIn("encoding", whole.encoding())).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name));
  EXPECT_TRUE(restored.proof().exact());
  EXPECT_EQ(restored.proof().layers_recomputed(), 7);
  EXPECT_EQ(ContinueNode(saved.name), before);
  ASSERT_TRUE(Calls().Drop(saved.name, EncodingCalls::NameIn("residual_of", split)).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse lossy, Calls().Restore(saved.name));
  EXPECT_FALSE(lossy.proof().exact());
  EXPECT_EQ(lossy.proof().check().outcome(), v1::DistributionCheck::OUTCOME_AS_MEASURED);
}

TEST_F(EncodingsTest, TheSameEncodingAgainTakesThePlaceOfTheFirst) {
  const client::Node saved = Save(10, 6);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse first, Calls().Encode(saved.name));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::EncodeNodeResponse again,
                                 Calls().Encode(saved.name, "encoding { residual: true }"));
  EXPECT_EQ(again.encoding().stored_bytes(), first.encoding().stored_bytes());
  EXPECT_EQ(again.node().encodings_size(), 1);
  EXPECT_TRUE(again.node().encodings(0).has_residual());
  EXPECT_NE(again.node().etag(), first.node().etag());

  const std::string residual = EncodingCalls::NameIn("residual_of", first.encoding());
  const std::string encoding = EncodingCalls::NameIn("encoding", first.encoding());
  EXPECT_TRUE(Calls().Drop(saved.name, residual).ok());
  EXPECT_TRUE(absl::IsNotFound(ErrorOf(Calls().Drop(saved.name, residual))));
  EXPECT_TRUE(Calls().Drop(saved.name, encoding).ok());
  EXPECT_TRUE(absl::IsNotFound(ErrorOf(Calls().Drop(saved.name, encoding))));
  const absl::Status last = ErrorOf(Calls().Drop(saved.name, "saved: true"));
  EXPECT_TRUE(absl::IsFailedPrecondition(last)) << last;
  EXPECT_THAT(std::string(last.message()), HasSubstr("[LAST_ENCODING]"));
  ASSERT_TRUE(Calls().Encode(saved.name).ok());
  ASSERT_TRUE(Calls().Drop(saved.name, "saved: true").ok());
  EXPECT_TRUE(absl::IsNotFound(ErrorOf(Calls().Drop(saved.name, "saved: true"))));
  EXPECT_THAT(std::string(ErrorOf(Calls().Drop(saved.name, encoding)).message()), HasSubstr("[LAST_ENCODING]"));
  EXPECT_TRUE(Calls().Restore(saved.name).ok());
}

TEST_F(EncodingsTest, StatesOfAFewTokensAreRecomputedAsAWhole) {
  for (const int tokens : {1, 3, 4, 5, 6, 20}) {
    SCOPED_TRACE(tokens);
    std::vector<int32_t> ids;
    for (int i = 0; i < tokens; i++) ids.push_back(500 + 7 * i);
    const client::Node saved = Save(ids);
    const std::vector<client::Token> before = ContinueNode(saved.name);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Encoding encoding,
                                   Calls().EncodeAndDropSaved(saved.name, "residual: true"));
    EXPECT_GT(encoding.stored_bytes(), 0);
    EXPECT_LT(encoding.fidelity().probe_tokens(), tokens == 1 ? 1 : tokens);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse exact, Calls().Restore(saved.name, "exact_only: true"));
    EXPECT_EQ(exact.proof().check().outcome(), v1::DistributionCheck::OUTCOME_IDENTICAL);
    EXPECT_EQ(ContinueNode(saved.name), before);
    ASSERT_TRUE(Calls().Drop(saved.name, EncodingCalls::NameIn("residual_of", encoding)).ok());
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse lossy, Calls().Restore(saved.name));
    EXPECT_EQ(lossy.proof().tokens_recomputed(), std::min(tokens, 4));
    if (tokens <= 4) {
      EXPECT_EQ(ContinueNode(saved.name), before);
    }
    if (tokens > 6) {
      EXPECT_GT(encoding.fidelity().mean_kl(), 0) << "something decoded stands before what was compared";
    }
    EXPECT_TRUE(Calls().Verify(saved.name, false).ok());
  }
}

TEST_F(EncodingsTest, ASessionOnBlocksThatAreDroppedGoesOnAndIsSavedExactly) {
  const client::Node saved = Save(24, 7);
  const std::vector<client::Token> before = ContinueNode(saved.name);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse live, Calls().Restore(saved.name));
  ASSERT_TRUE(Calls().EncodeAndDropSaved(saved.name).ok());
  EXPECT_EQ(Continue(client::FromSession{live.session().name()}), before);
  const client::Node child = ExtendAndSave(live.session().name(), 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::Node node, Calls().Get(child.name));
  EXPECT_EQ(node.storage().codec(), "exact");
  EXPECT_EQ(node.lossy_tokens(), 0);
  EXPECT_TRUE(Calls().Verify(child.name, true).ok());
}

TEST_F(EncodingsTest, HiddenStatesStayAsTheyWereSaved) {
  const client::TapSpec spec{.layers = {0, 15, kLayers}, .all_tokens = true};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation made,
      Generate(Client(),
               {.input = Prose(12, 8), .stop = {.max_tokens = 0}, .taps = spec, .save = client::SaveOptions{}}));
  const client::Node saved = made.saved.at(0).node;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates before,
                                 Client().ReadTaps({.source = client::FromNode{.name = saved.name}}));
  ASSERT_TRUE(Calls().EncodeAndDropSaved(saved.name).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name));
  const std::string session = restored.session().name();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates live,
                                 Client().ReadTaps({.source = client::FromSession{session}}));
  EXPECT_EQ(live, before);
  const client::Node child = ExtendAndSave(session, 6);
  ASSERT_TRUE(child.taps.has_value());
  EXPECT_EQ(child.taps->token_count, saved.token_count + 6);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse again, Calls().Restore(child.name));
  EXPECT_EQ(again.proof().check().outcome(), v1::DistributionCheck::OUTCOME_IDENTICAL);
  // Rewound, a state that captures its last token has that one's.
  ASSERT_TRUE(Calls().Restore(saved.name, "at_token: 40").ok());
}

TEST_F(EncodingsTest, TokenIdsAloneGiveEveryBitBack) {
  const client::Node saved = Save(24, 10);
  const std::vector<client::Token> before = ContinueNode(saved.name);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const v1::EncodeNodeResponse encoded,
      Calls().Encode(saved.name, "encoding { codec: 'replay' } budget { max_kl: 0 } drop_saved: true"));
  EXPECT_EQ(encoded.encoding().codec(), "replay");
  EXPECT_EQ(encoded.encoding().fidelity().max_kl(), 0);
  EXPECT_LT(encoded.encoding().stored_bytes(), 1000);
  KillAndRestart();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse restored, Calls().Restore(saved.name, "exact_only: true"));
  EXPECT_TRUE(restored.proof().exact());
  EXPECT_EQ(restored.proof().layers_recomputed(), kLayers);
  EXPECT_EQ(restored.proof().check().outcome(), v1::DistributionCheck::OUTCOME_IDENTICAL);
  EXPECT_EQ(ContinueNode(saved.name), before);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::RestoreResponse rewound, Calls().Restore(saved.name, "at_token: 100"));
  EXPECT_EQ(rewound.proof().check().outcome(), v1::DistributionCheck::OUTCOME_KV_IDENTICAL);
  EXPECT_TRUE(Calls().Verify(saved.name, true).ok());
  const client::Node child = ExtendAndSave(rewound.session().name(), 10);
  EXPECT_EQ(Calls().Get(child.name)->lossy_tokens(), 0);
  EXPECT_TRUE(Calls().Verify(child.name, true).ok());
}

TEST_F(EncodingsTest, ASnapshotMayBeEncodedAtOnce) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prose(12, 11)));
  const auto snapshot = [&](const std::string& options) {
    return Calls().Call<v1::SnapshotResponse>("SnapshotService/Snapshot",
                                              absl::StrCat("session: '", session, "' ", options));
  };
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::SnapshotResponse saved,
                                 snapshot("encoding { residual: true } drop_saved: true"));
  EXPECT_EQ(saved.encoding_error(), "");
  EXPECT_TRUE(saved.encoding().has_residual());
  EXPECT_TRUE(saved.node().saved_dropped());
  EXPECT_TRUE(Calls().Verify(saved.node().name(), true).ok());
  // The session goes on, and stores what its origin has no more.
  const client::Node next = ExtendAndSave(session, 8);
  EXPECT_TRUE(Calls().Verify(next.name, true).ok());
  // A save stands, whatever comes of the encoding.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const v1::SnapshotResponse kept, snapshot("encoding { split: 3 }"));
  EXPECT_THAT(kept.encoding_error(), HasSubstr("with split 3"));
  EXPECT_TRUE(Calls().Restore(kept.node().name()).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(ErrorOf(snapshot("drop_saved: true"))));
}

TEST_F(EncodingsTest, NothingIsLeftInTheStoreOfADeletedNode) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ServerStatus before, Client().GetStatus());
  const client::Node saved = Save(24, 9);
  ASSERT_TRUE(Calls().Encode(saved.name, "encoding { point: 'fine' residual: true }").ok());
  ASSERT_TRUE(Calls().EncodeAndDropSaved(saved.name, "split: 6").ok());
  ASSERT_TRUE(Client().DeleteNode({.name = saved.name}).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::ServerStatus after, Client().GetStatus());
  EXPECT_EQ(after.store.blocks, before.store.blocks);
  EXPECT_EQ(after.store.block_bytes, before.store.block_bytes);
}

}  // namespace
}  // namespace quicksave::integration
