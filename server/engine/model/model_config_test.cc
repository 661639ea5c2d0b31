#include "server/engine/model/model_config.h"

#include <cmath>
#include <filesystem>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

absl::StatusOr<ModelConfig> Load(const Json& config, const Json& generation = {}) {
  const TestFolder folder;
  folder.Write("config.json", config.dump());
  if (!generation.is_null()) folder.Write("generation_config.json", generation.dump());
  return LoadModelConfig(folder.path());
}

absl::StatusOr<ModelConfig> LoadWith(const char* field, const Json& value) {
  Json config = TinyConfig({});
  config[field] = value;
  return Load(config);
}

// The status has this code, and its message names this.
void ExpectRefused(const absl::StatusOr<ModelConfig>& config, absl::StatusCode code, const std::string& named) {
  EXPECT_EQ(config.status().code(), code) << named << ": " << config.status();
  EXPECT_THAT(std::string(config.status().message()), testing::HasSubstr(named));
}

std::vector<int> Windows(const ModelConfig& config) {
  std::vector<int> windows;
  for (const LayerOptions& layer : config.layer_options) windows.push_back(layer.window);
  return windows;
}

TEST(ModelConfigTest, ReadsWhatTheFileSays) {
  Json json = TinyConfig({.layers = 3, .query_heads = 6, .kv_heads = 2, .tied_head = false});
  json["rms_norm_eps"] = 1e-6;
  json["rope_theta"] = 100000.0;
  const absl::StatusOr<ModelConfig> config = Load(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->architecture, "LlamaForCausalLM");
  EXPECT_EQ(config->layers, 3);
  EXPECT_EQ(config->hidden_size, 64);
  EXPECT_EQ(config->intermediate_size, 96);
  EXPECT_EQ(config->query_heads, 6);
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_EQ(config->vocab_size, 300);
  EXPECT_EQ(config->context_length, 1024);
  EXPECT_FLOAT_EQ(config->rms_norm_epsilon, 1e-6F);
  EXPECT_THAT(config->ropes, testing::SizeIs(1));
  EXPECT_EQ(config->ropes[0].theta, 100000.0);
  EXPECT_EQ(config->ropes[0].linear_factor, 1);
  EXPECT_FALSE(config->ropes[0].llama3);
  EXPECT_THAT(Windows(*config), testing::ElementsAre(0, 0, 0));
  EXPECT_FALSE(config->tied_head);
  EXPECT_THAT(config->end_of_turn_ids, testing::ElementsAre(299));
  EXPECT_EQ(config->kv_bytes_per_token(), 2 * 3 * 2 * 32 * 2);
}

TEST(ModelConfigTest, FillsInWhatTransformersFillsIn) {
  Json json = TinyConfig({.query_heads = 2});
  for (const char* field : {"num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "tie_word_embeddings",
                            "hidden_act", "eos_token_id"}) {
    json.erase(field);
  }
  const absl::StatusOr<ModelConfig> config = Load(json);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kv_heads, 2);
  EXPECT_EQ(config->head_dim, 32);
  EXPECT_FLOAT_EQ(config->rms_norm_epsilon, 1e-6F);
  EXPECT_EQ(config->ropes[0].theta, 10000.0);
  EXPECT_FALSE(config->tied_head);
  EXPECT_TRUE(config->end_of_turn_ids.empty());
}

TEST(ModelConfigTest, KnowsWhereAttentionTakesHalfOfTheWork) {
  // SmolLM2-135M: 2,654,208 multiplications a layer for the MLP, 884,736 for the projections, 1,152 for each token of
  // context.
  const ModelConfig config{
      .hidden_size = 576, .intermediate_size = 1536, .query_heads = 9, .kv_heads = 3, .head_dim = 64};
  EXPECT_EQ(config.attention_parity(), 3072);
}

TEST(ModelConfigTest, IsNamedAfterItsDirectory) {
  const TestFolder folder;
  const std::string dir = folder.path() + "/my-model";
  std::filesystem::create_directory(dir);
  folder.Write("my-model/config.json", TinyConfig({}).dump());
  EXPECT_EQ(LoadModelConfig(dir)->name, "my-model");
  EXPECT_EQ(LoadModelConfig(dir + "/")->name, "my-model");
}

TEST(ModelConfigTest, ReadsRopeScalingInOldAndNewWriting) {
  Json json = TinyConfig({.llama3_rope = true});
  const absl::StatusOr<ModelConfig> old = Load(json);
  ASSERT_TRUE(old.ok()) << old.status();
  ASSERT_TRUE(old->ropes[0].llama3);
  EXPECT_EQ(old->ropes[0].llama3->factor, 8);
  EXPECT_EQ(old->ropes[0].llama3->low_freq_factor, 1);
  EXPECT_EQ(old->ropes[0].llama3->high_freq_factor, 4);
  EXPECT_EQ(old->ropes[0].llama3->original_context_length, 64);

  json["rope_parameters"] = json["rope_scaling"];
  json["rope_parameters"]["rope_theta"] = 500000.0;
  json.erase("rope_scaling");
  json.erase("rope_theta");
  const absl::StatusOr<ModelConfig> modern = Load(json);
  ASSERT_TRUE(modern.ok()) << modern.status();
  EXPECT_EQ(modern->ropes[0].theta, 500000);
  EXPECT_EQ(modern->ropes[0].llama3->factor, 8);

  json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1234.0}};
  EXPECT_EQ(Load(json)->ropes[0].theta, 1234);
  EXPECT_FALSE(Load(json)->ropes[0].llama3);

  json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(Load(json)->ropes[0].linear_factor, 4);
}

TEST(ModelConfigTest, RefusesByNameWhatItCannotRun) {
  const std::pair<const char*, Json> features[] = {
      {"architectures", {"MixtralForCausalLM"}},
      {"architectures", Json::array()},
      {"architectures", {"LlamaForCausalLM", "Other"}},
      {"architectures", "LlamaForCausalLM"},
      {"hidden_act", "gelu"},
      {"sliding_window", 4096},
      {"layer_types", {"sliding_attention", "full_attention"}},
      {"attn_logit_softcapping", 50.0},
      {"final_logit_softcapping", 30.0},
      {"num_local_experts", 8},
      {"num_experts", 64},
      {"alibi", true},
      {"position_embedding_type", "alibi"},
      {"attention_sinks", 4},
      {"use_bidirectional_attention", true},
      {"vision_config", Json::object()},
      {"quantization_config", {{"bits", 4}}},
      {"pretraining_tp", 2},
      {"partial_rotary_factor", 0.5},
      {"head_dim", 40},
  };
  for (const auto& [field, value] : features) {
    ExpectRefused(LoadWith(field, value), absl::StatusCode::kUnimplemented, field);
  }
  ExpectRefused(LoadWith("hidden_size", 80), absl::StatusCode::kUnimplemented, "hidden_size");
  ExpectRefused(LoadWith("intermediate_size", 100), absl::StatusCode::kUnimplemented, "intermediate_size");
  for (const char* type : {"dynamic", "yarn", "longrope", "mrope"}) {
    ExpectRefused(LoadWith("rope_scaling", {{"rope_type", type}, {"factor", 2}}), absl::StatusCode::kUnimplemented,
                  type);
    ExpectRefused(LoadWith("rope_scaling", {{"type", type}}), absl::StatusCode::kUnimplemented, type);
  }
  for (const char* setting : {"mrope_section", "attention_factor"}) {
    ExpectRefused(LoadWith("rope_scaling", {{"rope_type", "default"}, {setting, {16, 24, 24}}}),
                  absl::StatusCode::kUnimplemented, setting);
  }
  ExpectRefused(LoadWith("rope_scaling", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
                absl::StatusCode::kUnimplemented, "partial_rotary_factor");
  // Written out, but off.
  const std::pair<const char*, Json> off[] = {
      {"attention_bias", false}, {"sliding_window", nullptr},
      {"pretraining_tp", 1},     {"partial_rotary_factor", 1.0},
      {"rope_scaling", nullptr}, {"quantization_config", nullptr},
      {"num_experts", 0},        {"alibi", false},
      {"head_dim", 48},          {"layer_types", {"full_attention", "full_attention"}}};
  for (const auto& [field, value] : off) EXPECT_TRUE(LoadWith(field, value).ok()) << field;
}

TEST(ModelConfigTest, RefusesNumbersThatMakeNoSense) {
  for (const char* field : {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
                            "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"}) {
    for (const Json& value : {Json(0), Json(-1), Json(1e12), Json("64"), Json(true), Json::array(), Json(64.5)}) {
      ExpectRefused(LoadWith(field, value), absl::StatusCode::kInvalidArgument, field);
    }
  }
  for (const char* field : {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
                            "vocab_size", "max_position_embeddings"}) {
    Json json = TinyConfig({});
    json.erase(field);
    ExpectRefused(Load(json), absl::StatusCode::kInvalidArgument, field);
  }
  ExpectRefused(LoadWith("rms_norm_eps", -1), absl::StatusCode::kInvalidArgument, "rms_norm_eps");
  ExpectRefused(LoadWith("rope_theta", 0), absl::StatusCode::kInvalidArgument, "rope_theta");
  ExpectRefused(LoadWith("num_key_value_heads", 3), absl::StatusCode::kInvalidArgument, "num_key_value_heads");
}

TEST(ModelConfigTest, RefusesAHeadDimensionThatIsDerivedAndMakesNoSense) {
  Json json = TinyConfig({});
  json.erase("head_dim");
  json["num_attention_heads"] = 128;  // of 64 hidden elements
  json["num_key_value_heads"] = 128;
  ExpectRefused(Load(json), absl::StatusCode::kInvalidArgument, "head_dim");
  json["num_attention_heads"] = 1;
  json["num_key_value_heads"] = 1;
  json["hidden_size"] = 512;
  ExpectRefused(Load(json), absl::StatusCode::kInvalidArgument, "head_dim");
}

TEST(ModelConfigTest, RefusesRopeScalingThatLacksOrContradictsItself) {
  const Json whole = TinyConfig({.llama3_rope = true})["rope_scaling"];
  for (const char* field : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    Json scaling = whole;
    scaling.erase(field);
    ExpectRefused(LoadWith("rope_scaling", scaling), absl::StatusCode::kInvalidArgument, field);
  }
  Json scaling = whole;
  scaling["high_freq_factor"] = 1.0;
  ExpectRefused(LoadWith("rope_scaling", scaling), absl::StatusCode::kInvalidArgument, "high_freq_factor");
}

TEST(ModelConfigTest, TakesEndOfTurnIdsFromTheGenerationSettings) {
  Json json = TinyConfig({});
  json["eos_token_id"] = {1, 2};
  EXPECT_THAT(Load(json)->end_of_turn_ids, testing::ElementsAre(1, 2));
  EXPECT_THAT(Load(json, {{"eos_token_id", 7}})->end_of_turn_ids, testing::ElementsAre(7));
  EXPECT_THAT(Load(json, {{"temperature", 0.5}})->end_of_turn_ids, testing::ElementsAre(1, 2));
  for (const Json& bad : {Json(-1), Json(300), Json(1.5), Json("2"), Json{1, 300}, Json(uint64_t{1} << 40)}) {
    ExpectRefused(LoadWith("eos_token_id", bad), absl::StatusCode::kInvalidArgument, "eos_token_id");
    ExpectRefused(Load(json, {{"eos_token_id", bad}}), absl::StatusCode::kInvalidArgument, "eos_token_id");
  }
}

TEST(ModelConfigTest, SaysWhichFileIsMissingOrDamaged) {
  const TestFolder folder;
  ExpectRefused(LoadModelConfig(folder.path()), absl::StatusCode::kNotFound, "config.json");
  for (const char* bad : {"", "{", "[]", "null", "{\"a\": \xff}", "[[[[[["}) {
    folder.Write("config.json", bad);
    ExpectRefused(LoadModelConfig(folder.path()), absl::StatusCode::kInvalidArgument, "config.json");
  }
  folder.Write("config.json", TinyConfig({}).dump());
  folder.Write("generation_config.json", "{");
  ExpectRefused(LoadModelConfig(folder.path()), absl::StatusCode::kInvalidArgument, "generation_config.json");
}

TEST(ModelConfigTest, DamagedBytesNeverCrash) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::string good = TinyConfig({.llama3_rope = true}).dump();
  const TestFolder folder;
  int accepted = 0;
  for (int round = 0; round < 500; ++round) {
    std::string bytes = good;
    for (size_t i = 0; i < 1 + random() % 3; ++i) {
      const char* const pieces[] = {"0", "-", "9999999999", "\"", "null", "{", "]", "1e400", "", ",", "\xff", "true"};
      bytes.replace(random() % bytes.size(), random() % 4, pieces[random() % 12]);
    }
    folder.Write("config.json", bytes);
    const absl::StatusOr<ModelConfig> config = LoadModelConfig(folder.path());
    if (!config.ok()) continue;
    ++accepted;
    EXPECT_GT(config->head_dim, 0);
    EXPECT_EQ(config->query_heads % config->kv_heads, 0);
  }
  EXPECT_GT(accepted, 0);
}

TEST(RopeTableTest, HoldsCosinesAndSinesOfTheAngles) {
  const absl::StatusOr<ModelConfig> config = Load(TinyConfig({}));
  ASSERT_TRUE(config.ok());
  const std::vector<float> table = RopeTable(config->ropes[0], config->head_dim, config->context_length);
  ASSERT_EQ(table.size(), size_t{1024} * 32);
  for (const int position : {0, 1, 100, 1023}) {
    for (int i = 0; i < 16; ++i) {
      const double angle = position * std::pow(10000.0, -2.0 * i / 32);
      // The angle is rounded to fp32 twice, 2^-23 of up to 1,023.
      EXPECT_NEAR(table[position * 32 + i], std::cos(angle), 2e-4 * (position / 1000.0) + 1e-7);
      EXPECT_NEAR(table[position * 32 + 16 + i], std::sin(angle), 2e-4 * (position / 1000.0) + 1e-7);
    }
  }
}

TEST(RopeTableTest, ScalesAllFrequenciesLinearly) {
  const std::vector<float> a = RopeTable({.theta = 10000}, 32, 9);
  const std::vector<float> b = RopeTable({.theta = 10000, .linear_factor = 8}, 32, 9);
  // Position 8 is where position 1 was.
  for (int i = 0; i < 32; ++i) EXPECT_NEAR(b[8 * 32 + i], a[32 + i], 1e-6);
}

TEST(RopeTableTest, ScalesLowFrequenciesOnly) {
  const absl::StatusOr<ModelConfig> plain = Load(TinyConfig({}));
  const absl::StatusOr<ModelConfig> scaled = Load(TinyConfig({.llama3_rope = true}));
  ASSERT_TRUE(plain.ok() && scaled.ok());
  const std::vector<float> a = RopeTable(plain->ropes[0], 32, 2);
  const std::vector<float> b = RopeTable(scaled->ropes[0], 32, 2);
  // Sines at position 1. Wavelength 2 pi turns 10 times in 64 positions, above high_freq_factor 4: kept.
  EXPECT_EQ(a[32 + 16], b[32 + 16]);
  // The lowest frequency, wavelength 35,000, is divided by 8.
  EXPECT_NEAR(b[32 + 31] * 8, a[32 + 31], 1e-8);
}

}  // namespace
}  // namespace quicksave::engine
