// How each family's config.json is read. That the result computes what the family computes is decoder_families_test's.
#include "server/engine/model/model_families.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;

absl::StatusOr<ModelConfig> Load(const std::string& architecture, const Json& changes) {
  Json config = TinyConfig({.layers = 4});
  config["architectures"] = {architecture};
  for (const char* field : {"hidden_act", "rope_theta", "tie_word_embeddings"}) config.erase(field);
  config.merge_patch(changes);
  const TestFolder folder;
  folder.Write("config.json", config.dump());
  return LoadModelConfig(folder.path());
}

ModelConfig LoadGood(const std::string& architecture, const Json& changes = Json::object()) {
  const absl::StatusOr<ModelConfig> config = Load(architecture, changes);
  EXPECT_TRUE(config.ok()) << architecture << ": " << config.status();
  return config.ok() ? *config : ModelConfig();
}

void ExpectRefused(const std::string& architecture, const Json& changes, absl::StatusCode code,
                   const std::string& named) {
  const absl::StatusOr<ModelConfig> config = Load(architecture, changes);
  EXPECT_EQ(config.status().code(), code) << architecture << " " << changes << ": " << config.status();
  EXPECT_THAT(std::string(config.status().message()), testing::HasSubstr(named));
}

std::vector<int> Windows(const ModelConfig& config) {
  std::vector<int> windows;
  for (const LayerOptions& layer : config.layer_options) windows.push_back(layer.window);
  return windows;
}

std::vector<int> Ropes(const ModelConfig& config) {
  std::vector<int> ropes;
  for (const LayerOptions& layer : config.layer_options) ropes.push_back(layer.rope);
  return ropes;
}

TEST(ModelFamiliesTest, LlamaMayHaveBiases) {
  const ModelConfig plain = LoadGood("LlamaForCausalLM");
  EXPECT_FALSE(plain.query_key_value_bias || plain.attention_out_bias || plain.mlp_bias || plain.query_key_norms);
  EXPECT_EQ(plain.norms.before_mlp, "post_attention_layernorm");
  EXPECT_EQ(plain.norms.after_attention, "");
  EXPECT_EQ(plain.norm_weight_offset, 0);
  EXPECT_EQ(plain.embedding_scale, 1);
  EXPECT_FLOAT_EQ(plain.attention_scale, 1 / std::sqrt(32.0F));
  EXPECT_EQ(plain.activation, Activation::kSilu);
  EXPECT_FALSE(plain.tied_head);
  const ModelConfig biased = LoadGood("LlamaForCausalLM", {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_TRUE(biased.query_key_value_bias && biased.attention_out_bias && biased.mlp_bias);
}

TEST(ModelFamiliesTest, MistralHasOneWindowForAllLayers) {
  EXPECT_THAT(Windows(LoadGood("MistralForCausalLM", {{"sliding_window", 100}})), ElementsAre(100, 100, 100, 100));
  // Absent is not null: the reference library fills in 4,096.
  EXPECT_THAT(Windows(LoadGood("MistralForCausalLM")), ElementsAre(4096, 4096, 4096, 4096));
  Json config = TinyConfig({});
  config["architectures"] = {"MistralForCausalLM"};
  config["sliding_window"] = nullptr;
  const TestFolder folder;
  folder.Write("config.json", config.dump());
  EXPECT_THAT(Windows(*LoadModelConfig(folder.path())), ElementsAre(0, 0));
  ExpectRefused("MistralForCausalLM", {{"attention_bias", true}}, absl::StatusCode::kUnimplemented, "attention_bias");
  ExpectRefused("MistralForCausalLM",
                {{"layer_types", {"full_attention", "sliding_attention", "full_attention", "sliding_attention"}}},
                absl::StatusCode::kUnimplemented, "layer_types");
}

TEST(ModelFamiliesTest, Qwen2HasBiasesOfQueriesKeysAndValues) {
  const ModelConfig config = LoadGood("Qwen2ForCausalLM", {{"rope_theta", 1e6}});
  EXPECT_TRUE(config.query_key_value_bias);
  EXPECT_FALSE(config.attention_out_bias || config.mlp_bias || config.query_key_norms);
  EXPECT_EQ(config.ropes[0].theta, 1e6);
  ExpectRefused("Qwen2ForCausalLM", {{"mlp_bias", true}}, absl::StatusCode::kUnimplemented, "mlp_bias");
  ExpectRefused("Qwen2ForCausalLM", {{"rope_scaling", {{"type", "yarn"}, {"factor", 4.0}}}},
                absl::StatusCode::kUnimplemented, "yarn");
  ExpectRefused("Qwen2ForCausalLM", {{"rope_scaling", {{"type", "mrope"}, {"mrope_section", {16, 24, 24}}}}},
                absl::StatusCode::kUnimplemented, "mrope");
}

TEST(ModelFamiliesTest, QwenHasWindowsOnRequestOnly) {
  for (const std::string architecture : {"Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    Json json = {{"sliding_window", 50}, {"max_window_layers", 3}};
    EXPECT_THAT(Windows(LoadGood(architecture, json)), ElementsAre(0, 0, 0, 0));
    json["use_sliding_window"] = true;
    EXPECT_THAT(Windows(LoadGood(architecture, json)), ElementsAre(0, 0, 0, 50));
    json["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention", "full_attention"};
    EXPECT_THAT(Windows(LoadGood(architecture, json)), ElementsAre(50, 0, 50, 0));
    json["use_sliding_window"] = false;
    ExpectRefused(architecture, json, absl::StatusCode::kInvalidArgument, "sliding_window");
  }
}

TEST(ModelFamiliesTest, Qwen3HasNormsOfQueriesAndKeys) {
  const ModelConfig config = LoadGood("Qwen3ForCausalLM");
  EXPECT_TRUE(config.query_key_norms);
  EXPECT_FALSE(config.query_key_value_bias);
  Json json = TinyConfig({});
  json["architectures"] = {"Qwen3ForCausalLM"};
  json.erase("head_dim");
  const TestFolder folder;
  folder.Write("config.json", json.dump());
  EXPECT_EQ(LoadModelConfig(folder.path())->head_dim, 128) << "not hidden_size / num_attention_heads";
}

TEST(ModelFamiliesTest, Gemma2CapsAndAlternates) {
  const ModelConfig config = LoadGood("Gemma2ForCausalLM", {{"sliding_window", 64}, {"query_pre_attn_scalar", 144}});
  EXPECT_EQ(config.attention_soft_cap, 50);
  EXPECT_EQ(config.logit_soft_cap, 30);
  EXPECT_THAT(Windows(config), ElementsAre(64, 0, 64, 0));
  EXPECT_THAT(Ropes(config), ElementsAre(0, 0, 0, 0));
  EXPECT_FLOAT_EQ(config.attention_scale, 1 / 12.0F);
  EXPECT_FALSE(config.query_key_norms);
  EXPECT_EQ(LoadGood("Gemma2ForCausalLM", {{"final_logit_softcapping", 20.0}}).logit_soft_cap, 20);
}

TEST(ModelFamiliesTest, Gemma3HasLocalAndGlobalLayers) {
  const ModelConfig config = LoadGood("Gemma3ForCausalLM", {{"sliding_window", 64}, {"sliding_window_pattern", 3}});
  EXPECT_THAT(Windows(config), ElementsAre(64, 64, 0, 64));
  EXPECT_THAT(Ropes(config), ElementsAre(1, 1, 0, 1));
  EXPECT_EQ(config.ropes[0].theta, 1e6);
  EXPECT_EQ(config.ropes[1].theta, 1e4);
  EXPECT_EQ(config.activation, Activation::kGeluTanh);
  EXPECT_EQ(config.embedding_scale, 8);
  EXPECT_EQ(config.norm_weight_offset, 1);
  EXPECT_EQ(config.norms.after_attention, "post_attention_layernorm");
  EXPECT_EQ(config.norms.before_mlp, "pre_feedforward_layernorm");
  EXPECT_TRUE(config.query_key_norms && config.tied_head);
  EXPECT_EQ(config.attention_scale, 1 / 16.0F) << "query_pre_attn_scalar is 256 unless it is given";
  EXPECT_EQ(config.attention_soft_cap, 0);
  EXPECT_EQ(config.logit_soft_cap, 0);
}

TEST(ModelFamiliesTest, Gemma3sFrequenciesInOldAndNewWriting) {
  const ModelConfig old = LoadGood("Gemma3ForCausalLM", {{"rope_theta", 5e5},
                                                         {"rope_local_base_freq", 2e4},
                                                         {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}});
  EXPECT_EQ(old.ropes[0].theta, 5e5);
  EXPECT_EQ(old.ropes[0].linear_factor, 8);
  EXPECT_EQ(old.ropes[1].theta, 2e4);
  EXPECT_EQ(old.ropes[1].linear_factor, 1);
  const Json full = {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 5e5}};
  const ModelConfig modern =
      LoadGood("Gemma3ForCausalLM",
               {{"rope_parameters",
                 {{"full_attention", full}, {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 2e4}}}}}});
  EXPECT_EQ(modern.ropes[0].theta, 5e5);
  EXPECT_EQ(modern.ropes[0].linear_factor, 8);
  EXPECT_EQ(modern.ropes[1].theta, 2e4);
  ExpectRefused("Gemma3ForCausalLM", {{"rope_parameters", {{"chunked_attention", full}}}},
                absl::StatusCode::kUnimplemented, "chunked_attention");
  ExpectRefused("LlamaForCausalLM", {{"rope_parameters", {{"full_attention", full}}}}, absl::StatusCode::kUnimplemented,
                "full_attention");
}

TEST(ModelFamiliesTest, Gemma3RefusesByNameWhatItCannotRun) {
  for (const Json& changes : {Json{{"attn_logit_softcapping", 50.0}}, Json{{"use_bidirectional_attention", true}},
                              Json{{"hidden_activation", "gelu"}}, Json{{"vision_config", {{"layers", 2}}}}}) {
    ExpectRefused("Gemma3ForCausalLM", changes, absl::StatusCode::kUnimplemented, changes.begin().key());
  }
  const Json chunked = {"chunked_attention", "full_attention", "full_attention", "full_attention"};
  ExpectRefused("Gemma3ForCausalLM", {{"layer_types", chunked}}, absl::StatusCode::kUnimplemented, "chunked_attention");
  ExpectRefused("Gemma3ForCausalLM", {{"layer_types", {"full_attention"}}}, absl::StatusCode::kInvalidArgument,
                "layer_types");
}

TEST(ModelFamiliesTest, OtherArchitecturesAreRefusedByName) {
  for (const std::string architecture :
       {"MixtralForCausalLM", "Qwen3MoeForCausalLM", "GptOssForCausalLM", "BloomForCausalLM",
        "Gemma3ForConditionalGeneration", "Qwen2VLForConditionalGeneration", "Phi3ForCausalLM"}) {
    ExpectRefused(architecture, Json::object(), absl::StatusCode::kUnimplemented, architecture);
  }
  ExpectRefused("PhiForCausalLM", Json::object(), absl::StatusCode::kUnimplemented, "Gemma3ForCausalLM");
}

}  // namespace
}  // namespace quicksave::engine
