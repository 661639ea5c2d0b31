// Hidden states with the real model over the wire: captured, saved, killed, restored, branched, rewound, refused.

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/shared_server.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;

constexpr int kHidden = 576;
constexpr int kLayers = 30;

SharedServer* const kServer = SharedServer::Register({"--max-tap-bytes-per-session=32MiB"});
const client::Client& Client() { return kServer->client(); }

// Embeddings, the middle, after the final norm and before it.
const client::TapSpec kAll{.layers = {0, 15, kLayers, kLayers + 1}, .all_tokens = true};

absl::StatusOr<client::HiddenStates> ReadNode(const client::Client& client, const std::string& node) {
  return client.ReadTaps({.source = client::FromNode{.name = node}});
}
absl::StatusOr<client::HiddenStates> ReadSession(const client::Client& client, const std::string& session) {
  return client.ReadTaps({.source = client::FromSession{session}});
}

// Values of layer `layer` (an index) of the tokens from `first` on.
std::vector<float> Rows(const client::HiddenStates& states, int layer, int first, int count) {
  const size_t begin = (size_t(layer) * states.token_count + (first - states.first_token)) * kHidden;
  return {states.values.begin() + begin, states.values.begin() + begin + size_t(count) * kHidden};
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Generates after a text, capturing, and saves; the session stays.
absl::StatusOr<Generation> GenerateTapped(const client::Client& client, const client::Input& input, int tokens,
                                          const client::TapSpec& taps) {
  return Generate(client, {.input = input,
                           .stop = {.max_tokens = tokens, .ignore_eos = true},
                           .taps = taps,
                           .save = client::SaveOptions{},
                           .keep_session = true});
}

TEST(TapsTest, LiveSavedKilledAndRestoredStatesHaveTheSameBits) {
  const TemporaryDirectory directory;
  const ServerOptions options = {.data_dir = directory / "data"};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, GenerateTapped(server->client(), Prose(12), 20, kAll));
  const client::Node& node = first.saved.at(0).node;
  const int tokens = node.token_count;
  ASSERT_GT(tokens, 150);
  ASSERT_TRUE(node.taps.has_value());
  EXPECT_EQ(node.taps->spec, kAll);
  EXPECT_EQ(node.taps->first_token, 0);
  EXPECT_EQ(node.taps->token_count, tokens);
  EXPECT_EQ(node.taps->bytes, int64_t{4} * tokens * kHidden * 4);
  EXPECT_GT(node.taps->stored_bytes, 0);
  EXPECT_LT(node.taps->stored_bytes, node.taps->bytes);
  EXPECT_GE(node.storage.added_bytes, node.storage.stored_bytes + node.taps->stored_bytes);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates live,
                                 ReadSession(server->client(), first.finished.session));
  EXPECT_EQ(live.layers, kAll.layers);
  EXPECT_EQ(live.hidden_size, kHidden);
  EXPECT_EQ(live.token_count, tokens);
  ASSERT_EQ(live.values.size(), size_t(4) * tokens * kHidden);
  EXPECT_EQ(ReadNode(server->client(), node.name).value(), live);

  server->Kill();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  EXPECT_EQ(ReadNode(server->client(), node.name).value(), live);
  EXPECT_EQ(server->client().GetStatus()->engine.sessions, 0) << "reading restores nothing";
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored, server->client().Restore({.node = node.name}));
  EXPECT_EQ(restored.proof.check.outcome, client::CheckOutcome::kIdentical);
  ASSERT_TRUE(restored.session.taps.has_value());
  EXPECT_EQ(restored.session.taps->token_count, tokens);
  EXPECT_EQ(ReadSession(server->client(), restored.session.name).value(), live);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::VerifyNodeResponse verified,
                                 server->client().VerifyNode({.name = node.name, .replay = true}));
  EXPECT_EQ(verified.tokens_replayed, tokens);
  EXPECT_EQ(verified.blocks_checked, node.storage.blocks + 4 * ((tokens + 127) / 128));

  // It goes on capturing, and what was decoded has the bits of a prefill of the same tokens.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation more,
                                 GoOn(server->client(), client::FromSession{restored.session.name}, 10));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates longer,
                                 ReadSession(server->client(), restored.session.name));
  EXPECT_EQ(longer.token_count, tokens + 10);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::Session whole,
      server->client().GetSession({.name = restored.session.name, .view = client::View::kFull}));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation prefill, GenerateTapped(server->client(), whole.token_ids, 0, kAll));
  EXPECT_EQ(ReadSession(server->client(), prefill.finished.session).value(), longer);
}

TEST(TapsTest, BranchesShareThemAndGoTheirOwnWays) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation parent, GenerateTapped(Client(), Prose(3), 5, kAll));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates before, ReadSession(Client(), parent.finished.session));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const client::BranchResponse branched,
      Client().Branch(
          {.start = client::FromSession{parent.finished.session}, .seeds = {1, 2}, .sampling = {.temperature = 1.5F}}));
  std::vector<client::HiddenStates> states;
  for (const client::Session& branch : branched.sessions) {
    EXPECT_EQ(ReadSession(Client(), branch.name).value(), before);
    ASSERT_TRUE(GoOn(Client(), client::FromSession{branch.name}, 6).ok());
    states.push_back(ReadSession(Client(), branch.name).value());
  }
  const int tokens = before.token_count;
  for (int layer = 0; layer < 4; layer++) {
    for (const client::HiddenStates& branch : states) {
      EXPECT_EQ(branch.token_count, tokens + 6);
      EXPECT_TRUE(SameBits(Rows(branch, layer, 0, tokens), Rows(before, layer, 0, tokens)));
    }
    EXPECT_FALSE(SameBits(Rows(states[0], layer, 0, tokens + 6), Rows(states[1], layer, 0, tokens + 6)));
  }
  EXPECT_EQ(ReadSession(Client(), parent.finished.session).value(), before);
}

TEST(TapsTest, RewindingTruncates) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation all, GenerateTapped(Client(), Prose(12), 0, kAll));
  const std::string node = all.saved.at(0).node.name;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates whole, ReadNode(Client(), node));
  for (const int at : {1, 40, 128, 129}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::RestoreResponse restored,
                                   Client().Restore({.node = node, .at_token = at}));
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates rewound, ReadSession(Client(), restored.session.name));
    EXPECT_EQ(rewound.token_count, at);
    for (int layer = 0; layer < 4; layer++) {
      EXPECT_TRUE(SameBits(Rows(rewound, layer, 0, at), Rows(whole, layer, 0, at)));
    }
    EXPECT_TRUE(Client().DeleteSession({.name = restored.session.name}).ok());
  }
  // The last token's are those of the token that is last now.
  const client::TapSpec last{.layers = kAll.layers};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation tapped, GenerateTapped(Client(), Prose(12), 0, last));
  for (const bool skip_check : {false, true}) {
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const client::RestoreResponse restored,
        Client().Restore({.node = tapped.saved.at(0).node.name, .at_token = 100, .skip_check = skip_check}));
    EXPECT_EQ(restored.session.taps->token_count, skip_check ? 0 : 1);
    if (skip_check) {
      EXPECT_EQ(client::ErrorReason(ErrorOf(ReadSession(Client(), restored.session.name))), "NOT_TAPPED");
      ASSERT_TRUE(
          Generate(Client(), {.start = client::FromSession{restored.session.name}, .stop = {.max_tokens = 0}}).ok());
    }
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates rewound, ReadSession(Client(), restored.session.name));
    EXPECT_EQ(rewound.first_token, 99);
    ASSERT_EQ(rewound.token_count, 1);
    for (int layer = 0; layer < 4; layer++) {
      EXPECT_TRUE(SameBits(Rows(rewound, layer, 99, 1), Rows(whole, layer, 99, 1)));
    }
  }
}

TEST(TapsTest, TheLastTokenOfAnyNodeCanBeHadWithoutGenerating) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation all, GenerateTapped(Client(), Prose(5), 0, kAll));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates whole, ReadNode(Client(), all.saved.at(0).node.name));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::string session, NewSession(Client(), Prose(5)));
  EXPECT_EQ(client::ErrorReason(ErrorOf(ReadSession(Client(), session))), "NOT_TAPPED");
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation tapped, Generate(Client(), {.start = client::FromSession{session},
                                                                              .stop = {.max_tokens = 0},
                                                                              .taps = client::TapSpec{{15}}}));
  EXPECT_EQ(tapped.finished.token_count, whole.token_count);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates last, ReadSession(Client(), session));
  EXPECT_EQ(last.first_token, whole.token_count - 1);
  EXPECT_TRUE(SameBits(last.values, Rows(whole, 1, whole.token_count - 1, 1)));
  // Without layers it ends.
  ASSERT_TRUE(
      Generate(Client(), {.start = client::FromSession{session}, .stop = {.max_tokens = 1}, .taps = client::TapSpec()})
          .ok());
  EXPECT_FALSE(Client().GetSession({.name = session})->taps.has_value());
}

TEST(TapsTest, ManyMegabytesAreStreamedAndPartsCanBeChosen) {
  client::TapSpec everything{.all_tokens = true};
  for (uint32_t layer = 0; layer <= kLayers + 1; layer++) everything.layers.push_back(layer);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation all, GenerateTapped(Client(), Prose(14), 0, everything));
  const std::string node = all.saved.at(0).node.name;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates whole, ReadNode(Client(), node));
  EXPECT_GT(whole.values.size() * sizeof(float), size_t{10} << 20);
  const std::string session = all.finished.session;
  EXPECT_EQ(ReadSession(Client(), session).value(), whole);
  EXPECT_GE(Client().GetStatus()->engine.tap_bytes, static_cast<int64_t>(whole.values.size() * sizeof(float)));
  for (const auto& [first, count] : {std::pair(0, 1), {127, 2}, {5, 140}, {whole.token_count - 1, 1}}) {
    for (const client::Start& source :
         std::vector<client::Start>{client::FromSession{session}, client::FromNode{node}}) {
      QUICKSAVE_ASSERT_OK_AND_ASSIGN(
          const client::HiddenStates part,
          Client().ReadTaps({.source = source, .layers = {20, 3}, .first_token = first, .token_count = count}));
      EXPECT_EQ(part.layers, (std::vector<uint32_t>{3, 20}));
      EXPECT_EQ(part.first_token, first);
      EXPECT_EQ(part.token_count, count);
      EXPECT_TRUE(SameBits(Rows(part, 0, first, count), Rows(whole, 3, first, count)));
      EXPECT_TRUE(SameBits(Rows(part, 1, first, count), Rows(whole, 20, first, count)));
    }
  }
}

TEST(TapsTest, ASessionThatIsGeneratingIsReadAsOfNow) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation begun, GenerateTapped(Client(), Prose(3), 0, kAll));
  const std::string session = begun.finished.session;
  std::thread generating([&] { EXPECT_TRUE(GoOn(Client(), client::FromSession{session}, 60).ok()); });
  int reads = 0;
  int tokens = 0;
  const absl::Time deadline = absl::Now() + absl::Minutes(2);
  while (tokens < begun.finished.token_count + 60) {
    if (absl::Now() > deadline) break;
    const absl::StatusOr<client::HiddenStates> states = ReadSession(Client(), session);
    if (!states.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(states.status())) << states.status();
      continue;
    }
    EXPECT_GE(states->token_count, tokens);
    EXPECT_EQ(states->first_token, 0);
    tokens = states->token_count;
    reads++;
  }
  generating.join();
  EXPECT_EQ(tokens, begun.finished.token_count + 60);
  EXPECT_GT(reads, 1);
}

TEST(TapsTest, TooManyAreRefusedWithTheLimit) {
  const int sessions = Client().GetStatus()->engine.sessions;
  client::GenerateRequest request{.input = Prose(3), .stop = {.max_tokens = 4000}, .taps = kAll};
  const absl::Status refused = ErrorOf(Generate(Client(), request));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("max_tap_bytes_per_session"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("33554432"));
  EXPECT_EQ(Client().GetStatus()->engine.sessions, sessions);
  EXPECT_EQ(Client().GetStatus()->limits.max_tap_bytes_per_session, 32 << 20);
  // A session that is refused is as it was.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation begun, GenerateTapped(Client(), Prose(3), 2, kAll));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates before, ReadSession(Client(), begun.finished.session));
  request = {.start = client::FromSession{begun.finished.session},
             .stop = {.max_tokens = 4000},
             .taps = client::TapSpec{.layers = {1, 2, 3, 4}, .all_tokens = true}};
  EXPECT_EQ(ErrorOf(Generate(Client(), request)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadSession(Client(), begun.finished.session).value(), before);
}

TEST(TapsTest, ANodeOfMoreThanTheLimitIsRefusedForGoodAndUsedWithout) {
  const TemporaryDirectory directory;
  ServerOptions options = {.data_dir = directory / "data"};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation all, GenerateTapped(server->client(), Prose(3), 0, kAll));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation last,
                                 GenerateTapped(server->client(), Prose(3), 0, {.layers = kAll.layers}));
  server->Signal(SIGTERM);
  ASSERT_EQ(server->WaitForEnd()->exit_code, 0);
  // A token takes 9 KiB.
  options.flags = {"--max-tap-bytes-per-session=8KiB"};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  const client::Client& client = server->client();
  const std::string node = all.saved.at(0).node.name;
  for (const client::RestoreRequest& request :
       {client::RestoreRequest{.node = node}, client::RestoreRequest{.node = last.saved.at(0).node.name},
        client::RestoreRequest{.node = last.saved.at(0).node.name, .at_token = 5},
        client::RestoreRequest{.node = last.saved.at(0).node.name, .at_token = 5, .skip_check = true}}) {
    const absl::Status refused = ErrorOf(client.Restore(request));
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("max_tap_bytes_per_session"));
    EXPECT_FALSE(client::ErrorRetryDelay(refused).has_value()) << "it will be as large the next time";
  }
  EXPECT_TRUE(ReadNode(client, node).ok());
  EXPECT_TRUE(client.Score({.start = client::FromNode{node}, .continuations = {std::string("a")}}).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation more,
      Generate(client, {.start = client::FromNode{node}, .stop = {.max_tokens = 1}, .taps = client::TapSpec()}));
  EXPECT_EQ(more.started.reused_tokens, all.finished.token_count);
}

TEST(TapsTest, AllSessionsTogetherAreBounded) {
  const TemporaryDirectory directory;
  // A token takes 9 KiB.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Start({.data_dir = directory / "data",
                            .flags = {"--max-tap-bytes-per-session=1536KiB", "--max-tap-bytes=1536KiB"}}));
  const client::Client& client = server->client();
  EXPECT_EQ(client.GetStatus()->limits.max_tap_bytes, 3 << 19);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, GenerateTapped(client, Prose(4), 0, kAll));
  ASSERT_GT(first.saved.at(0).node.taps->bytes, 1 << 18);
  ASSERT_TRUE(client.Restore({.node = first.saved.at(0).node.name}).ok());
  const auto expect_refused = [&](const absl::Status& refused) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("max_tap_bytes: "));
    EXPECT_TRUE(client::ErrorRetryDelay(refused).has_value());
  };
  absl::Status refused;
  for (int sessions = 2; sessions < 6 && refused.ok(); ++sessions) {
    refused = ErrorOf(client.Restore({.node = first.saved.at(0).node.name}));
  }
  expect_refused(refused);
  expect_refused(ErrorOf(GenerateTapped(client, Prose(5), 0, kAll)));
  EXPECT_LE(client.GetStatus()->engine.tap_bytes, 3 << 19);
  ASSERT_TRUE(client.DeleteSession({.name = first.finished.session}).ok());
  EXPECT_TRUE(client.Restore({.node = first.saved.at(0).node.name}).ok());
}

TEST(TapsTest, SavesOnTheWayShareTheirBlocks) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation first, GenerateTapped(Client(), Prose(24, 3), 0, kAll));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation more,
                                 Generate(Client(), {.start = client::FromSession{first.finished.session},
                                                     .stop = {.max_tokens = 4, .ignore_eos = true},
                                                     .save = client::SaveOptions{},
                                                     .save_every_tokens = 2}));
  ASSERT_EQ(more.saved.size(), 2u);
  for (const client::SavedNode& saved : more.saved) {
    EXPECT_LT(saved.node.storage.added_bytes, first.saved.at(0).node.storage.added_bytes / 2);
    EXPECT_TRUE(Client().VerifyNode({.name = saved.node.name, .replay = true}).ok());
  }
  ASSERT_TRUE(Client().DeleteNode({.name = first.saved.at(0).node.name, .force = true}).ok());
  EXPECT_TRUE(ReadSession(Client(), first.finished.session).ok());
}

TEST(TapsTest, AllTokensAreComputedWhateverIsKnownOfTheBeginning) {
  const TemporaryDirectory directory;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Start({.data_dir = directory / "data", .flags = {"!--no-prefix-cache"}}));
  const client::Client& client = server->client();
  const std::string text = Prose(6);
  ASSERT_TRUE(NewSession(client, text).ok());
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation all, GenerateTapped(client, text, 0, kAll));
  EXPECT_EQ(all.started.shared_tokens, 0);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates whole, ReadNode(client, all.saved.at(0).node.name));
  EXPECT_EQ(whole.token_count, all.finished.token_count);
  // The last token alone is fed again.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation last, GenerateTapped(client, text, 0, {.layers = kAll.layers}));
  EXPECT_EQ(last.started.shared_tokens, all.finished.token_count);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates row, ReadNode(client, last.saved.at(0).node.name));
  ASSERT_EQ(row.token_count, 1);
  for (int layer = 0; layer < 4; layer++) {
    EXPECT_TRUE(SameBits(Rows(row, layer, row.first_token, 1), Rows(whole, layer, row.first_token, 1)));
  }
}

TEST(TapsTest, ParkedSessionsKeepThem) {
  const TemporaryDirectory directory;
  // Memory for 45 pages: sessions of 14 pages each park one another.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<ServerProcess> server,
      ServerProcess::Start({.data_dir = directory / "data", .flags = {"--kv-memory=16MiB"}}));
  const client::Client& client = server->client();
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation begun, GenerateTapped(client, Prose(14), 0, kAll));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::HiddenStates before, ReadSession(client, begun.finished.session));
  for (int i = 1; i <= 4; i++) ASSERT_TRUE(NewSession(client, Prose(14, i)).ok());
  const client::Session parked = client.GetSession({.name = begun.finished.session}).value();
  EXPECT_TRUE(parked.parked);
  EXPECT_EQ(parked.taps->token_count, before.token_count);
  EXPECT_EQ(client.GetStatus()->engine.tap_bytes, 0);
  EXPECT_EQ(ReadSession(client, begun.finished.session).value(), before);
  ASSERT_TRUE(GoOn(client, client::FromSession{begun.finished.session}, 3).ok());
  EXPECT_EQ(ReadSession(client, begun.finished.session)->token_count, before.token_count + 3);
}

TEST(TapsTest, DamageIsDataLossThatNamesTheNode) {
  const TemporaryDirectory directory;
  const ServerOptions options = {.data_dir = directory / "data"};
  client::TapSpec everything{.all_tokens = true};
  for (uint32_t layer = 0; layer <= kLayers + 1; layer++) everything.layers.push_back(layer);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(std::unique_ptr<ServerProcess> server, ServerProcess::Start(options));
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation saved, GenerateTapped(server->client(), Prose(12), 0, everything));
  const std::string node = saved.saved.at(0).node.name;
  server->Signal(SIGTERM);
  ASSERT_EQ(server->WaitForEnd()->exit_code, 0);
  int damaged = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(options.data_dir)) {
    if (entry.path().extension() != ".blob") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    // How a block of hidden states begins.
    const size_t at = bytes.find("QSRB");
    if (at == std::string::npos) continue;
    file.seekp(static_cast<std::streamoff>(at + 5000));
    file.put(static_cast<char>(~bytes[at + 5000]));
    damaged++;
  }
  ASSERT_GE(damaged, 1);

  QUICKSAVE_ASSERT_OK_AND_ASSIGN(server, ServerProcess::Start(options));
  const client::Client& client = server->client();
  for (const absl::Status& status : {ErrorOf(ReadNode(client, node)), ErrorOf(client.Restore({.node = node})),
                                     ErrorOf(client.VerifyNode({.name = node}))}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(node));
    EXPECT_THAT(std::string(status.message()), HasSubstr("hidden states of layer"));
  }
  EXPECT_TRUE(client.DeleteNode({.name = node}).ok());
  EXPECT_EQ(client.CollectGarbage()->removed_blocks, 0);
  EXPECT_EQ(client.GetStatus()->store.blocks, 0);
}

}  // namespace
}  // namespace quicksave::integration
