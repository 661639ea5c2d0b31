// `quicksave hidden`, and what other commands say of hidden states.

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "client/cli/json_output.h"
#include "client/cli/testing_run.h"
#include "gmock/gmock.h"

namespace quicksave::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using HiddenCommandTest = CliTest;

TEST_F(HiddenCommandTest, PrintsNormsOfALayerInARow) {
  const Result result = Run({"hidden", "7f3a"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("3       2      7.500     5.000   10.000"));
  EXPECT_THAT(result.out, HasSubstr("7       2      1.000     1.000    1.000"));
  ASSERT_THAT(server_->tap_reads, SizeIs(1));
  EXPECT_EQ(std::get<client::FromNode>(server_->tap_reads[0].source).name, "nodes/7f3a9c2100000000");
  EXPECT_THAT(server_->tap_reads[0].layers, IsEmpty());
}

TEST_F(HiddenCommandTest, EveryFlagReachesTheRequest) {
  const Result result =
      Run({"hidden", "sessions/4be1", "--layer", "3,7", "--first-token", "5", "--token-count", "2", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const client::ReadTapsRequest& request = server_->tap_reads.at(0);
  EXPECT_EQ(std::get<client::FromSession>(request.source).name, "sessions/4be1000000000000");
  EXPECT_THAT(request.layers, ElementsAre(3u, 7u));
  EXPECT_EQ(request.first_token, 5);
  EXPECT_EQ(request.token_count, 2);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["layers"], Json({3, 7}));
  EXPECT_EQ(json["norms"], Json({{5.0, 10.0}, {1.0, 1.0}}));
}

TEST_F(HiddenCommandTest, WritesASafetensorsFile) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/quicksave-hidden-test.safetensors");
  const Result result = Run({"hidden", "7f3a", "--out", path});
  ASSERT_EQ(result.code, 0) << result.err;
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::filesystem::remove(path);
  uint64_t header_bytes = 0;
  ASSERT_GT(bytes.size(), sizeof(header_bytes));
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  ASSERT_EQ(bytes.size(), sizeof(header_bytes) + header_bytes + 32);
  EXPECT_EQ(header_bytes % 8, 0u);
  const Json header = Json::parse(bytes.substr(sizeof(header_bytes), header_bytes));
  EXPECT_EQ(header["hidden_states.3"], Json({{"dtype", "F32"}, {"shape", {2, 2}}, {"data_offsets", {0, 16}}}));
  EXPECT_EQ(header["hidden_states.7"]["data_offsets"], Json({16, 32}));
  EXPECT_EQ(header["__metadata__"]["first_token"], "5");
  EXPECT_EQ(header["__metadata__"]["source"], "nodes/7f3a9c2100000000");
  float first[2];
  std::memcpy(first, bytes.data() + bytes.size() - 32, sizeof(first));
  EXPECT_THAT(first, ElementsAre(3.0F, 4.0F));
}

TEST_F(HiddenCommandTest, AFileThatCannotBeWrittenIsAnError) {
  const Result result = Run({"hidden", "7f3a", "--out", "/nowhere/at/all"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("/nowhere/at/all"));
}

TEST_F(HiddenCommandTest, GenerateTakesLayersAndTokens) {
  ASSERT_EQ(Run({"generate", "-p", "a", "--tap-layers", "10,20", "--tap-tokens", "all"}).code, 0);
  ASSERT_EQ(Run({"generate", "-p", "a", "--tap-layers", "10"}).code, 0);
  ASSERT_EQ(Run({"generate", "-p", "a", "--no-taps"}).code, 0);
  ASSERT_EQ(Run({"generate", "-p", "a"}).code, 0);
  ASSERT_THAT(server_->generated, SizeIs(4));
  EXPECT_EQ(server_->generated[0].taps, (client::TapSpec{.layers = {10, 20}, .all_tokens = true}));
  EXPECT_EQ(server_->generated[1].taps, (client::TapSpec{.layers = {10}}));
  EXPECT_EQ(server_->generated[2].taps, client::TapSpec());
  EXPECT_FALSE(server_->generated[3].taps.has_value());
  EXPECT_EQ(Run({"generate", "-p", "a", "--tap-tokens", "all"}).code, 2);
  EXPECT_EQ(Run({"generate", "-p", "a", "--tap-layers", "x"}).code, 2);
  EXPECT_EQ(Run({"generate", "-p", "a", "--tap-layers", "1", "--tap-tokens", "some"}).code, 2);
}

TEST_F(HiddenCommandTest, ShowSaysWhatIsCaptured) {
  server_->nodes[0].taps = client::Taps{.spec = {.layers = {3, 7}, .all_tokens = true},
                                        .first_token = 5,
                                        .token_count = 2,
                                        .hidden_size = 2,
                                        .bytes = 32,
                                        .stored_bytes = 30};
  EXPECT_THAT(Run({"show", "7f3a"}).out, HasSubstr("layers 3,7 of 2 tokens from 5, 32 B, stored 30 B"));
  EXPECT_EQ(Json::parse(Run({"show", "7f3a", "--json"}).out)["taps"]["layers"], Json({3, 7}));
}

}  // namespace
}  // namespace quicksave::cli
