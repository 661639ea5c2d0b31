#ifndef QUICKSAVE_SERVER_ENGINE_TESTING_RECORDED_FAMILY_H_
#define QUICKSAVE_SERVER_ENGINE_TESTING_RECORDED_FAMILY_H_

// Tiny random models of every family with the logits and hidden states that Hugging Face transformers gives, from
// tests/reference/families (tests/reference/README.md says how they were made).
//
//   const RecordedFamily family("gemma3");
//   auto decoder = Decoder::Load(family.dir(), &threads);

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {

class RecordedFamily {
 public:
  // Aborts when there is no such record. `changes` to its config.json are merged, null removes a field.
  explicit RecordedFamily(const std::string& name, const nlohmann::json& changes = nlohmann::json::object());

  // The names of all records.
  static std::vector<std::string> Names();

  // A Hugging Face directory, with a tokenizer like TinyModel's; removed with the object.
  const std::string& dir() const { return folder_.path(); }
  int vocab_size() const { return record_["config"]["vocab_size"]; }

  // [{token_ids, rows: [{position, logits [vocabulary]}], hidden_states [layers + 1, hidden]}], in fp32; the hidden
  // states are the last token's, those of the last layer after the final norm.
  const nlohmann::json& prompts() const { return record_["prompts"]; }

 private:
  const TestFolder folder_;
  nlohmann::json record_;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_TESTING_RECORDED_FAMILY_H_
