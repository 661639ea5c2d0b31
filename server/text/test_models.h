// Model directories for tests: two tiny hand-made vocabularies, and the real model.
#ifndef QUICKSAVE_SERVER_TEXT_TEST_MODELS_H_
#define QUICKSAVE_SERVER_TEXT_TEST_MODELS_H_

#include <filesystem>
#include <memory>
#include <string>

#include "server/text/tokenizer.h"

namespace quicksave::text {

// A folder that is removed with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string path() const { return path_.string(); }
  void Write(const std::string& name, const std::string& content) const;

 private:
  std::filesystem::path path_;
};

// A byte-level tokenizer.json as GPT-2 has it: 256 byte tokens (ids 0 to 255 in the order of the bytes), the merges
// "he", "ll", "hell" (ids 256 to 258), the special tokens <|start|> and <|end|> (260, 261), the added but not special
// token <think> (262), the special token <|mask|> that takes white space before it (263), and "zzz" (300).
std::string ByteLevelTokenizerJson();

// A tokenizer.json as Llama 2 has it: <unk>, <s>, </s> (ids 0 to 2), byte tokens <0x00> to <0xFF> (3 to 258), then
// U+2581, "a", "b", U+2581 "a" (259 to 262); a BOS is added, one leading space is stripped by the decoder.
std::string ByteFallbackTokenizerJson();

// Loads a tokenizer from the text of its tokenizer.json; aborts when it cannot.
std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& json);

// The directory of the real model: the environment's QUICKSAVE_MODEL_DIR, which ctest sets. Empty without it.
std::string RealModelDir();

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_TEST_MODELS_H_
