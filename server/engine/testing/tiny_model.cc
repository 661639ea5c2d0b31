#include "server/engine/testing/tiny_model.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "server/engine/kernels/cpu_kernels.h"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;

std::string Utf8(unsigned code) {  // up to U+07FF
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// How a byte-level vocabulary writes each byte.
std::vector<std::string> ByteLevelAlphabet() {
  std::vector<std::string> alphabet;
  unsigned shifted = 0;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool as_itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    alphabet.push_back(Utf8(as_itself ? byte : 0x100 + shifted++));
  }
  return alphabet;
}

Json AddedToken(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

Json TokenizerJson(int vocab_size) {
  Json vocab = Json::object();
  int id = 0;
  for (const std::string& character : ByteLevelAlphabet()) vocab[character] = id++;
  Json added = Json::array();
  for (; id < vocab_size - 2; ++id) added.push_back(AddedToken(id, absl::StrCat(" w", id), false));
  added.push_back(AddedToken(id, "<|im_start|>", true));
  added.push_back(AddedToken(id + 1, "<|im_end|>", true));
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}, {"unk_token", nullptr}}}};
}

}  // namespace

TestFolder::TestFolder() {
  path_ = (std::filesystem::temp_directory_path() / "quicksave-engine-XXXXXX").string();
  if (mkdtemp(path_.data()) == nullptr) std::abort();
}

TestFolder::~TestFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TestFolder::Write(const std::string& name, const std::string& content) const {
  std::ofstream(std::filesystem::path(path_) / name, std::ios::binary) << content;
}

std::string SafetensorsBytes(const std::map<std::string, TestTensor>& tensors) {
  Json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.data.size()}}};
    data += tensor.data;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string bytes;
  for (uint64_t size = text.size(), i = 0; i < 8; ++i, size >>= 8) bytes.push_back(static_cast<char>(size & 0xff));
  return bytes + text + data;
}

TestTensor RandomTensor(const std::vector<int64_t>& shape, float mean, float deviation, uint64_t seed) {
  std::mt19937_64 random(seed);
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  TestTensor tensor{.shape = shape};
  for (int64_t i = 0; i < count; ++i) {
    // The sum of four uniform numbers; std's distributions differ between libraries.
    float sum = -2;
    for (int k = 0; k < 4; ++k) sum += static_cast<float>(random() >> 40) * 0x1p-24F;
    const uint16_t bits = cpu::Bf16Bits(mean + deviation * 1.732F * sum);
    tensor.data.push_back(static_cast<char>(bits & 0xff));
    tensor.data.push_back(static_cast<char>(bits >> 8));
  }
  return tensor;
}

Json TinyConfig(const TinyModelOptions& options) {
  Json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"num_hidden_layers", options.layers},
                 {"hidden_size", options.hidden_size},
                 {"intermediate_size", options.intermediate_size},
                 {"num_attention_heads", options.query_heads},
                 {"num_key_value_heads", options.kv_heads},
                 {"head_dim", options.head_dim},
                 {"vocab_size", options.vocab_size},
                 {"max_position_embeddings", options.context_length},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"hidden_act", "silu"},
                 {"tie_word_embeddings", options.tied_head},
                 {"eos_token_id", options.vocab_size - 1}};
  if (options.llama3_rope) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 8.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 64}};
  }
  return config;
}

std::map<std::string, TestTensor> TinyWeights(const TinyModelOptions& options) {
  uint64_t seed = options.seed * 1000;
  std::map<std::string, TestTensor> weights;
  const auto norm = [&](const std::string& name) {
    weights[name] = RandomTensor({options.hidden_size}, 1.0F, 0.2F, ++seed);
  };
  // Deviations that keep activations near 1.
  const auto linear = [&](const std::string& name, int outputs, int inputs) {
    weights[name] = RandomTensor({outputs, inputs}, 0.0F, 1.2F / std::sqrt(static_cast<float>(inputs)), ++seed);
  };
  weights["model.embed_tokens.weight"] = RandomTensor({options.vocab_size, options.hidden_size}, 0.0F, 0.3F, ++seed);
  for (int i = 0; i < options.layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    norm(prefix + "input_layernorm.weight");
    norm(prefix + "post_attention_layernorm.weight");
    linear(prefix + "self_attn.q_proj.weight", options.query_heads * options.head_dim, options.hidden_size);
    linear(prefix + "self_attn.k_proj.weight", options.kv_heads * options.head_dim, options.hidden_size);
    linear(prefix + "self_attn.v_proj.weight", options.kv_heads * options.head_dim, options.hidden_size);
    linear(prefix + "self_attn.o_proj.weight", options.hidden_size, options.query_heads * options.head_dim);
    linear(prefix + "mlp.gate_proj.weight", options.intermediate_size, options.hidden_size);
    linear(prefix + "mlp.up_proj.weight", options.intermediate_size, options.hidden_size);
    linear(prefix + "mlp.down_proj.weight", options.hidden_size, options.intermediate_size);
  }
  norm("model.norm.weight");
  if (!options.tied_head) linear("lm_head.weight", options.vocab_size, options.hidden_size);
  return weights;
}

void WriteTinyText(const TestFolder& folder, int vocab_size) {
  folder.Write("tokenizer.json", TokenizerJson(vocab_size).dump());
  folder.Write("tokenizer_config.json", Json{{"eos_token", "<|im_end|>"}}.dump());
  folder.Write("chat_template.jinja",
               "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
               "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
               "{% endif %}");
}

TinyModel::TinyModel(const TinyModelOptions& options) : options_(options) {
  folder_.Write("config.json", TinyConfig(options).dump());
  WriteWeights();
  if (options.tokenizer) WriteTinyText(folder_, options.vocab_size);
}

void TinyModel::WriteWeights() const {
  const std::map<std::string, TestTensor> weights = TinyWeights(options_);
  if (options_.shards == 1) return folder_.Write("model.safetensors", SafetensorsBytes(weights));
  std::vector<std::map<std::string, TestTensor>> shards(options_.shards);
  Json map = Json::object();
  size_t next = 0;
  for (const auto& [name, tensor] : weights) {
    const size_t shard = next++ % shards.size();
    shards[shard][name] = tensor;
    map[name] = absl::StrCat("model-", shard, ".safetensors");
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    folder_.Write(absl::StrCat("model-", i, ".safetensors"), SafetensorsBytes(shards[i]));
  }
  folder_.Write("model.safetensors.index.json", Json{{"weight_map", map}}.dump());
}

}  // namespace quicksave::engine
