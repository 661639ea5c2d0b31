#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_TINY_MODEL_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_TINY_MODEL_H_

// Hugging Face directories with small random models, for fast tests.
//
//   const TinyModel model({.layers = 2, .tied_head = false});
//   auto decoder = Decoder::Load(model.dir(), &threads);

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace quicksave::engine {

// A folder that is removed, with all that is in it, with the object.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

struct TinyModelOptions {
  int layers = 2;
  int hidden_size = 64;
  int intermediate_size = 96;
  int query_heads = 4;
  int kv_heads = 2;
  int head_dim = 32;
  int vocab_size = 300;  // at least 258 with a tokenizer
  int context_length = 1024;
  bool tied_head = true;
  bool llama3_rope = false;  // scaled by 8 from 64 positions
  int shards = 1;            // above 1: with an index
  // A byte-level tokenizer.json whose first 256 ids are the bytes, then added tokens " w256", " w257", ..., and at the
  // end the special tokens <|im_start|> and <|im_end|>, which ends a turn; and a ChatML chat template.
  bool tokenizer = false;
  uint64_t seed = 1;
};

// One tensor of a safetensors file.
struct TestTensor {
  std::string dtype = "BF16";
  std::vector<int64_t> shape;
  std::string data;
};

// The bytes of a safetensors file, as the reference library lays it out.
std::string SafetensorsBytes(const std::map<std::string, TestTensor>& tensors);

// bf16 values [shape], roughly normal with this mean and deviation, from this seed.
TestTensor RandomTensor(const std::vector<int64_t>& shape, float mean, float deviation, uint64_t seed);

// config.json of a model.
nlohmann::json TinyConfig(const TinyModelOptions& options);

// All weights by their names.
std::map<std::string, TestTensor> TinyWeights(const TinyModelOptions& options);

// Writes tokenizer.json, tokenizer_config.json and chat_template.jinja, as TinyModelOptions::tokenizer says.
void WriteTinyText(const TestFolder& folder, int vocab_size);

// The directory of a random model; removed with the object.
class TinyModel {
 public:
  explicit TinyModel(const TinyModelOptions& options);

  const std::string& dir() const { return folder_.path(); }
  const TinyModelOptions& options() const { return options_; }
  int32_t end_of_turn_id() const { return options_.vocab_size - 1; }

 private:
  void WriteWeights() const;

  const TinyModelOptions options_;
  const TestFolder folder_;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_TINY_MODEL_H_
