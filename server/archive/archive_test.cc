#include "server/archive/archive.h"

#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/archive/block_plan.h"
#include "server/archive/testing/archive_environment.h"

namespace quicksave::server {
namespace {

using storage::v1::EDGE_TYPE_CONTINUATION;
using storage::v1::EDGE_TYPE_COUNTERFACTUAL;
using storage::v1::EDGE_TYPE_INTERVENTION;
using testing::HasSubstr;

class ArchiveTest : public ArchiveTestBase {
 protected:
  int64_t TokenBytes() const { return static_cast<int64_t>(env_.shape.page_bytes()) / engine::cpu::kPageTokens; }
};

std::vector<int32_t> Prefix(const std::vector<int32_t>& tokens, int count) {
  return {tokens.begin(), tokens.begin() + count};
}

TEST_F(ArchiveTest, StateIsRestoredBitForBitAfterReopening) {
  std::map<std::string, std::vector<int32_t>> nodes;
  for (const int length : {1, 15, 16, 17, 127, 128, 129, 300, 1000}) {
    SessionState state = env_.NewState(env_.RandomTokens(length));
    absl::StatusOr<SavedNode> saved = env_.Save(state);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(saved->report.new_blocks, (length + 127) / 128);
    EXPECT_EQ(saved->report.encoded_bytes, length * TokenBytes());
    EXPECT_LT(saved->report.written_bytes, length * TokenBytes() + 10'000);
    nodes[saved->record.node_id()] = state.sequence.tokens();
  }
  ASSERT_EQ(env_.pool->used_pages(), 0);
  env_.Reopen();
  for (const auto& [node_id, tokens] : nodes) EXPECT_TRUE(RestoresExactly(node_id, tokens)) << tokens.size();
}

TEST_F(ArchiveTest, SamplerTextLabelsAndEveryBitOfLogitsComeBack) {
  SessionState state = env_.NewState(env_.RandomTokens(40));
  auto logits = std::make_shared<engine::Logits>(*state.sequence.next_logits());
  (*logits)[3] = -0.0F;
  (*logits)[4] = -std::numeric_limits<float>::infinity();
  state.sequence.set_next_logits(logits);
  state.sampling = {.temperature = 0.7F,
                    .top_k = 40,
                    .top_p = 0.9F,
                    .min_p = 0.05F,
                    .repetition_penalty = 1.1F,
                    .presence_penalty = -0.5F,
                    .frequency_penalty = 1.5F,
                    .logit_bias = {{0, -100}, {7, 0.25F}},
                    .seed = ~0ULL};
  state.text = {.detokenizer = {.prefix_offset = 30, .read_offset = 38, .emitted_bytes = 5}, .held_text = "\xff<en"};
  const SaveRequest request{
      .state = state, .tenant = kTenant, .labels = {{"a", "b"}}, .note = "why", .text_tail = "the end"};
  absl::StatusOr<SavedNode> saved = env_.archive->Save(request);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_FALSE(saved->record.has_contents());
  absl::StatusOr<RestoredState> restored = Restore(saved->record.node_id());
  ASSERT_TRUE(restored.ok()) << restored.status();
  const engine::Logits& read = *restored->state.sequence.next_logits();
  ASSERT_EQ(read.size(), logits->size());
  EXPECT_EQ(std::memcmp(read.data(), logits->data(), read.size() * sizeof(float)), 0);
  EXPECT_EQ(restored->state.sampling, state.sampling);
  EXPECT_EQ(restored->state.text.detokenizer, state.text.detokenizer);
  EXPECT_EQ(restored->state.text.held_text, state.text.held_text);
  EXPECT_EQ(restored->record.annotations().labels().at("a"), "b");
  EXPECT_EQ(restored->record.annotations().note(), "why");
  EXPECT_EQ(restored->record.text_tail(), "the end");
  EXPECT_EQ(restored->record.codec(), "exact");
  EXPECT_EQ(restored->report.codec, "exact");
  EXPECT_EQ(restored->report.bytes_restored, 40 * TokenBytes() + 4 * kVocab);
  EXPECT_EQ(restored->state.origin_tokens, 40);
  EXPECT_EQ(restored->state.origin->node_id, saved->record.node_id());
}

TEST_F(ArchiveTest, SecondSaveWritesOnlyWhatIsNew) {
  SessionState state = env_.NewState(env_.RandomTokens(300));
  const std::string parent = env_.Save(state)->record.node_id();
  env_.Append(state, env_.RandomTokens(100));
  absl::StatusOr<SavedNode> child = env_.Save(state);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(child->report.new_blocks, 2);
  EXPECT_EQ(child->report.shared_blocks, 3);
  EXPECT_EQ(child->report.encoded_bytes, 100 * TokenBytes());
  EXPECT_LT(child->record.new_stored_bytes(), 110 * TokenBytes());
  ASSERT_EQ(child->record.parents_size(), 1);
  EXPECT_EQ(child->record.parents(0).node_id(), parent);
  EXPECT_EQ(child->record.parents(0).type(), EDGE_TYPE_CONTINUATION);
  EXPECT_EQ(child->record.parents(0).at_token(), 300);
  EXPECT_TRUE(RestoresExactly(child->record.node_id(), state.sequence.tokens()));
  EXPECT_TRUE(RestoresExactly(parent, Prefix(state.sequence.tokens(), 300)));
}

TEST_F(ArchiveTest, SavingAnUnchangedStateWritesNoBlock) {
  SessionState state = env_.NewState(env_.RandomTokens(200));
  ASSERT_TRUE(env_.Save(state).ok());
  absl::StatusOr<SavedNode> again = env_.Save(state);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->report.new_blocks, 0);
  EXPECT_EQ(again->record.new_stored_bytes(), 0);
  EXPECT_TRUE(RestoresExactly(again->record.node_id(), state.sequence.tokens()));
}

TEST_F(ArchiveTest, EqualStatesWithoutCommonOriginShareBlocks) {
  const std::vector<int32_t> tokens = env_.RandomTokens(200);
  SessionState first = env_.NewState(tokens);
  SessionState second = env_.NewState(tokens);
  ASSERT_TRUE(env_.Save(first).ok());
  absl::StatusOr<SavedNode> shared = env_.Save(second);
  ASSERT_TRUE(shared.ok()) << shared.status();
  EXPECT_EQ(shared->report.new_blocks, 0);
  EXPECT_EQ(shared->report.shared_blocks, 2);
  EXPECT_EQ(shared->report.encoded_bytes, 0);
  EXPECT_EQ(shared->record.parents_size(), 0);
  EXPECT_TRUE(RestoresExactly(shared->record.node_id(), tokens));
}

TEST_F(ArchiveTest, NodeIsRewoundToEveryToken) {
  SessionState state = env_.NewState(env_.RandomTokens(100));
  for (const int more : {7, 30, 20}) {
    ASSERT_TRUE(env_.Save(state).ok());
    env_.Append(state, env_.RandomTokens(more));
  }
  state.text.held_text = "held";
  absl::StatusOr<SavedNode> saved = env_.Save(state);
  ASSERT_TRUE(saved.ok()) << saved.status();
  const std::string node_id = saved->record.node_id();
  const int count = state.sequence.length();
  for (int at = 1; at <= count; ++at) {
    absl::StatusOr<RestoredState> rewound = Restore(node_id, at);
    ASSERT_TRUE(rewound.ok()) << rewound.status();
    const engine::Sequence& sequence = rewound->state.sequence;
    ASSERT_EQ(sequence.tokens(), Prefix(state.sequence.tokens(), at));
    ASSERT_EQ(static_cast<int>(sequence.pages().size()), engine::PagesFor(at));
    ASSERT_TRUE(env_.fake.Agrees(sequence)) << "at " << at;
    ASSERT_EQ(sequence.next_logits() != nullptr, at == count);
    ASSERT_EQ(rewound->state.text.held_text, at == count ? "held" : "");
    ASSERT_EQ(rewound->state.origin_tokens, at);
    ASSERT_EQ(rewound->state.origin->node_token_count, count);
    ASSERT_EQ(rewound->state.text.detokenizer.prefix_offset, at < count ? at : 0);
  }
  for (const int at : {-1, 0, count + 1}) {
    EXPECT_EQ(Restore(node_id, at).status().code(), absl::StatusCode::kOutOfRange) << at;
  }
}

TEST_F(ArchiveTest, ConstraintComesBackWithTheTokensSinceItBegan) {
  using Kind = text::Constraint::Kind;
  for (const Kind kind : {Kind::kJsonSchema, Kind::kRegex, Kind::kChoices, Kind::kLark}) {
    SessionState state = env_.NewState(env_.RandomTokens(40));
    const std::vector<std::string> texts(kind == Kind::kChoices ? 3 : 1, "[a-z]+\n");
    state.constraint = {std::make_shared<const text::Constraint>(text::Constraint{kind, texts}), 12};
    const std::string node_id = env_.Save(state)->record.node_id();
    for (int at = 26; at <= 40; ++at) {
      const ConstraintState restored = Restore(node_id, at)->state.constraint;
      ASSERT_EQ(restored.constraint != nullptr, at >= 28) << at;
      ASSERT_EQ(restored.tokens, std::max(0, at - 28));
      if (at < 28) continue;
      ASSERT_EQ(*restored.constraint, *state.constraint.constraint);
    }
  }
}

TEST_F(ArchiveTest, RewindingReadsOnlyTheBlocksThatAreNeeded) {
  SessionState state = env_.NewState(env_.RandomTokens(1000));
  const std::string node_id = env_.Save(state)->record.node_id();
  const int64_t whole = Restore(node_id)->report.bytes_read;
  EXPECT_LT(Restore(node_id, 128)->report.bytes_read, whole / 7);
  EXPECT_GT(Restore(node_id, 129)->report.bytes_read, whole / 7);
}

TEST_F(ArchiveTest, BranchFromTheMiddleKeepsWholeBlocksAndIsCounterfactual) {
  SessionState state = env_.NewState(env_.RandomTokens(400));
  const std::string node_id = env_.Save(state)->record.node_id();
  for (const int at : {1, 128, 200, 256, 399}) {
    SessionState branch = Restore(node_id, at)->state;
    env_.Append(branch, env_.RandomTokens(150));
    absl::StatusOr<SavedNode> saved = env_.Save(branch);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(saved->record.parents(0).type(), EDGE_TYPE_COUNTERFACTUAL);
    EXPECT_EQ(saved->record.parents(0).at_token(), at);
    EXPECT_EQ(saved->report.shared_blocks, at / 128);
    EXPECT_TRUE(RestoresExactly(saved->record.node_id(), branch.sequence.tokens()));
  }
  EXPECT_TRUE(RestoresExactly(node_id, state.sequence.tokens()));
}

TEST_F(ArchiveTest, EdgeTypeCanBeGiven) {
  SessionState state = env_.NewState(env_.RandomTokens(20));
  ASSERT_TRUE(env_.Save(state).ok());
  absl::StatusOr<SavedNode> saved =
      env_.archive->Save({.state = state, .tenant = kTenant, .edge_type = EDGE_TYPE_INTERVENTION});
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->record.parents(0).type(), EDGE_TYPE_INTERVENTION);
}

TEST_F(ArchiveTest, LongChainOfSmallSavesStaysReadable) {
  SessionState state = env_.NewState(env_.RandomTokens(1));
  std::vector<std::string> nodes;
  for (int i = 0; i < 200; ++i) {
    absl::StatusOr<SavedNode> saved = env_.Save(state);
    ASSERT_TRUE(saved.ok()) << saved.status();
    nodes.push_back(saved->record.node_id());
    const int windows = (state.sequence.length() + kWindowTokens - 1) / kWindowTokens;
    ASSERT_LE(static_cast<int>(saved->record.block_count()), windows * kMaxPieces);
    env_.Append(state, env_.RandomTokens(1));
    // Half of the chain goes through a restore.
    if (i % 2 == 1) continue;
    SessionState restored = Restore(nodes.back())->state;
    env_.Append(restored, {state.sequence.tokens().back()});
    state = restored;
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    ASSERT_TRUE(RestoresExactly(nodes[i], Prefix(state.sequence.tokens(), static_cast<int>(i) + 1))) << i;
  }
}

TEST_F(ArchiveTest, StateWhoseOriginWasDeletedIsSavedAsRoot) {
  SessionState state = env_.NewState(env_.RandomTokens(300));
  const std::string parent = env_.Save(state)->record.node_id();
  env_.Append(state, env_.RandomTokens(10));
  ASSERT_TRUE(env_.store->DeleteNode(kTenant, parent).ok());
  absl::StatusOr<SavedNode> saved = env_.Save(state);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->record.parents_size(), 0);
  EXPECT_EQ(saved->record.lacks_size(), 0);
  EXPECT_EQ(saved->report.shared_blocks, 0);
  EXPECT_TRUE(RestoresExactly(saved->record.node_id(), state.sequence.tokens()));
}

TEST_F(ArchiveTest, BlocksOfADeletedOriginThatOthersKeepAreUsed) {
  const std::vector<int32_t> tokens = env_.RandomTokens(256);
  SessionState keeper = env_.NewState(Prefix(tokens, 128));
  ASSERT_TRUE(env_.Save(keeper).ok());
  SessionState state = env_.NewState(tokens);
  const std::string parent = env_.Save(state)->record.node_id();
  ASSERT_TRUE(env_.store->DeleteNode(kTenant, parent).ok());
  absl::StatusOr<SavedNode> saved = env_.Save(state);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->record.parents_size(), 0);
  EXPECT_EQ(saved->report.shared_blocks, 1);
  EXPECT_EQ(saved->report.new_blocks, 1);
  EXPECT_TRUE(RestoresExactly(saved->record.node_id(), tokens));
}

TEST_F(ArchiveTest, NodeSurvivesDeletionOfItsSibling) {
  SessionState root = env_.NewState(env_.RandomTokens(200));
  ASSERT_TRUE(env_.Save(root).ok());
  SessionState left = root;
  SessionState right = root;
  env_.Append(left, env_.RandomTokens(100));
  env_.Append(right, env_.RandomTokens(100));
  const std::string left_id = env_.Save(left)->record.node_id();
  const std::string right_id = env_.Save(right)->record.node_id();
  ASSERT_TRUE(env_.store->DeleteNode(kTenant, left_id).ok());
  ASSERT_TRUE(env_.store->CollectGarbage().ok());
  EXPECT_EQ(Restore(left_id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(RestoresExactly(right_id, right.sequence.tokens()));
  EXPECT_TRUE(env_.archive->Verify(kTenant, right_id).ok());
}

TEST_F(ArchiveTest, RepeatedRequestIsAborted) {
  const SessionState state = env_.NewState(env_.RandomTokens(20));
  SaveRequest request{.state = state, .tenant = kTenant};
  request.request = storage::AnsweredRequest<storage::NodeRecord>{
      .identity = {.method = "Snapshot", .request_id = "once", .fingerprint = "f"},
      .answer = [](const storage::NodeRecord& r) { return r.node_id(); }};
  absl::StatusOr<SavedNode> saved = env_.archive->Save(request);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(env_.store->FindRequest(kTenant, "Snapshot", "once")->answer, saved->record.node_id());
  EXPECT_EQ(env_.archive->Save(request).status().code(), absl::StatusCode::kAborted);
}

TEST_F(ArchiveTest, StateWithoutLogitsIsNotSaved) {
  SessionState state = env_.NewState(env_.RandomTokens(20));
  state.sequence.set_next_logits(nullptr);
  EXPECT_EQ(env_.Save(state).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(env_.store->Stats()->nodes, 0);
}

TEST_F(ArchiveTest, RestoreIntoAFullPoolIsRefused) {
  SessionState state = env_.NewState(env_.RandomTokens(300));
  const std::string node_id = env_.Save(state)->record.node_id();
  {
    engine::PageReservation most = env_.pool->Reserve(env_.pool->total_pages() - 2 * engine::PagesFor(300) + 1).value();
    EXPECT_EQ(Restore(node_id).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(Restore(node_id, 299 - 16).ok());
  }
  EXPECT_TRUE(RestoresExactly(node_id, state.sequence.tokens()));
}

TEST_F(ArchiveTest, NodeOfAnotherModelOrNumericsIsRefusedByName) {
  SessionState state = env_.NewState(env_.RandomTokens(30));
  const std::string node_id = env_.Save(state)->record.node_id();
  ModelIdentity other = env_.model;
  other.fingerprint = "model-b";
  const auto refusal = [&] { return env_.OpenArchive(other).value()->Restore(kTenant, node_id, {}).status(); };
  EXPECT_EQ(refusal().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal().message()), testing::AllOf(HasSubstr("model-a"), HasSubstr("model-b")));
  other = env_.model;
  other.numerics = "numerics-2";
  EXPECT_EQ(refusal().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refusal().message()), testing::AllOf(HasSubstr("numerics-1"), HasSubstr("numerics-2")));
}

TEST_F(ArchiveTest, AbsentNodeIsNotFound) {
  EXPECT_EQ(Restore("nothing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(env_.archive->Verify(kTenant, "nothing").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ArchiveTest, TenantsDoNotSeeEachOther) {
  SessionState state = env_.NewState(env_.RandomTokens(30));
  const std::string node_id = env_.Save(state)->record.node_id();
  EXPECT_EQ(env_.archive->Restore("others", node_id, {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ArchiveTest, VerifyCountsWhatItRead) {
  SessionState state = env_.NewState(env_.RandomTokens(300));
  const std::string node_id = env_.Save(state)->record.node_id();
  absl::StatusOr<VerifiedNode> verified = env_.archive->Verify(kTenant, node_id);
  ASSERT_TRUE(verified.ok()) << verified.status();
  EXPECT_EQ(verified->blocks, 3);
  EXPECT_EQ(verified->bytes_read, Restore(node_id)->report.bytes_read);
  ModelIdentity other = env_.model;
  other.fingerprint = "model-b";
  EXPECT_TRUE(env_.OpenArchive(other).value()->Verify(kTenant, node_id).ok()) << "a node of another model";
}

}  // namespace
}  // namespace quicksave::server
