#include "tests/integration/model_variant.h"

#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/integration/server_process.h"

namespace quicksave::integration {
namespace {

using Json = nlohmann::json;
using Path = std::filesystem::path;

constexpr char kWeights[] = "model.safetensors";
constexpr char kEmbedding[] = "model.embed_tokens.weight";

// A safetensors file: eight bytes with the length of the header, a JSON header, data.
class Safetensors {
 public:
  explicit Safetensors(const Path& path) : file_(path, std::ios::binary) {
    uint64_t size = 0;
    file_.read(reinterpret_cast<char*>(&size), sizeof(size));
    std::string header(size, '\0');
    file_.read(header.data(), static_cast<std::streamsize>(size));
    header_ = Json::parse(header);
    data_ = sizeof(size) + size;
  }

  const Json& header() const { return header_; }
  std::string Bytes(const std::string& tensor) {
    const auto& offsets = header_.at(tensor).at("data_offsets");
    std::string bytes(offsets[1].get<size_t>() - offsets[0].get<size_t>(), '\0');
    file_.seekg(static_cast<std::streamoff>(data_ + offsets[0].get<size_t>()));
    file_.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    EXPECT_TRUE(file_.good()) << tensor;
    return bytes;
  }

 private:
  std::ifstream file_;
  Json header_;
  uint64_t data_ = 0;
};

// Names in a file and where they come from, in the file's order.
using Tensors = std::vector<std::pair<std::string, std::string>>;

void Write(const Path& path, Safetensors* source, const Tensors& tensors) {
  Json header;
  uint64_t offset = 0;
  for (const auto& [name, origin] : tensors) {
    const Json& entry = source->header().at(origin);
    const uint64_t size = entry["data_offsets"][1].get<uint64_t>() - entry["data_offsets"][0].get<uint64_t>();
    header[name] = {{"dtype", entry["dtype"]}, {"shape", entry["shape"]}, {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t size = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&size), sizeof(size));
  file << text;
  for (const auto& [name, origin] : tensors) file << source->Bytes(origin);
  ASSERT_TRUE(file.good()) << path;
}

Tensors AllTensors(const Safetensors& source) {
  Tensors tensors;
  for (const auto& [name, entry] : source.header().items()) {
    if (name != "__metadata__") tensors.emplace_back(name, name);
  }
  return tensors;
}

}  // namespace

void LinkModel(const Path& directory) {
  std::filesystem::create_directory(directory);
  for (const auto& entry : std::filesystem::directory_iterator(ModelDirectory())) {
    std::filesystem::create_symlink(entry.path(), directory / entry.path().filename());
  }
}

void ChangeConfig(const Path& directory, const Json& changes) {
  std::ifstream file(directory / "config.json");
  Json config = Json::parse(file);
  config.merge_patch(changes);
  std::filesystem::remove(directory / "config.json");
  std::ofstream(directory / "config.json") << config.dump(2);
}

void SplitWeights(const Path& directory) {
  Safetensors source(directory / kWeights);
  Json index = {{"metadata", Json::object()}};
  std::vector<Tensors> halves(2);
  for (const auto& tensor : AllTensors(source)) {
    // Neighbours in different files, so that no order of reading works by luck.
    const size_t half = halves[0].size() > halves[1].size() ? 1 : 0;
    halves[half].push_back(tensor);
    index["weight_map"][tensor.first] =
        half == 0 ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
  }
  Write(directory / "model-00001-of-00002.safetensors", &source, halves[0]);
  Write(directory / "model-00002-of-00002.safetensors", &source, halves[1]);
  std::filesystem::remove(directory / kWeights);
  std::ofstream(directory / "model.safetensors.index.json") << index.dump();
}

void UntieHead(const Path& directory) {
  Safetensors source(directory / kWeights);
  Tensors tensors = AllTensors(source);
  tensors.emplace_back("lm_head.weight", kEmbedding);
  const Path rewritten = directory / "rewritten";
  Write(rewritten, &source, tensors);
  std::filesystem::rename(rewritten, directory / kWeights);
  ChangeConfig(directory, {{"tie_word_embeddings", false}});
}

void TruncateWeights(const Path& directory, uintmax_t bytes) {
  std::string kept(bytes, '\0');
  std::ifstream(directory / kWeights, std::ios::binary).read(kept.data(), static_cast<std::streamsize>(bytes));
  std::filesystem::remove(directory / kWeights);
  std::ofstream(directory / kWeights, std::ios::binary) << kept;
}

}  // namespace quicksave::integration
