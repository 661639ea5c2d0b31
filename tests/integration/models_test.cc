// Models: one is refused another's states; weights may be stored in several ways; what cannot be run is refused at
// start.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/generation.h"
#include "tests/integration/model_variant.h"
#include "tests/integration/server_process.h"
#include "tests/integration/temporary_directory.h"

namespace quicksave::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr int kShortContext = 64;

// What a model says, to every bit that can be seen from outside.
client::ScoreResponse Scores(const client::Client& client) {
  const absl::StatusOr<std::string> session = NewSession(client, std::string("It was a dark and stormy"));
  EXPECT_TRUE(session.ok()) << session.status();
  if (!session.ok()) return {};
  return client
      .Score(
          {.start = client::FromSession{*session}, .continuations = {std::string(" night; the rain")}, .top_k = 1000})
      .value();
}

// The context's end, in a model with a short one.
void ExpectContextEnds(const client::Client& client) {
  const std::vector<int32_t> prompt(kShortContext - 4, 504);
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(
      const Generation filled,
      Generate(client, {.input = prompt, .stop = {.max_tokens = 100, .ignore_eos = true}, .keep_session = true}));
  EXPECT_EQ(filled.finished.reason, client::FinishReason::kContextFull);
  EXPECT_EQ(filled.finished.token_count, kShortContext);
  EXPECT_EQ(filled.finished.generated_tokens, 4);
  const client::FromSession full{filled.finished.session};
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const Generation more, GoOn(client, full, 5));
  EXPECT_EQ(more.finished.reason, client::FinishReason::kContextFull);
  EXPECT_THAT(more.tokens, IsEmpty());
  for (const client::GenerateRequest& request : std::vector<client::GenerateRequest>{
           {.start = full, .input = std::vector<int32_t>{504}, .stop = {.max_tokens = 1}},
           {.input = std::vector<int32_t>(kShortContext + 1, 504), .stop = {.max_tokens = 0}}}) {
    const absl::Status refused = ErrorOf(Generate(client, request));
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(std::to_string(kShortContext)));
  }
  const absl::Status scored = ErrorOf(client.Score({.start = full, .continuations = {std::string(" a b c")}}));
  EXPECT_TRUE(absl::IsInvalidArgument(scored)) << scored;
  // A full state is saved and restored like any other.
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::SavedNode saved, client.Snapshot({.session = full.name}));
  EXPECT_TRUE(client.Restore({.node = saved.node.name}).ok());
}

void ExpectOtherModelsNodeRefused(const client::Client& client, const std::string& node) {
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const client::Node other, client.GetNode({.name = node, .view = client::View::kFull}));
  const std::string own = client.GetStatus()->model.fingerprint;
  EXPECT_NE(other.model_fingerprint, own);
  for (const absl::Status& status :
       {ErrorOf(client.Restore({.node = node})), ErrorOf(GoOn(client, client::FromNode{.name = node}, 1)),
        ErrorOf(client.Branch({.start = client::FromNode{.name = node}, .count = 2})),
        ErrorOf(client.Score({.start = client::FromNode{.name = node}, .continuations = {std::string("a")}})),
        ErrorOf(client.VerifyNode({.name = node, .replay = true}))}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(other.model_fingerprint));
    EXPECT_THAT(std::string(status.message()), HasSubstr(own));
  }
  EXPECT_TRUE(client.VerifyNode({.name = node}).ok()) << "its bytes can be checked by any model";
  EXPECT_THAT(client.ListNodes({.filter = {.model_fingerprint = own}})->nodes, IsEmpty());
  EXPECT_THAT(client.ListNodes({.filter = {.model_fingerprint = other.model_fingerprint}})->nodes, Not(IsEmpty()));
}

TEST(ModelsTest, WeightsMayBeStoredInSeveralWaysButOtherModelsNodesAreRefused) {
  const TemporaryDirectory directory;
  LinkModel(directory / "short");
  ChangeConfig(directory / "short", {{"max_position_embeddings", kShortContext}});
  LinkModel(directory / "sharded");
  SplitWeights(directory / "sharded");
  LinkModel(directory / "untied");
  UntieHead(directory / "untied");
  const std::string data = directory / "data";
  std::string node;
  client::ScoreResponse expected;
  std::vector<std::string> fingerprints;
  for (const std::string& model :
       {directory / "short", ModelDirectory(), directory / "sharded", directory / "untied"}) {
    SCOPED_TRACE(model);
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ServerProcess> server,
                                   ServerProcess::Start({.data_dir = data, .model_dir = model}));
    const client::Client& client = server->client();
    const client::ScoreResponse scores = Scores(client);
    fingerprints.push_back(client.GetStatus()->model.fingerprint);
    if (node.empty()) {
      expected = scores;
      ExpectContextEnds(client);
      node = client.Snapshot({.session = NewSession(client, std::string("Another model's")).value()})->node.name;
      continue;
    }
    EXPECT_TRUE(scores == expected) << "the same weights give other logits";
    ExpectOtherModelsNodeRefused(client, node);
  }
  std::sort(fingerprints.begin(), fingerprints.end());
  EXPECT_EQ(std::unique(fingerprints.begin(), fingerprints.end()), fingerprints.end());
}

// A model that is refused: what is done to a good one, and what the server's last line names.
struct BrokenModel {
  std::function<void(const std::filesystem::path&)> damage;
  std::string names;
};

std::vector<BrokenModel> BrokenModels() {
  using Path = std::filesystem::path;
  const auto config = [](nlohmann::json changes) {
    return [changes = std::move(changes)](const Path& path) { ChangeConfig(path, changes); };
  };
  const auto without = [](const std::string& file) {
    return [file](const Path& path) { std::filesystem::remove(path / file); };
  };
  return {
      {config({{"architectures", {"MixtralForCausalLM"}}}), "MixtralForCausalLM"},
      {config({{"architectures", {"Qwen2ForCausalLM"}}}), "q_proj.bias"},
      {config({{"sliding_window", 4096}}), "sliding_window"},
      {config({{"attention_bias", true}}), "q_proj.bias"},
      {config({{"hidden_act", "gelu"}}), "gelu"},
      {config({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}}}), "yarn"},
      {config({{"hidden_size", nullptr}}), "hidden_size"},
      {config({{"num_hidden_layers", 31}}), "layers.30"},
      {config({{"num_hidden_layers", 29}}), "layers.29"},
      {config({{"vocab_size", 49153}}), "embed_tokens"},
      {config({{"quantization_config", {{"quant_method", "gptq"}}}}), "quantization_config"},
      {without("config.json"), "config.json"},
      {without("tokenizer.json"), "tokenizer.json"},
      {without("model.safetensors"), "safetensors"},
      {[](const Path& path) { TruncateWeights(path, 1 << 20); }, "safetensors"},
      {[](const Path& path) { TruncateWeights(path, 5); }, "safetensors"},
      {[](const Path& path) {
         std::filesystem::remove(path / "config.json");
         std::ofstream(path / "config.json") << "{\"architectures\": [";
       },
       "config.json"},
  };
}

TEST(ModelsTest, ModelThatCannotBeRunIsRefusedAtStartWithTheReason) {
  for (const BrokenModel& broken : BrokenModels()) {
    SCOPED_TRACE(broken.names);
    const TemporaryDirectory directory;
    LinkModel(directory / "model");
    broken.damage(directory / "model");
    std::string log;
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(
        const ProcessEnd end,
        ServerProcess::RunToEnd({.data_dir = directory / "data", .model_dir = directory / "model"}, &log));
    EXPECT_EQ(end.exit_code, 1) << "signal " << end.signal << "\n" << log;
    EXPECT_THAT(log, HasSubstr(broken.names));
    EXPECT_THAT(log, Not(HasSubstr("terminate"))) << "no exception gets out";
    std::vector<std::string> errors;
    std::istringstream lines(log);
    for (std::string line; std::getline(lines, line);) {
      if (line.find(" error ") != std::string::npos) errors.push_back(line);
    }
    EXPECT_THAT(errors, SizeIs(1)) << log;
  }
}

TEST(ModelsTest, WrongFlagsAreRefusedInOneLine) {
  const TemporaryDirectory directory;
  for (const std::string flag : {"--no-such-flag", "--kv-memory=lots", "--listen=nowhere", "--durability=maybe",
                                 "--max-sessions=0", "--kv-memory=1PiB", "--device=abacus"}) {
    std::string log;
    QUICKSAVE_ASSERT_OK_AND_ASSIGN(const ProcessEnd end,
                                   ServerProcess::RunToEnd({.data_dir = directory / "data", .flags = {flag}}, &log));
    EXPECT_EQ(end.exit_code, 2) << log;
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
    EXPECT_THAT(log, HasSubstr(flag.substr(0, flag.find('='))));
  }
}

TEST(ModelsTest, StoreInUseIsRefused) {
  const TemporaryDirectory directory;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ServerProcess> server,
                                 ServerProcess::Start({.data_dir = directory / "data"}));
  std::string log;
  QUICKSAVE_ASSERT_OK_AND_ASSIGN(const ProcessEnd end, ServerProcess::RunToEnd({.data_dir = directory / "data"}, &log));
  EXPECT_EQ(end.exit_code, 1) << log;
  EXPECT_THAT(log, HasSubstr(directory / "data"));
  EXPECT_TRUE(server->client().GetStatus().ok());
}

}  // namespace
}  // namespace quicksave::integration
