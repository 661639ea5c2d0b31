#include "server/text/test_models.h"

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"

namespace quicksave::text {
namespace {

using nlohmann::json;

std::string Utf8(unsigned code) {  // Up to U+07FF.
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// How GPT-2 shows a byte in its vocabulary.
std::string ByteLevelCharacter(unsigned byte) {
  unsigned shifted = 0;
  for (unsigned b = 0; b < 256; ++b) {
    const bool shown_as_itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    if (b == byte) return Utf8(shown_as_itself ? b : 0x100 + shifted);
    if (!shown_as_itself) ++shifted;
  }
  return "";
}

json AddedToken(int id, const std::string& content, bool special, bool lstrip = false) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", lstrip},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "quicksave_text_XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void TemporaryDirectory::Write(const std::string& name, const std::string& content) const {
  std::ofstream(path_ / name, std::ios::binary) << content;
}

std::string ByteLevelTokenizerJson() {
  json vocab = json::object();
  for (unsigned byte = 0; byte < 256; ++byte) vocab[ByteLevelCharacter(byte)] = byte;
  vocab["he"] = 256;
  vocab["ll"] = 257;
  vocab["hell"] = 258;
  vocab["zzz"] = 300;
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const json tokenizer = {
      {"version", "1.0"},
      {"truncation", {{"max_length", 4}, {"strategy", "LongestFirst"}, {"stride", 0}, {"direction", "Right"}}},
      {"padding", nullptr},
      {"added_tokens",
       {AddedToken(260, "<|start|>", true), AddedToken(261, "<|end|>", true), AddedToken(262, "<think>", false),
        AddedToken(263, "<|mask|>", true, /*lstrip=*/true)}},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array({"h e", "l l", "he ll"})}, {"unk_token", nullptr}}}};
  return tokenizer.dump();
}

std::string ByteFallbackTokenizerJson() {
  const std::string block = "\xE2\x96\x81";
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) vocab[absl::StrFormat("<0x%02X>", byte)] = 3 + byte;
  vocab[block] = 259;
  vocab["a"] = 260;
  vocab["b"] = 261;
  vocab[block + "a"] = 262;
  const json replace_back = {{"type", "Replace"}, {"pattern", {{"String", block}}}, {"content", " "}};
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", block}};
  const json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json pair = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  const json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", {AddedToken(0, "<unk>", true), AddedToken(1, "<s>", true), AddedToken(2, "</s>", true)}},
      {"normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", block}}, replace}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {bos, text}},
        {"pair", {bos, text, pair}},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder",
       {{"type", "Sequence"},
        {"decoders",
         {replace_back,
          {{"type", "ByteFallback"}},
          {{"type", "Fuse"}},
          {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", json::array({block + " a"})}}}};
  return tokenizer.dump();
}

std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& tokenizer_json) {
  const TemporaryDirectory directory;
  directory.Write("tokenizer.json", tokenizer_json);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(directory.path());
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    std::abort();
  }
  return *std::move(tokenizer);
}

std::string RealModelDir() {
  const char* directory = std::getenv("QUICKSAVE_MODEL_DIR");
  return directory == nullptr ? "" : directory;
}

}  // namespace quicksave::text
