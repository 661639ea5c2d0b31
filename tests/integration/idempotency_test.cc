// request_id: a mutation that is repeated is done once and answered as at first, also by the server's successor.

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/server_process.h"
#include "tests/integration/shared_server.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::SizeIs;

// Any valid UUID4s.
constexpr char kSnapshotId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d001";
constexpr char kGenerateId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d002";
constexpr char kUpdateId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d003";
constexpr char kDeleteId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d004";
constexpr char kRestoreId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d005";
constexpr char kBranchId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d006";
constexpr char kEncodeId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d007";
constexpr char kDropId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d008";

// Requests with ids, and the answers to the first of each.
struct Mutations {
  client::SnapshotRequest snapshot;
  client::GenerateRequest generate;
  client::UpdateNodeRequest update;
  client::DeleteNodeRequest remove;
  client::EncodeNodeRequest encode;
  client::DropEncodingRequest drop;
  client::SavedNode saved;
  Generation generated;
  client::Node updated;
  client::DeleteNodeResponse deleted;
  client::EncodeNodeResponse encoded;
  client::Node dropped;
};

void EncodeAndDropFirst(const client::Client& client, Mutations* mutations) {
  mutations->encode = {.name = mutations->saved.node.name,
                       .encoding = {.codec = "replay"},
                       .etag = mutations->updated.etag,
                       .request_id = kEncodeId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(mutations->encoded, client.EncodeNode(mutations->encode));
  ASSERT_TRUE(mutations->encoded.encoding.has_value());
  mutations->drop = {.name = mutations->encode.name,
                     .what = client::DropSaved(),
                     .etag = mutations->encoded.node.etag,
                     .request_id = kDropId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(mutations->dropped, client.DropEncoding(mutations->drop));
  EXPECT_TRUE(mutations->dropped.saved_dropped);
}

void MutateFirst(const client::Client& client, Mutations* mutations) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(client, std::string("The first of all")));
  mutations->snapshot = {.session = session, .save = {.labels = {{"a", "b"}}}, .request_id = kSnapshotId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(mutations->saved, client.Snapshot(mutations->snapshot));
  mutations->generate = {.start = client::FromNode{.name = mutations->saved.node.name},
                         .input = std::string(" days"),
                         .stop = {.max_tokens = 6, .ignore_eos = true},
                         .save = client::SaveOptions{},
                         .request_id = kGenerateId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(mutations->generated, Generate(client, mutations->generate));
  mutations->update = {
      .name = mutations->saved.node.name, .note = "first", .update_mask = {"note"}, .request_id = kUpdateId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(mutations->updated, client.UpdateNode(mutations->update));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode victim, client.Snapshot({.session = session}));
  mutations->remove = {.name = victim.node.name, .request_id = kDeleteId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(mutations->deleted, client.DeleteNode(mutations->remove));
  EXPECT_EQ(mutations->deleted.deleted_nodes, 1);
  EncodeAndDropFirst(client, mutations);
}

void ExpectFirstAnswers(const client::Client& client, const Mutations& mutations) {
  const int64_t nodes = client.GetStatus()->store.nodes;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, client.Snapshot(mutations.snapshot));
  EXPECT_EQ(saved.node.name, mutations.saved.node.name);
  EXPECT_TRUE(saved.node == mutations.saved.node);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation generated, Generate(client, mutations.generate));
  EXPECT_TRUE(generated.finished.replayed);
  EXPECT_EQ(generated.text, mutations.generated.text);
  EXPECT_EQ(Ids(generated.tokens), Ids(mutations.generated.tokens));
  ASSERT_THAT(generated.saved, SizeIs(1));
  EXPECT_EQ(generated.saved[0].node.name, mutations.generated.saved.at(0).node.name);
  EXPECT_EQ(generated.finished.reason, mutations.generated.finished.reason);
  EXPECT_EQ(generated.finished.generated_tokens, mutations.generated.finished.generated_tokens);
  EXPECT_EQ(generated.finished.token_count, mutations.generated.finished.token_count);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Node updated, client.UpdateNode(mutations.update));
  EXPECT_EQ(updated, mutations.updated);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::DeleteNodeResponse deleted, client.DeleteNode(mutations.remove));
  EXPECT_EQ(deleted, mutations.deleted);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::EncodeNodeResponse encoded, client.EncodeNode(mutations.encode));
  EXPECT_EQ(encoded, mutations.encoded);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Node dropped, client.DropEncoding(mutations.drop));
  EXPECT_EQ(dropped, mutations.dropped);
  EXPECT_EQ(client.GetStatus()->store.nodes, nodes) << "a repeat changed something";
}

void ExpectOthersRefused(const client::Client& client, Mutations mutations) {
  mutations.snapshot.save.note = "another request";
  mutations.generate.input = std::string(" nights");
  mutations.update.note = "second";
  mutations.remove.force = true;
  mutations.encode.drop_saved = true;
  mutations.drop.etag.clear();
  for (const absl::Status& status :
       {ErrorOf(client.Snapshot(mutations.snapshot)), ErrorOf(Generate(client, mutations.generate)),
        ErrorOf(client.UpdateNode(mutations.update)), ErrorOf(client.DeleteNode(mutations.remove)),
        ErrorOf(client.EncodeNode(mutations.encode)), ErrorOf(client.DropEncoding(mutations.drop))}) {
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("request_id"));
  }
}

TEST(IdempotencyTest, RepeatsAreAnsweredAsAtFirstAlsoAfterARestart) {
  const TemporaryDirectory directory;
  const ServerOptions options = {.data_dir = directory / "data"};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  Mutations mutations;
  ASSERT_NO_FATAL_FAILURE(MutateFirst(server->client(), &mutations));
  ExpectFirstAnswers(server->client(), mutations);
  ExpectOthersRefused(server->client(), mutations);
  server->Kill();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  ExpectFirstAnswers(server->client(), mutations);
  ExpectOthersRefused(server->client(), mutations);
  // Without the id it is another request, and its session is gone.
  mutations.snapshot.request_id.clear();
  EXPECT_TRUE(absl::IsNotFound(server->client().Snapshot(mutations.snapshot).status()));
}

SharedServer* const kServer = SharedServer::Register();
const client::Client& Client() { return kServer->client(); }

std::string SavedState() {
  const std::string session = NewSession(Client(), std::string("A state to repeat")).value();
  return Client().Snapshot({.session = session})->node.name;
}

TEST(IdempotencyTest, SessionsAreMadeOnce) {
  const client::RestoreRequest restore{.node = SavedState(), .request_id = kRestoreId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, Client().Restore(restore));
  const client::BranchRequest branch{
      .start = client::FromSession{restored.session.name}, .seeds = {1, 2, 3}, .request_id = kBranchId};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched, Client().Branch(branch));
  const size_t sessions = Client().ListSessions({.page_size = 1000})->sessions.size();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored_again, Client().Restore(restore));
  EXPECT_EQ(restored_again.session.name, restored.session.name);
  EXPECT_EQ(restored_again.proof.tokens_reused, restored.proof.tokens_reused);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::BranchResponse branched_again, Client().Branch(branch));
  ASSERT_THAT(branched_again.sessions, SizeIs(3));
  for (int i = 0; i < 3; i++) EXPECT_EQ(branched_again.sessions[i].name, branched.sessions[i].name);
  EXPECT_THAT(Client().ListSessions({.page_size = 1000})->sessions, SizeIs(sessions));
}

TEST(IdempotencyTest, AfterARestartARepeatedRestoreGivesALiveSession) {
  const TemporaryDirectory directory;
  const ServerOptions options = {.data_dir = directory / "data"};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(server->client(), std::string("Once")));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, server->client().Snapshot({.session = session}));
  const client::RestoreRequest restore{.node = saved.node.name, .request_id = kRestoreId};
  ASSERT_TRUE(server->client().Restore(restore).ok());
  server->Kill();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse again, server->client().Restore(restore));
  EXPECT_TRUE(server->client().GetSession({.name = again.session.name}).ok());
}

TEST(IdempotencyTest, RepeatsAtTheSameTimeAreDoneOnce) {
  const std::string session = NewSession(Client(), Prose(6)).value();
  const client::SnapshotRequest request{.session = session, .request_id = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d0aa"};
  const int64_t nodes = Client().GetStatus()->store.nodes;
  std::vector<absl::StatusOr<client::SavedNode>> answers(6, absl::UnknownError("not run"));
  std::vector<std::thread> threads;
  for (auto& answer : answers) threads.emplace_back([&] { answer = Client().Snapshot(request); });
  for (std::thread& thread : threads) thread.join();
  int answered = 0;
  std::string node;
  for (const auto& answer : answers) {
    if (!answer.ok()) {
      EXPECT_TRUE(absl::IsAborted(answer.status()) || absl::IsUnavailable(answer.status())) << answer.status();
      continue;
    }
    answered++;
    if (node.empty()) node = answer->node.name;
    EXPECT_EQ(answer->node.name, node);
  }
  EXPECT_GT(answered, 0);
  EXPECT_EQ(Client().GetStatus()->store.nodes, nodes + 1);
}

TEST(IdempotencyTest, FailedRequestMayBeRepeated) {
  constexpr char kId[] = "3f0c1c52-1a60-4f0e-9d3b-0f6a52a9d0bb";
  const std::string node = SavedState();
  const std::string etag = Client().GetNode({.name = node})->etag;
  EXPECT_TRUE(absl::IsAborted(Client().DeleteNode({.name = node, .etag = "wrong", .request_id = kId}).status()));
  EXPECT_TRUE(Client().DeleteNode({.name = node, .etag = etag}).ok());
}

}  // namespace
}  // namespace quicksave::integration
