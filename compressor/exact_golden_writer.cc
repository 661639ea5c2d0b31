// Writes the golden files of testdata/ for a new format version:
//
//   exact_golden_writer KV_FILE DIRECTORY
//
// KV_FILE holds blocks of SmolLM2-135M's shape and 128 tokens (exact_codec_bench.cc). The first layer's first head
// makes the golden blocks. Files of older versions stay: they must decode forever.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "compressor/container.h"
#include "compressor/exact_codec.h"
#include "compressor/exact_profile.h"

namespace quicksave::compressor {
namespace {

constexpr BlockShape kModel{.layers = 30, .kv_heads = 3, .head_dim = 64, .tokens = 128};
constexpr int kLayers = 1;

template <typename T>
T Get(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  std::exit(1);
}

// Tokens of the first head of the first layer.
std::vector<uint16_t> Cut(const std::vector<uint16_t>& block, const BlockShape& shape) {
  std::vector<uint16_t> values;
  const size_t tensor = kModel.channels_per_tensor() * 128;
  for (size_t t = 0; t < shape.tensors(); ++t) {
    for (size_t c = 0; c < shape.channels_per_tensor(); ++c) {
      const uint16_t* const channel = block.data() + t * tensor + c * 128;
      values.insert(values.end(), channel, channel + shape.tokens);
    }
  }
  return values;
}

void Write(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

int Run(const std::string& kv_file, const std::string& directory) {
  std::vector<std::vector<uint16_t>> blocks;
  std::ifstream file(kv_file, std::ios::binary);
  std::vector<uint16_t> block(kModel.values());
  while (file.read(reinterpret_cast<char*>(block.data()), static_cast<std::streamsize>(kModel.bytes()))) {
    blocks.push_back(block);
  }
  BlockShape shape{.layers = kLayers, .kv_heads = 1, .head_dim = 64, .tokens = 128};
  ExactProfileBuilder builder("golden-model");
  for (const auto& values : blocks) {
    if (!builder.AddBlock({shape, Cut(values, shape)}).ok()) return 1;
  }
  auto profile = std::make_shared<const ExactProfile>(Get(builder.Build()));
  Write(directory + "/exact_v1.profile", profile->Serialize());
  CodecRegistry registry;
  if (!RegisterBuiltinCodecs(registry).ok()) return 1;
  std::string ids;
  for (const char* const kind : {"builtin", "profile"}) {
    for (const int tokens : {128, 5}) {
      shape.tokens = tokens;
      const std::vector<uint16_t> values = Cut(blocks[blocks.size() / 2], shape);
      const std::string name = "exact_v1_" + std::string(kind) + "_" + std::to_string(tokens) + ".qsbk";
      Write(std::string(directory).append("/").append(name), Get(EncodeBlock(registry, "exact", {shape, values}, {})));
      ids.append(name).append(" ").append(ComputeBlockId({shape, values}).ToHex()).append("\n");
    }
    if (std::string_view(kind) == "builtin" && !registry.Register(NewExactCodec(profile)).ok()) return 1;
  }
  Write(directory + "/exact_v1.ids", ids);
  return 0;
}

}  // namespace
}  // namespace quicksave::compressor

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s KV_FILE DIRECTORY\n", argv[0]);
    return 2;
  }
  return quicksave::compressor::Run(argv[1], argv[2]);
}
